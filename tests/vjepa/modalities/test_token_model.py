"""The model over tokens: what is averaged, what has a gradient, who sees which view."""

from dataclasses import replace

import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.vjepa.modalities.model import TokenTrainConfig, build
from tubelet.vjepa.modalities.presets import PRESETS, preset
from tubelet.vjepa.modalities.rigid import RigidConfig
from tubelet.vjepa.modalities.skeletons import SkeletonsConfig
from tubelet.vjepa.modalities.tokens import TokenTransformerConfig, at, encode
from tubelet.vjepa.objectives import TargetConfig
from tubelet.vjepa.predictor import PredictorConfig


def with_target(config, **target):
    return replace(config, objective=replace(config.objective, target=TargetConfig(**target)))


def clouds(batch=4):
    return torch.randn(batch, 64, 3, generator=torch.Generator().manual_seed(0))


def figures(batch=4):
    return torch.randn(batch, 16, 16, 3, generator=torch.Generator().manual_seed(0))


def shift(module, by=1.0):
    with torch.no_grad():
        for p in module.parameters():
            p.add_(by)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_configs_that_say_their_system(name):
    config = preset(name)
    points, lejepa = "point" in name, name.startswith("lejepa")
    assert (config.points is not None) == points
    assert (config.objective.centred is not None) == name.startswith("sjepa")
    assert (config.views is not None) == lejepa
    assert (config.objective.sigreg is not None) == lejepa
    assert config.averaged == ("transformer" if points else "all")


def test_published_numbers():
    point, skeleton = preset("pointjepa"), preset("sjepa")
    assert (point.points.points, point.points.centres, point.points.neighbours) == (1024, 64, 32)
    assert (point.encoder.width, point.predictor.width, point.predictor.depth) == (384, 192, 6)
    assert point.objective.target.momentum == (0.9995, 0.99999)
    assert (point.objective.regress.kind, point.objective.regress.beta) == ("smooth_l1", 2.0)
    assert (skeleton.skeletons.segment, skeleton.skeletons.mask_ratio) == (4, 0.9)
    assert skeleton.predictor.depth == 5


def test_the_average_of_points_covers_the_transformer_alone_in_closed_form():
    """Weights that jump by 1 and stay: after n steps the teacher has moved by 1 - m^n."""
    config = with_target(preset("pointjepa-debug"), momentum=(0.9, 0.9), norm="layer")
    model = build(config)
    names = {name.split(".")[0] for name, _ in model.target.teacher.named_parameters()}
    assert names == {"blocks", "norm"}
    before = [p.clone() for p in model.target.teacher.parameters()]
    shift(model.encoder)
    for step in range(7):
        model.after_step(step, 7)
    for old, new in zip(before, model.target.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 1 - 0.9**7)
    assert model.output.tokenizer is model.encoder.tokenizer
    assert model.output.place is model.encoder.place
    assert model.output.transformer is model.target.teacher


def test_the_average_of_skeletons_covers_everything():
    model = build(preset("sjepa-debug"))
    names = {name.split(".")[0] for name, _ in model.target.teacher.named_parameters()}
    assert names == {"tokenizer", "place", "transformer"}
    assert model.output is model.target.teacher


