"""Every way a weight file can be wrong: said, and nothing in it ever runs."""

import io
import json
import pickle
import tarfile

import pytest
import torch
from safetensors.torch import save_file

from tubelet.core.errors import CheckpointError
from tubelet.vjepa.formats.files import check_tensors, read_json, read_safetensors, read_torch

WEIGHTS = {"encoder": {"w": torch.arange(3000.0)}}


class Malicious:
    """Unpickled by plain pickle, this creates the file named ``path``."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("modern", [True, False])
def test_files_of_both_layouts_are_read(modern, tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.pt", _use_new_zipfile_serialization=modern)
    found = read_torch(tmp_path / "w.pt")
    assert torch.equal(found["encoder"]["w"], WEIGHTS["encoder"]["w"])


def write_malicious(path, trap, how):
    if how == "pickle":
        path.write_bytes(pickle.dumps(Malicious(trap), protocol=2))
    elif how == "tensor beside it":
        torch.save({**WEIGHTS, "opt": Malicious(trap)}, path)
    else:
        torch.save(Malicious(trap), path, _use_new_zipfile_serialization=how == "zip")


@pytest.mark.parametrize("how", ["pickle", "zip", "old layout", "tensor beside it"])
def test_a_malicious_pickle_never_runs(how, tmp_path):
    trap, path = tmp_path / "trap", tmp_path / "evil.pt"
    write_malicious(path, trap, how)
    with pytest.raises(CheckpointError, match=r"Nothing was run|nothing in it was run"):
        read_torch(path)
    assert not trap.exists()
    with open(path, "rb") as file:  # the trap does work
        torch.load(file, weights_only=False) if how != "pickle" else pickle.load(file)
    assert trap.exists()


def test_a_pickled_module_names_what_it_would_call(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match=r"would call torch\.nn\.modules\.linear\.Linear"):
        read_torch(tmp_path / "module.pt")


def half(data):
    return data[: len(data) // 2]


BROKEN = {
    "empty": (lambda good: b"", "is empty: the download failed"),
    "web page": (lambda good: b"\n <!DOCTYPE html><html>404", "is a web page, not weights"),
    "web page, no doctype": (lambda good: b"<html><body>Sign in", "is a web page, not weights"),
    "S3's error": (lambda good: b"<?xml version='1.0'?><Error>", "is a web page, not weights"),
    "LFS pointer": (lambda good: b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    "truncated": (half, "truncated or damaged"),
    "first bytes only": (lambda good: good[:20], "truncated or damaged"),
    "noise": (lambda good: bytes(range(7, 200)) * 9, "damaged"),
    "text": (lambda good: b"hello, I am not a checkpoint", "damaged"),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("kind", ["zip", "old layout", "safetensors"])
def test_broken_files_say_what_they_are(how, kind, tmp_path):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(WEIGHTS["encoder"], path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=kind == "zip")
    break_it, message = BROKEN[how]
    path.write_bytes(break_it(path.read_bytes()))
    reader = read_safetensors if kind == "safetensors" else read_torch
    with pytest.raises(CheckpointError, match=message) as caught:
        reader(path)
    assert str(path) in str(caught.value)


def test_flipped_bits_in_a_zip_are_refused_or_harmless(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.pt")
    data = bytearray((tmp_path / "w.pt").read_bytes())
    refused = []
    for position in range(0, 600, 7):  # the pickled structure is at the front
        broken = bytearray(data)
        broken[position] ^= 0x15
        (tmp_path / "b.pt").write_bytes(broken)
        try:
            got = read_torch(tmp_path / "b.pt")
        except CheckpointError as error:
            refused.append(str(error))
        else:
            assert isinstance(got, dict)
    assert len(refused) > 10
    assert all(str(tmp_path / "b.pt") in message for message in refused)


def test_missing_and_unreadable(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        read_torch(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="Is a directory"):
        read_torch(tmp_path)
    with pytest.raises(CheckpointError, match="No such file"):
        read_safetensors(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="it has nothing"):
        read_safetensors(tmp_path)


def test_other_things_than_dicts_are_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list, not a dict"):
        read_torch(tmp_path / "list.pt")


def test_a_real_tar_is_refused(tmp_path):
    buffer = io.BytesIO(b"content")
    with tarfile.open(tmp_path / "w.pth.tar", "w") as tar:
        info = tarfile.TarInfo("pickle")
        info.size = 7
        tar.addfile(info, buffer)
    with pytest.raises(CheckpointError, match="damaged"):
        read_torch(tmp_path / "w.pth.tar")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds a JSON list, not an object"),
        (b"\xff\xfe", "is not JSON"),
        (None, "No such file"),
    ],
)
def test_json_that_is_none(text, message, tmp_path):
    path = tmp_path / "c.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=message):
        read_json(path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "../../etc/passwd"}}, "outside its folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "outside its folder"),
        ({"weight_map": ["a"]}, "no weight_map"),
        ({"weight_map": {"a": 1}}, "no weight_map"),
        ({}, "no weight_map"),
    ],
)
def test_a_shard_index_that_is_wrong(index, message, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message):
        read_safetensors(tmp_path)


def test_no_weights_at_all():
    with pytest.raises(CheckpointError, match="holds no weights"):
        check_tensors({}, "x")
    with pytest.raises(CheckpointError, match=r"torch.float64: cast them"):
        check_tensors({"w": torch.zeros(1, dtype=torch.float64)}, "x")
    assert check_tensors({"w": torch.zeros(1)}, "x") == torch.float32
