"""``tubelet convert``: every way through it, on a miniature of V-JEPA 2."""

import dataclasses

import pytest
import torch

from tubelet.cli.main import main
from tubelet.vjepa import family, pretrain
from tubelet.vjepa.attentive import AttentiveConfig, AttentiveProbe
from tubelet.vjepa.checkpoint import save_checkpoint
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.formats.checkpoint import Checkpoint, Provenance
from tubelet.vjepa.formats.huggingface import read_hf
from tubelet.vjepa.formats.meta import write_meta
from tubelet.vjepa.formats.meta_probes import write_meta_probe
from tubelet.vjepa.positions import PositionConfig
from tubelet.vjepa.predictor import MaskedPredictor, PredictorConfig

TILED = PositionConfig(pairs="tiled")
ENCODER = EncoderConfig(width=48, depth=2, heads=3, patch=4, position=TILED)
PREDICTOR = PredictorConfig(width=24, depth=1, heads=2, position=TILED)


@pytest.fixture
def meta(tmp_path, monkeypatch):
    """A file of Meta's of a member called vjepa2-mini."""
    mini = dataclasses.replace(
        family.member("vjepa2-l"),
        name="vjepa2-mini",
        encoder=ENCODER,
        predictor=PREDICTOR,
        crop=16,
        frames=4,
    )
    monkeypatch.setitem(family.FAMILY, "vjepa2-mini", mini)
    torch.manual_seed(0)
    parts = TubeletEncoder(ENCODER), MaskedPredictor(PREDICTOR, latent_dim=48)
    write_meta(Checkpoint(*parts), tmp_path / "mini.pt")
    return tmp_path / "mini.pt"


def convert(*args):
    return main(["convert", *map(str, args)])


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_around_all_formats_and_back_to_the_same_file(meta, tmp_path, capsys):
    ours, hf = tmp_path / "ours", tmp_path / "hf"
    assert convert(meta, ours) == 0
    said = capsys.readouterr().out
    assert f"{28 + 20} keys mapped, 0 dropped, 0 regenerated" in said  # encoder and predictor
    assert "encoder: 0." in said
    origin = Checkpoint.from_pretrained(ours).provenance
    assert (origin.name, origin.source, origin.crop) == ("vjepa2-mini", "mini.pt", 16)
    assert len(origin.sha256) == 64

    assert convert(ours, hf, "--to", "tubelet") == 0
    assert convert(ours, hf, "--to", "hf", "--overwrite") == 0  # leaves nothing of the other
    assert "right for clips of 16 x 16 only" in capsys.readouterr().out
    assert convert(hf, tmp_path / "back.pt", "--to", "meta", "--name", "vjepa2-mini") == 0
    a, b = (torch.load(path, weights_only=True) for path in (meta, tmp_path / "back.pt"))
    assert a.keys() == b.keys()
    assert all(same(a[part], b[part]) for part in a)


def test_what_is_dropped_is_printed(meta, tmp_path, capsys):
    content = torch.load(meta, weights_only=True)
    content["target_encoder"]["module.backbone.pos_embed"] = torch.zeros(1, 4, 48)
    torch.save(content | {"opt": {}, "encoder": content["target_encoder"]}, meta)
    assert convert(meta, tmp_path / "ours", "--name", "vjepa2-mini") == 0
    said = capsys.readouterr().out
    assert "3 dropped" in said
    assert "pos_embed: positions are rotary" in said
    assert "dropped opt: no weights of the model" in said
    assert "dropped encoder: target_encoder was asked for" in said


def test_a_probe_is_added(meta, tmp_path, capsys):
    torch.manual_seed(1)
    probe = AttentiveProbe(AttentiveConfig(width=48, classes=(3,), depth=2, heads=16))
    write_meta_probe(probe, tmp_path / "probe.pt")
    flags = ["--probe", tmp_path / "probe.pt"]
    assert convert(meta, tmp_path / "hf", "--to", "hf", *flags) == 2
    assert "the probe has 16 heads; transformers runs it with" in capsys.readouterr().err
    assert convert(meta, tmp_path / "hf", "--to", "hf", *flags, "--accept-heads") == 0
    assert "another function" in capsys.readouterr().out
    found = read_hf(tmp_path / "hf", probe_as="published")[0]
    assert same(found.probe.state_dict(), probe.state_dict())
    assert found.probe.config == probe.config
    assert convert(tmp_path / "hf", tmp_path / "o", "--probe-as", "published") == 0
    assert Checkpoint.from_pretrained(tmp_path / "o").probe.config == probe.config


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--which", "ema_encoder"], "no 'ema_encoder'; it has target_encoder (dict)"),
        (["--name", "vjepa2-g"], "does not fit this architecture"),
        (["--name", "vjepa2-mimi"], "did you mean 'vjepa2-mini'"),
        (["--head", "1"], "there is none"),
        (["--probe", "none.pt"], "none.pt: No such file"),
        (["--to", "hf", "--crop", "18"], "crop = 18"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(flags, message, meta, tmp_path, capsys):
    assert convert(meta, tmp_path / "out", *flags) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("tubelet convert: ")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_unasked(meta, tmp_path, capsys):
    assert convert(meta, tmp_path / "ours") == 0
    assert convert(meta, tmp_path / "ours") == 2
    assert "is there already" in capsys.readouterr().err
    assert convert(meta, tmp_path / "ours", "--overwrite") == 0
    assert convert(meta, meta, "--to", "meta", "--overwrite") == 2
    assert "also what is to be converted" in capsys.readouterr().err


def test_sources_that_are_none(tmp_path, capsys):
    assert convert(tmp_path / "none", tmp_path / "out") == 2
    assert "no such file or folder" in capsys.readouterr().err
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "notes.txt").touch()
    assert convert(tmp_path / "odd", tmp_path / "out") == 2
    assert "is no checkpoint folder" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["target_encoder", "encoder"])
def test_a_pretraining_run_is_converted(which, tmp_path):
    config = pretrain.PretrainConfig(
        encoder=ENCODER, predictor=dataclasses.replace(PREDICTOR, mask_tokens=2)
    )
    model = pretrain.build(config)
    for parameter in model.encoder.parameters():
        parameter.data += 1  # so that it is not its target
    save_checkpoint(tmp_path / "run", 7, model=model, config=config)
    assert convert(tmp_path / "run", tmp_path / "ours", "--which", which) == 0
    found = Checkpoint.from_pretrained(tmp_path / "ours")
    wanted = model.encoder if which == "encoder" else model.output
    assert same(found.encoder.state_dict(), wanted.state_dict())
    assert same(found.predictor.state_dict(), model.predictor.state_dict())
    assert found.provenance == Provenance(source="run at step 7", kind="run", which=which)
    assert convert(tmp_path / "ours", tmp_path / "hf", "--to", "hf", "--crop", 16) == 0
    assert convert(tmp_path / "ours", tmp_path / "m.pt", "--to", "meta") == 0
    assert torch.load(tmp_path / "m.pt", weights_only=True).keys() == {which, "predictor"}
    assert convert(tmp_path / "run", tmp_path / "x", "--which", "ema_encoder") == 2