def gradients(model, x):
    model.zero_grad()
    latents = model.latents(x, 0, 0)
    sum(t.sum() for t in latents.target).backward() if latents.target[0].requires_grad else None
    return {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize(("name", "x"), [("pointjepa-debug", clouds()), ("sjepa-debug", figures())])
def test_targets_carry_no_gradient_unless_shared(name, x):
    assert gradients(build(preset(name)), x) == set()
    shared = with_target(preset(name), kind="shared")
    assert any(n.startswith("encoder.tokenizer") for n in gradients(build(shared), x))


@pytest.mark.parametrize(("name", "x"), [("pointjepa-debug", clouds()), ("sjepa-debug", figures())])
def test_the_loss_trains_tokenizer_places_transformer_and_predictor(name, x):
    model = build(preset(name))
    model.losses(x, 0, 0)["loss"].backward()
    untouched = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert untouched == set()
    assert all(p.grad is None for p in model.target.parameters())


def test_only_the_context_sees_the_turned_view():
    """Targets are those of the sequence as it is, whatever the rigid motion; predictions are not;
    and without the motion predictions are those of the plain context."""
    plain = replace(
        preset("sjepa-debug"), skeletons=SkeletonsConfig(frames=16, joints=16, rigid=None)
    )
    turned = replace(
        plain,
        skeletons=replace(plain.skeletons, rigid=RigidConfig(degrees=(90, 90, 90), shift=1.0)),
    )
    x = figures()
    a, b = build(plain), build(turned)
    b.load_state_dict(a.state_dict())
    one, two = a.latents(x, 0, 0), b.latents(x, 0, 0)
    torch.testing.assert_close(one.target[0], two.target[0])
    assert (one.pred[0] - two.pred[0]).abs().max() > 1e-4
    moved = b.modality.view(x, seed=b.seed, first_sample=0)
    selection = b.modality.draw(x, seed=b.seed, step=0, first_sample=0)[0]
    other = a.encoder(moved, selection.context)
    torch.testing.assert_close(b.encoder(moved, selection.context), other)
    whole = b.target(b.encoder, x)
    torch.testing.assert_close(two.target[0], at(whole, selection.targets[0]))


def test_hidden_content_cannot_leak_into_predictions():
    """Change what hidden segments hold (and nothing of what masks are drawn from): predictions
    stay, targets change."""
    config = replace(
        preset("sjepa-debug"), skeletons=SkeletonsConfig(frames=16, joints=16, rigid=None)
    )
    model, x = build(config).eval(), figures()
    selection = model.modality.draw(x, seed=0, step=0, first_sample=0)[0]
    tokens = model.encoder.embed(x)
    content = tokens.content.clone()
    content.scatter_(1, selection.targets[0].unsqueeze(-1).expand(-1, -1, 24), 5.0)
    changed = tokens._replace(content=content)
    keep = selection.context
    torch.testing.assert_close(model.encoder.read(changed, keep), model.encoder.read(tokens, keep))


def test_predictions_depend_on_the_asked_place():
    """Two targets at the same place get the same prediction, others another one."""
    model = build(preset("pointjepa-debug")).eval()
    x = clouds()
    tokens = model.encoder.embed(x)
    places = model.predictor_place(tokens.places)
    context, keep = model.encoder.read(tokens, torch.arange(5).expand(4, -1)), torch.arange(5)
    ids = torch.tensor([9, 9, 12]).expand(4, -1)
    keep = keep.expand(4, -1)
    from tubelet.vjepa.positions import Grid
    from tubelet.vjepa.predictor import MaskedJob

    job = MaskedJob(context, keep, ids, 0, (at(places, keep), at(places, ids)))
    out = model.predictor.packed([job], Grid(1, 1, 16))[0][0]
    torch.testing.assert_close(out[:, 0], out[:, 1])
    assert (out[:, 0] - out[:, 2]).abs().max() > 1e-4
    # The order of context tokens says nothing: places do.
    mixed = torch.tensor([3, 0, 4, 1, 2])
    job = MaskedJob(
        context[:, mixed], keep[:, mixed], ids, 0, (at(places, keep[:, mixed]), at(places, ids))
    )
    torch.testing.assert_close(model.predictor.packed([job], Grid(1, 1, 16))[0][0], out)


def test_encoding_in_parts_is_encoding_and_keeps_the_mode():
    encoder = build(preset("pointjepa-debug")).encoder
    x = clouds(6)
    whole = encode(encoder, x)
    torch.testing.assert_close(encode(encoder, x, batch=4), whole)
    assert encoder.training


def test_the_same_seed_builds_the_same_weights_and_leaves_the_generator_alone():
    state = torch.random.get_rng_state()
    one, two = build(preset("sjepa-debug")), build(preset("sjepa-debug"))
    assert torch.equal(torch.random.get_rng_state(), state)
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"points": None}, "train.points and train.skeletons"),
        ({"skeletons": SkeletonsConfig()}, "train.points and train.skeletons"),
        ({"points": None, "skeletons": SkeletonsConfig()}, 'averaged = "all"'),
        ({"averaged": "half"}, 'averaged = "half"'),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"predictor": PredictorConfig(context_head=True)}, "context_head"),
    ],
)
def test_impossible_configs_are_refused_by_name(change, named):
    with pytest.raises(ConfigError, match=named):
        TokenTrainConfig(**change)


def test_impossible_transformers_are_refused():
    with pytest.raises(ConfigError, match=r"encoder.width = 100 .* heads = 6; .*: 102"):
        TokenTransformerConfig(width=100, heads=6)
    with pytest.raises(ConfigError, match=r"nearest|did you mean"):
        preset("pointjepa-smal")
