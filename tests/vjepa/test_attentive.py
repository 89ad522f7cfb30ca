"""Attentive probes against transformers' pooler and a naive float64 definition."""

import pytest
import torch

from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError
from tubelet.vjepa.attentive import AnticipationProbe, AttentiveConfig, AttentiveProbe

SMALL = {"width": 24, "heads": 4, "classes": (5,)}


def make(cls=AttentiveProbe, **changes):
    torch.manual_seed(0)
    probe = cls(AttentiveConfig(**{**SMALL, **changes}))
    with torch.no_grad():  # far from the small initial weights, so that attention matters
        for parameter in probe.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return probe.eval()


def features(*shape, scale=1.0, seed=1):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- transformers ----------------------------------------------------------------------------


def hugging_face(heads=4):
    transformers = pytest.importorskip("transformers")
    config = transformers.VJEPA2Config(
        hidden_size=24,
        num_attention_heads=heads,
        num_hidden_layers=1,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        crop_size=32,
        num_pooler_layers=3,
        num_labels=5,
    )
    torch.manual_seed(0)
    model = transformers.VJEPA2ForVideoClassification(config).eval()
    with torch.no_grad():
        for parameter in [*model.pooler.parameters(), *model.classifier.parameters()]:
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


RENAMES = {
    "cross_attention_layer": "cross_attention_block",
    "self_attention_layers": "blocks",
    "layer_norm": "norm",
    "self_attn.out_proj": "attn.proj",
}


def published_names(model):
    """The pooler and classifier of a Hugging Face model under the published names."""
    out = {}
    for key, value in model.pooler.state_dict().items():
        for old, new in RENAMES.items():
            key = key.replace(old, new)
        out[f"pooler.{key}"] = value
    for ending in ("weight", "bias"):
        stem = "pooler.cross_attention_block"
        q, k, v = (out.pop(f"{stem}.cross_attn.{n}_proj.{ending}") for n in "qkv")
        out[f"{stem}.xattn.q.{ending}"] = q
        out[f"{stem}.xattn.kv.{ending}"] = torch.cat([k, v])
        for i in range(len(model.pooler.self_attention_layers)):
            qkv = [out.pop(f"pooler.blocks.{i}.self_attn.{n}_proj.{ending}") for n in "qkv"]
            out[f"pooler.blocks.{i}.attn.qkv.{ending}"] = torch.cat(qkv)
        out[f"linear.{ending}"] = getattr(model.classifier, ending)
    return out


def ours(model, **changes):
    probe = AttentiveProbe(AttentiveConfig(**{**SMALL, "eps": 1e-6, **changes}))
    probe.load_state_dict(published_names(model))
    return probe.eval()


@pytest.mark.parametrize("tokens", [8, 100])
def test_logits_are_those_of_transformers_to_the_bit(tokens):
    model = hugging_face()
    x = features(3, tokens, 24)
    with torch.no_grad():
        assert torch.equal(ours(model)(x), model.classifier(model.pooler(x)))


def test_the_port_differs_from_the_published_probe_in_eps():
    model, x = hugging_face(), features(3, 50, 24, scale=0.1)
    with torch.no_grad():
        theirs = model.classifier(model.pooler(x))
        gap = (ours(model, eps=1e-5)(x) - theirs).abs().max()
        assert gap > 1e-5  # small, but no rounding error: with their eps it is 0
        assert gap < 1e-2
        assert torch.equal(ours(model, eps=1e-6)(x), theirs)


def test_the_port_differs_from_the_published_probe_in_heads():
    """Like ViT-g, whose encoder has 22 heads and whose probe has 16: same shapes, other logits."""
    model, x = hugging_face(heads=6), features(3, 50, 24)
    with torch.no_grad():
        theirs = model.classifier(model.pooler(x))
        assert torch.equal(ours(model, heads=6)(x), theirs)
        assert (ours(model, heads=4)(x) - theirs).abs().max() > 0.01


# --- definitions -----------------------------------------------------------------------------


def norm(x, weights, name, eps):
    scaled = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + eps).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def mlp(x, weights, name):
    hidden = linear(x, weights, f"{name}.fc1")
    return linear(hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5)), weights, f"{name}.fc2")


def attention(q, k, v, heads):
    """One sample: q ``[Q, D]``, k and v ``[N, D]``, one head after the other."""
    width = q.shape[-1] // heads
    parts = []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        weight = torch.softmax(q[:, part] @ k[:, part].T / width**0.5, -1)
        parts.append(weight @ v[:, part])
    return torch.cat(parts, -1)


