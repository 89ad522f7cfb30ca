"""Our own format: what goes in comes out, and whatever was changed in between is noticed."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tubelet.core.errors import CheckpointError
from tubelet.vjepa.action_predictor import ActionPredictor, ActionPredictorConfig
from tubelet.vjepa.attentive import AnticipationProbe, AttentiveConfig, AttentiveProbe
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.formats.checkpoint import Checkpoint, Provenance, digest
from tubelet.vjepa.positions import PositionConfig
from tubelet.vjepa.predictor import MaskedPredictor, PredictorConfig

ENCODER = EncoderConfig(
    width=24,
    depth=2,
    heads=2,
    patch=4,
    mlp_ratio=48 / 11,
    position=PositionConfig(kind="sincos", axes="wh", native=(1, 2, 2)),
    levels=(1, 2),
    pixel_mean=(0.1, 0.2, 0.3),
    pixel_std=(0.5, 0.6, 0.7),
)


def checkpoint(probe=True):
    torch.manual_seed(0)
    return Checkpoint(
        TubeletEncoder(ENCODER).eval(),
        MaskedPredictor(
            PredictorConfig(width=24, depth=1, heads=2, levels=2), latent_dim=24
        ).eval(),
        ActionPredictor(
            ActionPredictorConfig(width=24, depth=1, heads=2, state_dim=3),
            latent_dim=24,
            action_dim=5,
            grid=(2, 2),
        ).eval(),
        AttentiveProbe(AttentiveConfig(width=24, heads=2, classes=(3,), depth=2)).eval()
        if probe
        else None,
        Provenance(name="tiny", source="a.pt", kind="meta", crop=8, frames=4, labels=("a", "b")),
    )


@pytest.fixture
def folder(tmp_path):
    checkpoint().save_pretrained(tmp_path / "c")
    return tmp_path / "c"


def test_what_goes_in_comes_out(folder):
    before, after = checkpoint(), Checkpoint.from_pretrained(folder)
    assert after.provenance == before.provenance
    assert before.parts().keys() == after.parts().keys()
    for name, part in before.parts().items():
        other = after.parts()[name]
        assert type(other) is type(part)
        assert other.config == part.config
        assert not other.training
        a, b = part.state_dict(), other.state_dict()
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert after.actions.grid == (2, 2)
    video = torch.randint(0, 256, (1, 2, 8, 8, 3), dtype=torch.uint8)
    with torch.no_grad():  # pixel statistics are not among the weights
        assert torch.equal(before.encoder(video), after.encoder(video))


def test_saved_twice_the_files_are_the_same(folder, tmp_path):
    Checkpoint.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_an_encoder_alone_and_three_classes(tmp_path):
    alone = Checkpoint(TubeletEncoder(ENCODER))
    alone.probe = AnticipationProbe(AttentiveConfig(width=24, heads=2, classes=(2, 3, 4)))
    alone.save_pretrained(tmp_path)
    found = Checkpoint.from_pretrained(tmp_path)
    assert found.parts().keys() == {"encoder", "probe"}
    assert isinstance(found.probe, AnticipationProbe)


def test_what_was_loaded_can_be_trained(folder):
    encoder = Checkpoint.from_pretrained(folder).encoder
    video = torch.zeros(1, 2, 8, 8, 3, dtype=torch.uint8)
    encoder(video).sum().backward()
    assert all(p.grad is not None for p in encoder.norms[-1].parameters())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_changed_byte_is_noticed(name, folder):
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{name} is damaged or was changed"):
        Checkpoint.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "manifest.json"])
def test_a_missing_file_is_named(name, folder):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        Checkpoint.from_pretrained(folder)


def resign(folder):
    """Make the manifest agree with the files again, as someone who edits them on purpose would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = {name: digest(folder / name) for name in manifest["files"]}
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["parts"]["encoder"].update(widht=3), "unknown key 'widht'; did you mean"),
        (lambda c: c["parts"]["encoder"].update(width="24"), 'width = "24": expected a whole'),
        (lambda c: c["parts"]["encoder"].update(width=48), r"24.* in the file, \[48"),
        (lambda c: c["parts"].pop("encoder"), "parts must be an encoder and"),
        (lambda c: c["parts"].update(decoder={}), "parts must be an encoder and"),
        (lambda c: c["parts"].pop("probe"), "unexpected: probe."),
        (lambda c: c.update(parts=[]), "parts must be"),
        (lambda c: c["arguments"]["actions"].pop("action_dim"), "actions: .*action_dim"),
        (lambda c: c["arguments"]["actions"].update(mood=1), "actions: .*mood"),
        (lambda c: c["provenance"].update(which=3), "which = 3: expected a string"),
        (lambda c: c.pop("provenance"), "provenance is not an object but null"),
    ],
)
def test_a_config_that_was_edited(change, message, folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    resign(folder)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.from_pretrained(folder)


def test_weights_that_were_edited(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    lost = tensors.pop("encoder.norms.1.bias")
    save_file(tensors | {"encoder.extra": lost}, path)
    resign(folder)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.from_pretrained(folder)
    assert "1 missing: encoder.norms.1.bias; 1 unexpected: encoder.extra" in str(caught.value)


def test_other_versions_and_formats_are_refused(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | {"version": 2}
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="version 2; this tubelet reads"):
        Checkpoint.from_pretrained(folder)
