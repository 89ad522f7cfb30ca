"""Up to the Hub and down again, with the network replaced by a folder."""

import shutil
import subprocess
import sys

import pytest
import torch

from tubelet.core.errors import CheckpointError
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.formats.checkpoint import Checkpoint, Provenance

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A repository in a folder, in the place of huggingface.co."""
    folder = tmp_path / "server"

    class Repo:
        repo_id = "someone/tiny"

    def create(self, repo_id, **options):
        assert repo_id == Repo.repo_id
        return Repo

    def upload(self, *, repo_id, folder_path, **options):
        shutil.copytree(folder_path, folder)
        return "https://commit"

    def snapshot(repo_id, *, allow_patterns, **options):
        assert repo_id == Repo.repo_id
        down = tmp_path / "cache"
        down.mkdir(exist_ok=True)
        for path in (path for pattern in allow_patterns for path in folder.glob(pattern)):
            shutil.copy(path, down / path.name)
        return str(down)

    def one(repo_id, filename, **options):
        return str(folder / filename)

    monkeypatch.setattr(hub.HfApi, "create_repo", create)
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", one)
    from tubelet.vjepa.formats.hub import mixin

    mixin.cache_clear()  # it holds on to snapshot_download
    yield folder
    mixin.cache_clear()


def test_up_and_down(server):
    encoder = TubeletEncoder(EncoderConfig(width=12, depth=1, heads=2, patch=4)).eval()
    ours = Checkpoint(encoder, provenance=Provenance(name="tiny"))
    assert ours.push_to_hub("someone/tiny", private=True) == "https://commit"
    names = {path.name for path in server.iterdir()}
    assert names == {"config.json", "model.safetensors", "manifest.json", "README.md"}
    assert "library_name: tubelet" in (server / "README.md").read_text()
    found = Checkpoint.from_pretrained("someone/tiny", revision="main")
    assert found.provenance == ours.provenance
    a, b = encoder.state_dict(), found.encoder.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_name_that_is_neither_folder_nor_repository():
    with pytest.raises(CheckpointError, match="no folder here, and no repository"):
        Checkpoint.from_pretrained("no such/folder/anywhere")


def test_without_network_it_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="someone/tiny is no folder here"):
        Checkpoint.from_pretrained("someone/tiny", local_files_only=True, cache_dir=str(tmp_path))


def test_the_library_is_imported_only_when_used():
    code = (
        "import sys, tubelet.vjepa.formats.hub, tubelet.vjepa.formats.convert; "
        "assert not {'huggingface_hub', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    from tubelet.vjepa.formats.hub import mixin

    mixin.cache_clear()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install tubelet\[hub\]"):
        Checkpoint.from_pretrained("someone/tiny")