def naive_pooled(probe, x):
    """The pooled queries ``[Q, D]`` of one sample ``[N, D]``, in float64 from the definition."""
    c = probe.config
    weights = {name: value.double() for name, value in probe.pooler.state_dict().items()}

    def self_attention(x):
        for i in range(c.depth - 1):
            q, k, v = linear(
                norm(x, weights, f"blocks.{i}.norm1", c.eps), weights, f"blocks.{i}.attn.qkv"
            ).chunk(3, -1)
            x = x + linear(attention(q, k, v, c.heads), weights, f"blocks.{i}.attn.proj")
            x = x + mlp(norm(x, weights, f"blocks.{i}.norm2", c.eps), weights, f"blocks.{i}.mlp")
        return x

    x = x.double()
    tokens = self_attention(x) if c.version == "v2" else x
    name = "cross_attention_block"
    query = weights["query_tokens"][0]
    k, v = linear(norm(tokens, weights, f"{name}.norm1", c.eps), weights, f"{name}.xattn.kv").chunk(
        2, -1
    )
    x = query + attention(linear(query, weights, f"{name}.xattn.q"), k, v, c.heads)
    x = x + mlp(norm(x, weights, f"{name}.norm2", c.eps), weights, f"{name}.mlp")
    return x if c.version == "v2" else self_attention(x)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("depth", [1, 4])
def test_logits_follow_the_definition(version, depth):
    probe, x = make(version=version, depth=depth), features(3, 10, 24)
    weights = {name: value.double() for name, value in probe.state_dict().items()}
    with torch.no_grad():
        got = probe(x)
        wanted = torch.stack([linear(naive_pooled(probe, one), weights, "linear")[0] for one in x])
        assert torch.allclose(probe.double()(x.double()), wanted, atol=1e-11)
    assert torch.allclose(got.double(), wanted, atol=2e-4)


def test_anticipation_classifies_one_query_each():
    probe = make(AnticipationProbe, classes=(5, 7, 9))
    x = features(2, 10, 24)
    weights = {name: value.double() for name, value in probe.state_dict().items()}
    with torch.no_grad():
        got = probe.double()(x.double())
        pooled = torch.stack([naive_pooled(probe, one) for one in x])
    assert {name: logits.shape for name, logits in got.items()} == {
        "verb": (2, 5),
        "noun": (2, 7),
        "action": (2, 9),
    }
    for query, name in enumerate(("verb", "noun", "action")):
        wanted = linear(pooled[:, query], weights, f"{name}_classifier")
        assert torch.allclose(got[name], wanted, atol=1e-11)


def test_the_probe_does_not_see_the_order_of_tokens():
    probe, x = make(), features(2, 10, 24)
    with torch.no_grad():
        assert torch.allclose(probe(x), probe(x.flip(1)), atol=1e-4)


# --- names, sizes, learning ------------------------------------------------------------------


def test_parameters_have_the_published_names():
    names = set(make().state_dict())
    block = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    cross = ["norm1", "xattn.q", "xattn.kv", "norm2", "mlp.fc1", "mlp.fc2"]
    modules = [f"pooler.blocks.{i}.{name}" for i in range(3) for name in block]
    modules += [f"pooler.cross_attention_block.{name}" for name in cross] + ["linear"]
    wanted = {f"{module}.{end}" for module in modules for end in ("weight", "bias")}
    assert names == wanted | {"pooler.query_tokens"}


def test_v1_files_hold_a_projection_that_nothing_uses():
    probe, x = make(version="v1", depth=1), features(2, 6, 24)
    before = probe(x)
    with torch.no_grad():
        probe.pooler.cross_attention_block.xattn.proj.weight.add_(1)
    assert torch.equal(probe(x), before)
    assert "pooler.cross_attention_block.xattn.proj.weight" in probe.state_dict()


@pytest.mark.parametrize(("width", "millions"), [(1024, 49.5), (1408, 93.5)])
def test_the_published_sizes(width, millions):
    with torch.device("meta"):
        probe = AttentiveProbe(AttentiveConfig(width=width, classes=(174,)))
    count = sum(parameter.numel() for parameter in probe.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.3)


@pytest.mark.parametrize(
    ("cls", "classes"), [(AttentiveProbe, (5,)), (AnticipationProbe, (5, 6, 7))]
)
def test_every_parameter_learns(cls, classes):
    probe = make(cls, classes=classes)
    out = probe(features(2, 6, 24))
    logits = list(out.values()) if isinstance(out, dict) else [out]
    sum(x.square().sum() for x in logits).backward()
    for name, parameter in probe.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_the_config_survives_a_file():
    config = AttentiveConfig(version="v1", depth=1, classes=(97, 300, 3806), heads=8)
    assert from_toml(AttentiveConfig, to_toml(config)) == config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heads": 5}, "heads = 5: must be 1 or more and divide width = 24"),
        ({"heads": 0}, "heads = 0"),
        ({"depth": 0}, "depth = 0: must be 1 or more"),
        ({"classes": ()}, "classes = \\(\\)"),
        ({"classes": (5, 6)}, "use AnticipationProbe"),
        ({"eps": 0.0}, "eps = 0.0"),
        ({"mlp_ratio": 0.0}, "mlp_ratio = 0.0"),
        ({"version": "v3"}, "choose v1 or v2"),
    ],
)
def test_impossible_configs_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        make(**changes)


def test_other_inputs_are_refused():
    with pytest.raises(ConfigError, match=r"tokens must be \[B, N, 24\], got \[2, 6, 25\]"):
        make()(torch.zeros(2, 6, 25))
    with pytest.raises(ConfigError, match="three numbers"):
        make(AnticipationProbe)
