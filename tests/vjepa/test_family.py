"""The published members against the published table of sizes."""

import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.vjepa.action_predictor import ActionPredictor
from tubelet.vjepa.encoder import TubeletEncoder
from tubelet.vjepa.family import FAMILY, member
from tubelet.vjepa.predictor import MaskedPredictor

# Name -> (width, depth, heads, MLP hidden, millions of encoder parameters and of the predictor's),
# as published, or as counted on the published code.
TABLE = {
    "vjepa2-l": (1024, 24, 16, 4096, 303.9, 22.1),
    "vjepa2-h": (1280, 32, 16, 5120, 631.6, 22.3),
    "vjepa2-g": (1408, 40, 22, 6144, 1012.2, 22.4),
    "vjepa2-g-384": (1408, 40, 22, 6144, 1012.2, 22.4),
    "vjepa2-ac-g": (1408, 40, 22, 6144, 1012.2, 305.2),
}
# The tokenizer for images, two marks and three more norms: what 2.1 adds to an encoder of width D.
EXTRA = {d: d * (3 * 16 * 16 + 1) + 2 * d + 3 * 2 * d for d in (768, 1024, 1408, 1664)}


def parts(name):
    m = member(name)
    width = m.encoder.width
    with torch.device("meta"):
        encoder = TubeletEncoder(m.encoder)
        if m.actions is not None:
            return encoder, ActionPredictor(m.actions, latent_dim=width, action_dim=m.action_dim)
        return encoder, MaskedPredictor(m.predictor, latent_dim=width)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", TABLE)
def test_sizes_are_the_published(name):
    width, depth, heads, hidden, encoder_m, predictor_m = TABLE[name]
    encoder, predictor = parts(name)
    c = encoder.config
    assert (c.width, c.depth, c.heads) == (width, depth, heads)
    assert encoder.blocks[0].mlp.fc1.out_features == hidden
    assert round(count(encoder) / 1e6, 1) == encoder_m
    assert round(count(predictor) / 1e6, 1) == predictor_m


@pytest.mark.parametrize(
    ("name", "millions"),
    [("vjepa2.1-b-384", 86.2), ("vjepa2.1-l-384", 303.9), ("vjepa2.1-g-384", 1012.2)],
)
def test_what_2_1_adds_to_an_encoder(name, millions):
    encoder, _ = parts(name)
    assert round((count(encoder) - EXTRA[encoder.config.width]) / 1e6, 1) == millions


def test_the_largest():
    encoder, predictor = parts("vjepa2.1-G-384")
    assert encoder.blocks[0].mlp.fc1.out_features == 8192
    assert count(encoder) == pytest.approx(1.84e9, rel=5e-3)
    assert predictor.proj.out_features == 4 * 1664
    assert [x + 1 for x in (11, 23, 37, 47)] == list(encoder.config.levels)


def test_the_distilled_predict_their_teacher():
    for name in ("vjepa2.1-b-384", "vjepa2.1-l-384"):
        _, predictor = parts(name)
        assert predictor.proj.out_features == 1664
        assert predictor.context_proj.out_features == 1664
        # Mask tokens are one key each in the published file, which has 162.
        assert len(predictor.state_dict()) - 1 + 8 == 162


def test_ijepa_and_vjepa_1():
    for name, (patch, grid) in {
        "ijepa-h14": (14, (1, 16, 16)),
        "ijepa-h16-448": (16, (1, 28, 28)),
        "ijepa-g16": (16, (1, 14, 14)),
        "vjepa-l16": (16, (8, 14, 14)),
        "vjepa-h16": (16, (8, 14, 14)),
        "vjepa-h16-384": (16, (8, 24, 24)),
    }.items():
        m = member(name)
        assert m.encoder.patch == patch
        assert m.encoder.position.native == m.predictor.position.native == grid
        assert m.encoder.heads == m.predictor.heads == 16
        clip = m.encoder.grid(m.frames, m.crop, m.crop)
        assert tuple(clip) == grid
    assert member("ijepa-g16").predictor.depth == 16


@pytest.mark.parametrize("name", FAMILY)
def test_every_member_is_whole(name):
    m = member(name)
    assert m.name == name
    assert m.files
    assert (m.predictor is None) != (m.actions is None)
    m.encoder.grid(m.frames, m.crop, m.crop)  # raises where the crop does not divide


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(
        ConfigError, match=r"'vjepa2-xl'; did you mean 'vjepa2-l'.*known: ijepa-h14"
    ):
        member("vjepa2-xl")
