"""Presets: published sizes, quick ones that fit together, and names that are nearly right."""

import pytest
import torch

from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError
from tubelet.vjepa import presets
from tubelet.vjepa.dynamics import DynamicsConfig
from tubelet.vjepa.dynamics_config import objective
from tubelet.vjepa.encoder import TubeletEncoder
from tubelet.vjepa.predictor import MaskedPredictor
from tubelet.vjepa.pretrain import PretrainConfig
from tubelet.vjepa.world_model import WorldModel


def millions(module):
    return sum(p.numel() for p in module.parameters()) / 1e6


# Encoder parameters in millions, and the share of the predictor where it is the published one.
@pytest.mark.parametrize(
    ("name", "encoder", "predictor"),
    [
        ("tiny", 5.6, None),
        ("small", 21.9, None),
        ("base", 86.2, 21.9),
        ("large", 303.9, 22.1),
        ("huge", 631.6, 22.3),
        ("giant", 1012.2, 22.4),
    ],
)
def test_published_sizes(name, encoder, predictor):
    config = presets.preset(name)
    with torch.device("meta"):
        assert millions(TubeletEncoder(config.encoder)) == pytest.approx(encoder, abs=0.06)
        if predictor is not None:
            module = MaskedPredictor(config.predictor, latent_dim=config.encoder.width)
            assert millions(module) == pytest.approx(predictor, abs=0.06)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_survive_a_config_file_and_their_clips_fit(name):
    config, clips = presets.preset(name), presets.clips(name)
    assert from_toml(PretrainConfig, to_toml(config)) == config
    grid = config.encoder.grid(clips.frames, clips.size, clips.size)
    assert min(grid.t, grid.h, grid.w) >= 2


def test_the_small_presets_are_for_small_machines():
    assert millions(TubeletEncoder(presets.nano().encoder)) < 1
    assert millions(TubeletEncoder(presets.debug().encoder)) < 0.1


@pytest.mark.parametrize("name", presets.WORLD_MODELS)
def test_world_models_take_any_encoder(name):
    encoder = presets.nano().encoder
    config = presets.world_model(name, encoder)
    assert config.model.encoder == encoder
    assert from_toml(DynamicsConfig, to_toml(config)) == config
    assert config.freeze_encoder == name.startswith(("vjepa", "dino"))
    assert millions(WorldModel(config.model)) < 30


def test_published_world_models_are_their_losses():
    """What tells the recipes apart, from their papers."""

    def terms(name):
        return set(objective(presets.world_model(name, presets.nano().encoder)).terms())

    assert terms("lewm") == {"regress", "sigreg"}
    assert terms("pldm") == {"multistep", "vicreg", "tempsim", "idm"}
    assert terms("dino-wm") == {"regress"}
    assert terms("vjepa2-ac") == {"regress", "multistep"}
    ac = presets.world_model("vjepa2-ac", presets.nano().encoder)
    assert objective(ac).regress.kind == objective(ac).multistep.kind == "l1"
    actions = {
        name: presets.world_model(name, presets.nano().encoder).model.predictor.conditioning
        for name in ("lewm", "dino-wm", "vjepa2-ac")
    }
    assert actions == {"lewm": "adaln", "dino-wm": "concat", "vjepa2-ac": "tokens"}


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="'nanno'; did you mean 'nano'"):
        presets.preset("nanno")
    with pytest.raises(ConfigError, match=r"'x' .presets: debug, nano"):
        presets.clips("x")
    with pytest.raises(ConfigError, match="did you mean 'end_to_end'"):
        presets.world_model("endtoend", presets.nano().encoder)
