"""The action-conditioned predictor: causality, cached rollouts, residual start."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError
from tubelet.vjepa.action_predictor import ActionPredictor, ActionPredictorConfig, vjepa2_ac
from tubelet.vjepa.causal import block_causal_mask, unroll_state
from tubelet.vjepa.positions import PositionConfig, Rotation

D, A = 10, 3
CONDITIONINGS = pytest.mark.parametrize("conditioning", ["adaln", "tokens", "concat"])
GRIDS = pytest.mark.parametrize("grid", [(1, 1), (4, 4), (2, 3)])


def make(conditioning="adaln", grid=(1, 1), residual=True, trained=True, **more):
    config = ActionPredictorConfig(
        width=24, depth=2, heads=2, conditioning=conditioning, residual=residual, **more
    )
    return build(config, grid, trained)


def build(config, grid=(1, 1), trained=True):
    torch.manual_seed(0)
    predictor = ActionPredictor(config, latent_dim=D, action_dim=A, grid=grid).eval()
    if trained:
        with torch.no_grad():
            for parameter in predictor.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return predictor


def inputs(predictor, batch=2, steps=4):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, steps, predictor.tokens, D, generator=generator)
    return latents, torch.rand(batch, steps, A, generator=generator)


@CONDITIONINGS
@GRIDS
@torch.no_grad()
def test_a_change_is_felt_from_its_own_step_on_and_never_before(conditioning, grid):
    predictor = make(conditioning, grid)
    latents, actions = inputs(predictor)
    out = predictor(latents, actions)
    for t in range(4):
        for changed in ("action", "latent"):
            z, a = latents.clone(), actions.clone()
            if changed == "action":
                a[:, t] += 1
            else:
                z[:, t] += 1
            other = predictor(z, a)
            assert torch.allclose(other[:, :t], out[:, :t], atol=1e-6)
            for later in range(t, 4):
                assert (other[:, later] - out[:, later]).abs().max() > 1e-4, (changed, t, later)


@CONDITIONINGS
@GRIDS
@pytest.mark.parametrize("context", [1, 3])
@torch.no_grad()
def test_cached_rollout_is_the_uncached_one(conditioning, grid, context):
    predictor = make(conditioning, grid)
    latents, actions = inputs(predictor, steps=8)
    args = latents[:, :context], actions
    cached = predictor.rollout(*args)
    assert cached.shape == (2, 8 - context + 1, predictor.tokens, D)
    assert torch.allclose(cached, predictor.rollout(*args, use_cache=False), atol=1e-5)


@CONDITIONINGS
@GRIDS
@torch.no_grad()
def test_rollout_by_hand(conditioning, grid):
    """Feed every prediction back as the next latent, through the public forward alone."""
    predictor = make(conditioning, grid)
    latents, actions = inputs(predictor, steps=5)
    steps = latents[:, :2]
    while steps.shape[1] < 6:
        nxt = predictor(steps, actions[:, : steps.shape[1]])[:, -1:]
        steps = torch.cat([steps, nxt], dim=1)
    assert torch.allclose(predictor.rollout(latents[:, :2], actions), steps[:, 2:], atol=1e-5)


@CONDITIONINGS
@pytest.mark.parametrize("context", [1, 3])
@torch.no_grad()
def test_candidates_roll_out_as_if_alone(conditioning, context):
    predictor = make(conditioning, (2, 2))
    latents, past = inputs(predictor, batch=2, steps=context)
    past = past[:, : context - 1]
    candidates = torch.rand(2, 5, 4, A)
    got = predictor.rollout_candidates(latents, past, candidates)
    assert got.shape == (2, 5, 4, 4, D)
    for b in range(2):
        for s in range(5):
            actions = torch.cat([past[b], candidates[b, s]])[None]
            alone = predictor.rollout(latents[b : b + 1], actions)[0]
            assert torch.allclose(got[b, s], alone, atol=1e-5)


@CONDITIONINGS
@torch.no_grad()
def test_extending_in_pieces_is_extending_at_once(conditioning):
    predictor = make(conditioning, (2, 2))
    latents, actions = inputs(predictor, steps=5)
    first, cache = predictor.extend(latents[:, :2], actions[:, :2], None)
    second, _ = predictor.extend(latents[:, 2:], actions[:, 2:], cache)
    assert torch.allclose(torch.cat([first, second], dim=1), predictor(latents, actions), atol=1e-5)


@CONDITIONINGS
@torch.no_grad()
def test_a_residual_predictor_starts_by_copying(conditioning):
    predictor = make(conditioning, (2, 2), trained=False)
    latents, actions = inputs(predictor)
    assert torch.equal(predictor(latents, actions), latents)
    plain = make(conditioning, (2, 2), residual=False, trained=False)
    assert not torch.allclose(plain(latents, actions), latents, atol=1e-2)


@CONDITIONINGS
def test_the_action_is_felt_after_one_step_of_training(conditioning):
    predictor = make(conditioning, (2, 2), trained=False)
    latents, actions = inputs(predictor)
    optimizer = torch.optim.SGD(predictor.parameters(), lr=1.0)
    (predictor(latents, actions) - 1).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        gap = predictor(latents, actions) - predictor(latents, -actions)
    assert gap.abs().max() > 1e-6


@CONDITIONINGS
@torch.no_grad()
def test_the_order_of_the_past_matters(conditioning):
    predictor = make(conditioning)
    latents, actions = inputs(predictor, steps=3)
    order = [1, 0, 2]
    out, other = predictor(latents, actions), predictor(latents[:, order], actions[:, order])
    assert (out[:, 2] - other[:, 2]).abs().max() > 1e-5


def test_block_causal_mask_by_definition():
    mask = block_causal_mask(2, 3, 2, torch.device("cpu"))
    assert mask.shape == (6, 10)
    for q in range(6):
        for k in range(10):
            assert mask[q, k] == (k // 2 <= 2 + q // 2)


def test_gradients_flow_through_a_rollout_to_every_parameter():
    predictor = make("adaln", (2, 2))
    latents, actions = inputs(predictor)
    predictor.rollout(latents[:, :1], actions).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in predictor.parameters())


@pytest.mark.parametrize(
    ("latents", "actions"),
    [((2, 4, 3, D), (2, 4, A)), ((2, 4, 4, D), (2, 3, A)), ((2, 4, 4, D), (2, 4, A + 1))],
)
def test_shapes_that_do_not_fit(latents, actions):
    with pytest.raises(ConfigError, match="do not fit a predictor of 4 tokens"):
        make(grid=(2, 2))(torch.zeros(latents), torch.zeros(actions))


def test_too_few_actions_for_the_context():
    predictor = make()
    with pytest.raises(ConfigError, match="2 actions for a context of 3 steps"):
        predictor.rollout(torch.zeros(1, 3, 1, D), torch.zeros(1, 2, A))


@pytest.mark.parametrize("bad", [{"heads": 5}, {"depth": 0}, {"heads": 0}, {"width": 8}])
def test_impossible_configs(bad):
    with pytest.raises(ConfigError):
        ActionPredictorConfig(**{"width": 24, "heads": 4, **bad})


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"state_dim": -1}, "state_dim"),
        ({"use_extrinsics": True}, "extrinsics_dim"),
        ({"position": PositionConfig(kind="sincos")}, "rope"),
        ({"native": 16, "position": PositionConfig(span=16)}, "set one of them to 0"),
    ],
)
def test_impossible_conditions(bad, said):
    with pytest.raises(ConfigError, match=said):
        ActionPredictorConfig(**bad)


# --- V-JEPA 2-AC ---------------------------------------------------------------------------------
# Heads of 14 channels: four for each axis, so that the two rotary flavours differ, and two at rest.

P, E = 2, 4
AC = {
    "width": 28,
    "depth": 2,
    "heads": 2,
    "conditioning": "tokens",
    "action_encoder": "linear",
    "state_dim": P,
    "extrinsics_dim": E,
    "position": PositionConfig(pairs="tiled"),
    "place": False,
    "residual": False,
    "normalise": True,
}
AC_KINDS = pytest.mark.parametrize("extrinsics", [False, True])
AC_GRIDS = pytest.mark.parametrize("grid", [(2, 2), (1, 3)])


def make_ac(grid=(2, 2), *, extrinsics=False, **changes):
    return build(ActionPredictorConfig(**{**AC, "use_extrinsics": extrinsics, **changes}), grid)


def ac_inputs(predictor, batch=2, steps=3):
    """Latents, actions, states, and extrinsics (or None), of ``steps`` steps."""
    generator = torch.Generator().manual_seed(2)
    shapes = [(predictor.tokens, D), (A,), (P,), (E,)]
    z, a, s, e = (torch.randn(batch, steps, *shape, generator=generator) for shape in shapes)
    return z, a, s, (e if predictor.config.use_extrinsics else None)


def drift(state, action):
    return 0.9 * state + action[..., :P]


def test_size_and_layers_of_the_published_model():
    with torch.device("meta"):
        model = ActionPredictor(vjepa2_ac(), latent_dim=1408, action_dim=7, grid=(16, 16))
    assert sum(p.numel() for p in model.parameters()) == 305_220_992  # 305.2 M
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    outside = {k: v for k, v in shapes.items() if not k.startswith("blocks.")}
    assert {k: v for k, v in outside.items() if k.endswith("weight")} == {
        "embed.weight": (1024, 1408),
        "act.weight": (1024, 7),
        "state.weight": (1024, 7),
        "extrinsics.weight": (1024, 6),
        "norm.weight": (1024,),
        "head.weight": (1408, 1024),
    }
    assert len(outside) == 12  # a bias each
    assert len(shapes) - len(outside) == 24 * 12
    assert model.config.extra_tokens == 2


def test_the_published_config_survives_its_file():
    config = vjepa2_ac()
    assert from_toml(ActionPredictorConfig, to_toml(config)) == config


def layer_norm(x, weight=None, bias=None, eps=1e-5):
    y = (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + eps)
    return y if weight is None else y * weight + bias


def turned(x, position, *, tiled, axis):
    """One head's vector, turned for a position (t, row, column), of which None stays at rest."""
    y = x.copy()
    for number, p in enumerate(position):
        for i in range(0, axis if p is not None else 0, 2):
            first = number * axis + i
            powers = [j % (axis // 2) if tiled else j // 2 for j in (i, i + 1)]
            a, b = (p * 10000.0 ** (-power / (axis / 2)) for power in powers)
            y[first] = x[first] * math.cos(a) - x[first + 1] * math.sin(a)
            y[first + 1] = x[first + 1] * math.cos(b) + x[first] * math.sin(b)
    return y


def naive_ac(predictor, z, a, s, e):
    """V-JEPA 2-AC for one sample, token by token in float64, from its description."""
    c, (rows, columns) = predictor.config, predictor.grid
    w = {k: v.double().numpy() for k, v in predictor.state_dict().items()}

    def linear(name, x):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def norm(name, x):
        return layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    scale = [c.native / n if c.native else 1.0 for n in (rows, columns)]
    xs, steps, places = [], [], []
    for t in range(len(z)):
        told = {"act": a[t], "state": s[t], **({} if e is None else {"extrinsics": e[t]})}
        for name, value in told.items():
            xs.append(linear(name, value))
            places.append((t, None, None))
        for n in range(rows * columns):
            xs.append(linear("embed", z[t, n]))
            places.append((t, n // columns * scale[0], n % columns * scale[1]))
        steps += [t] * (len(xs) - len(steps))
    head = c.width // c.heads
    axis = 2 * ((head // 3) // 2)
    tiled = c.position.pairs == "tiled"
    for i in range(c.depth):
        name = f"blocks.{i}"
        qkv = [linear(f"{name}.attn.qkv", norm(f"{name}.norm1", x)) for x in xs]
        seen = [[] for _ in xs]
        for h in range(c.heads):
            q, k, v = ([y[part * c.width + h * head :][:head] for y in qkv] for part in range(3))
            q, k = (
                [turned(y, p, tiled=tiled, axis=axis) for y, p in zip(ys, places, strict=True)]
                for ys in (q, k)
            )
            for m in range(len(xs)):
                scores = np.array(
                    [
                        q[m] @ k[j] / math.sqrt(head) if steps[j] <= steps[m] else -math.inf
                        for j in range(len(xs))
                    ]
                )
                weights = np.exp(scores - scores.max())
                seen[m].append(sum(p * y for p, y in zip(weights / weights.sum(), v, strict=True)))
        for m in range(len(xs)):
            xs[m] = xs[m] + linear(f"{name}.attn.proj", np.concatenate(seen[m]))
            y = linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", xs[m]))
            y = np.array([u / 2 * (1 + math.erf(u / math.sqrt(2))) for u in y])
            xs[m] = xs[m] + linear(f"{name}.mlp.fc2", y)
    out = [
        linear("head", norm("norm", x))
        for x, place in zip(xs, places, strict=True)
        if place[1] is not None
    ]
    return np.stack([layer_norm(y) for y in out]).reshape(z.shape)


@AC_KINDS
@pytest.mark.parametrize(
    ("grid", "native", "pairs"),
    [
        ((2, 2), 0, "tiled"),
        ((2, 2), 0, "interleaved"),
        ((2, 3), 16, "tiled"),
        ((1, 1), 0, "tiled"),
    ],
)
@torch.no_grad()
def test_the_model_by_its_description_in_float64(extrinsics, grid, native, pairs):
    predictor = make_ac(
        grid, extrinsics=extrinsics, native=native, position=PositionConfig(pairs=pairs)
    )
    inputs = ac_inputs(predictor)
    got = predictor(*inputs)
    for b in range(2):
        one = [None if x is None else x[b].double().numpy() for x in inputs]
        np.testing.assert_allclose(got[b].numpy(), naive_ac(predictor, *one), atol=1e-5)
    other = "interleaved" if pairs == "tiled" else "tiled"
    position = PositionConfig(pairs=other)
    flavour = make_ac(grid, extrinsics=extrinsics, native=native, position=position)
    assert (flavour(*inputs) - got).abs().max() > 1e-3  # else this would not tell them apart


@AC_KINDS
@AC_GRIDS
@torch.no_grad()
def test_a_prefix_gives_the_prefix(extrinsics, grid):
    predictor = make_ac(grid, extrinsics=extrinsics)
    inputs = ac_inputs(predictor, steps=4)
    whole = predictor(*inputs)
    for t in range(1, 4):
        part = predictor(*(None if x is None else x[:, :t] for x in inputs))
        assert torch.allclose(part, whole[:, :t], atol=1e-5)


@AC_KINDS
def test_the_jacobian_is_block_triangular_in_time(extrinsics):
    """Output t answers to every input of steps 0..t, and to none of a later one."""
    predictor = make_ac(extrinsics=extrinsics)
    inputs = tuple(x for x in ac_inputs(predictor, batch=1) if x is not None)
    jacobians = torch.autograd.functional.jacobian(lambda *x: predictor(*x), inputs)
    for jacobian, x in zip(jacobians, inputs, strict=True):
        size = torch.zeros(3, 3)
        for out in range(3):
            for given in range(3):
                size[out, given] = jacobian[0, out, :, :, 0, given].abs().max()
        assert torch.equal(size.triu(1), torch.zeros(3, 3)), x.shape
        assert (size[torch.tril(torch.ones(3, 3, dtype=torch.bool))] > 1e-5).all(), x.shape


@AC_KINDS
@AC_GRIDS
@pytest.mark.parametrize("context", [1, 3])
@torch.no_grad()
def test_cached_rollouts_with_states(extrinsics, grid, context):
    """Cached, uncached, and by hand with the states advanced one at a time, are one rollout."""
    predictor = make_ac(grid, extrinsics=extrinsics)
    z, a, s, e = ac_inputs(predictor, steps=6)
    z, s = z[:, :context], s[:, :context]
    e = None if e is None else e[:, :context]
    more = {"state": s, "extrinsics": e, "advance": drift}
    cached = predictor.rollout(z, a, **more)
    assert cached.shape == (2, 7 - context, predictor.tokens, D)
    assert torch.allclose(cached, predictor.rollout(z, a, **more, use_cache=False), atol=1e-5)
    for t in range(context, 7):
        z = torch.cat([z, predictor(z, a[:, :t], s, e)[:, -1:]], dim=1)
        s = torch.cat([s, drift(s[:, -1:], a[:, t - 1 : t])], dim=1)
        e = None if e is None else torch.cat([e, e[:, -1:]], dim=1)
    assert torch.allclose(cached, z[:, context:], atol=1e-5)
    known = predictor.rollout(
        z[:, :context], a, state=s[:, :6], extrinsics=e if e is None else e[:, :6]
    )
    assert torch.allclose(cached, known, atol=1e-5)


@AC_KINDS
@pytest.mark.parametrize("context", [1, 3])
@torch.no_grad()
def test_candidates_with_states_roll_out_as_if_alone(extrinsics, context):
    predictor = make_ac(extrinsics=extrinsics)
    z, a, s, e = ac_inputs(predictor, steps=context)
    past, candidates = a[:, : context - 1], torch.randn(2, 5, 3, A)
    more = {"state": s, "extrinsics": e, "advance": drift}
    got = predictor.rollout_candidates(z, past, candidates, **more)
    assert got.shape == (2, 5, 3, predictor.tokens, D)
    in_parts = predictor.rollout_candidates(z, past, candidates, **more, at_once=2)
    assert torch.allclose(got, in_parts, atol=1e-5)
    for b in range(2):
        one = {k: v[b : b + 1] if isinstance(v, torch.Tensor) else v for k, v in more.items()}
        for n in range(5):
            actions = torch.cat([past[b], candidates[b, n]])[None]
            alone = predictor.rollout(z[b : b + 1], actions, **one)[0]
            assert torch.allclose(got[b, n], alone, atol=1e-5)


@torch.no_grad()
def test_predictions_are_layer_normed_where_latents_are():
    predictor = make_ac()
    out = predictor(*ac_inputs(predictor))
    assert torch.allclose(out.mean(-1), torch.zeros(()), atol=1e-5)
    assert torch.allclose(out.std(-1, correction=0), torch.ones(()), atol=1e-3)
    raw = make_ac(normalise=False)(*ac_inputs(predictor))
    assert torch.allclose(F.layer_norm(raw, (D,)), out, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("conditioning", ["tokens", "adaln", "concat"])
@torch.no_grad()
def test_a_module_cast_to_half_precision_works(dtype, conditioning):
    predictor = make_ac(conditioning=conditioning)
    z, a, s, _ = ac_inputs(predictor)
    exact = predictor.rollout(z[:, :1], a, state=s)
    half = predictor.to(dtype).rollout(z[:, :1], a, state=s)
    assert half.dtype == dtype
    assert (half.float() - exact).abs().max() < (0.2 if dtype == torch.bfloat16 else 0.03)


@torch.no_grad()
def test_state_and_extrinsics_condition_every_way():
    for conditioning in ("adaln", "concat", "tokens"):
        predictor = make_ac(extrinsics=True, conditioning=conditioning)
        z, a, s, e = ac_inputs(predictor)
        out = predictor(z, a, s, e)
        for changed in ((s + 1, e), (s, e + 1)):
            assert (predictor(z, a, *changed) - out).abs().max() > 1e-4


@torch.no_grad()
def test_extra_tokens_turn_with_time_alone():
    predictor = make_ac((2, 3), native=16)
    rotation = predictor._rotation(1, 2, torch.device("cpu"))
    assert isinstance(rotation, Rotation)
    cos = rotation.cos.reshape(2, 8, 14)
    for step, table in zip((1, 2), cos, strict=True):
        angles = [step, step / 100, step, step / 100]
        for extra in table[:2]:
            np.testing.assert_allclose(extra[:4], np.cos(angles), atol=1e-6)
            assert torch.equal(extra[4:], torch.ones(10))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, r"state of shape \[2, 3, 0\]: this predictor wants \[2, 3, 2\]"),
        ({"state": torch.zeros(2, 3, 5)}, r"state of shape \[2, 3, 5\]"),
        (
            {"state": torch.zeros(2, 3, P), "extrinsics": torch.zeros(2, 3, E)},
            r"extrinsics of shape \[2, 3, 4\]: this predictor wants \[2, 3, 0\] \(none\)",
        ),
    ],
)
def test_states_that_are_missing_or_not_wanted(given, said):
    predictor = make_ac()
    z, a, _, _ = ac_inputs(predictor)
    with pytest.raises(ConfigError, match=said):
        predictor(z, a, **given)


def test_states_without_a_way_to_advance_them():
    predictor = make_ac()
    z, a, s, _ = ac_inputs(predictor)
    with pytest.raises(ConfigError, match="1 states for 3 steps"):
        predictor.rollout(z[:, :1], a, state=s[:, :1])
    with pytest.raises(ConfigError, match="3 states for 2 steps"):
        unroll_state(s, a, drift, 2)


def test_the_published_initialisation():
    config = ActionPredictorConfig(**{**AC, "width": 168, "heads": 4})
    predictor = build(config, trained=False)
    for layer in (predictor.embed, predictor.head):
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert float(layer.bias.detach().abs().max()) == 0
    for i, block in enumerate(predictor.blocks, start=1):
        assert float(block.attn.qkv.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        for layer in (block.attn.proj, block.mlp.fc2):
            expected = 0.02 / math.sqrt(2 * i)
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.05)
