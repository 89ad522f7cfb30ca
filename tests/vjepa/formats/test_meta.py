"""Meta's files, made here from written-out key names, for every member of the family."""

import dataclasses
import os

import numpy as np
import pytest
import torch

from tubelet.core.errors import CheckpointError, ConfigError
from tubelet.vjepa.encoder import TubeletEncoder
from tubelet.vjepa.family import FAMILY
from tubelet.vjepa.formats.keys import table, write
from tubelet.vjepa.formats.meta import predictor_of, read_meta, recognise, write_meta
from tubelet.vjepa.formats.meta_names import rule_of, table_key
from tubelet.vjepa.formats.meta_probes import read_meta_probe, write_meta_probe
from tubelet.vjepa.formats.parts import blank, position_table

W, P, PATCH = 48, 24, 4  # width, predictor's width, patch side of the miniatures


def miniature(name):
    """A published member with everything that makes it what it is, but tiny."""
    m = FAMILY[name]
    depth = 4 if m.encoder.levels else 2
    native = m.encoder.position.native
    position = dataclasses.replace(m.encoder.position, native=(native[0], 3, 3) if native else ())
    heads = 2 if m.encoder.position.kind == "rope" else 4
    encoder = dataclasses.replace(
        m.encoder,
        width=W,
        depth=depth,
        heads=heads,
        mlp_ratio=2.0,
        patch=PATCH,
        position=position,
        levels=(1, 2, 3, 4) if m.encoder.levels else (),
    )
    predictor = m.predictor and dataclasses.replace(
        m.predictor,
        width=P,
        depth=2,
        heads=2,
        mlp_ratio=2.0,
        position=position,
        target_width=W + 8 if m.predictor.target_width else 0,
    )
    actions = m.actions and dataclasses.replace(m.actions, width=P, depth=2, heads=2, mlp_ratio=2.0)
    return dataclasses.replace(
        m,
        name=f"tiny {name}",
        encoder=encoder,
        predictor=predictor,
        actions=actions,
        crop=3 * PATCH,
    )


def numbers(shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blocks(start, count, width, hidden):
    out = {}
    for i in range(count):
        out |= {
            f"{start}.{i}.norm1.weight": (width,),
            f"{start}.{i}.norm1.bias": (width,),
            f"{start}.{i}.attn.qkv.weight": (3 * width, width),
            f"{start}.{i}.attn.qkv.bias": (3 * width,),
            f"{start}.{i}.attn.proj.weight": (width, width),
            f"{start}.{i}.attn.proj.bias": (width,),
            f"{start}.{i}.norm2.weight": (width,),
            f"{start}.{i}.norm2.bias": (width,),
            f"{start}.{i}.mlp.fc1.weight": (hidden, width),
            f"{start}.{i}.mlp.fc1.bias": (hidden,),
            f"{start}.{i}.mlp.fc2.weight": (width, hidden),
            f"{start}.{i}.mlp.fc2.bias": (width,),
        }
    return out


def both(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def linear_norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def sincos(axis_sizes, order, width):
    """[1, N, width] float64 sin-cos table; ``order`` of the axes t, h, w among the channels."""
    places = dict(zip("thw", np.meshgrid(*map(np.arange, axis_sizes), indexing="ij"), strict=True))
    channels = 2 * -(-width // 6) if order == "thw" else width // 2
    parts = []
    for axis in order:
        frequency = 1 / 10000 ** (np.arange(channels // 2) / (channels / 2))
        angle = places[axis].reshape(-1, 1) * frequency
        parts += [np.sin(angle), np.cos(angle)]
    return torch.from_numpy(np.concatenate(parts, 1)[None, :, :width]).float()


def kind_of(name):
    return name.split("-")[0] if name != "vjepa2-ac-g" else "vjepa2-ac"


IJEPA = {
    "encoder": both("patch_embed.proj", W, 3, PATCH, PATCH)
    | blocks("blocks", 2, W, 2 * W)
    | linear_norm("norm", W),
    "predictor": both("predictor_embed", P, W)
    | {"mask_token": (1, 1, P)}
    | blocks("predictor_blocks", 2, P, 2 * P)
    | linear_norm("predictor_norm", P)
    | both("predictor_proj", W, P),
}
VIDEO = both("patch_embed.proj", W, 3, 2, PATCH, PATCH) | blocks("blocks", 2, W, 2 * W)
MASKED = (
    both("predictor_embed", P, W)
    | blocks("predictor_blocks", 2, P, 2 * P)
    | linear_norm("predictor_norm", P)
    | both("predictor_proj", W, P)
)
VJEPA2 = {
    "encoder": VIDEO | linear_norm("norm", W),
    "predictor": MASKED | {f"mask_tokens.{k}": (1, 1, P) for k in range(10)},
}
VJEPA1 = {
    "encoder": VIDEO | linear_norm("norm", W),
    "predictor": MASKED | {"mask_tokens.0": (1, 1, P), "mask_tokens.1": (1, 1, P)},
}
AC = {
    "encoder": VIDEO | linear_norm("norm", W),
    "predictor": MASKED
    | both("action_encoder", P, 7)
    | both("state_encoder", P, 7)
    | both("extrinsics_encoder", P, 6),
}
VJEPA21_ENCODER = (
    both("patch_embed.proj", W, 3, 2, PATCH, PATCH)
    | both("patch_embed_img.proj", W, 3, 1, PATCH, PATCH)
    | {"img_mod_embed": (1, 1, W), "video_mod_embed": (1, 1, W)}
    | blocks("blocks", 4, W, 2 * W)
    | linear_norm("norms_block.0", W)
    | linear_norm("norms_block.1", W)
    | linear_norm("norms_block.2", W)
    | linear_norm("norms_block.3", W)
)
VJEPA21_PREDICTOR = (
    {f"mask_tokens.{k}": (1, 1, P) for k in range(8)}
    | {"img_mod_embed": (1, 1, P), "video_mod_embed": (1, 1, P)}
    | blocks("predictor_blocks", 2, P, 2 * P)
    | linear_norm("predictor_norm", P)
)
DISTILLED = {
    "encoder": VJEPA21_ENCODER,
    "predictor": VJEPA21_PREDICTOR
    | both("predictor_embed", P, W)
    | both("predictor_proj", W + 8, P)
    | both("predictor_proj_context", W + 8, P),
}
FULL = {
    "encoder": VJEPA21_ENCODER,
    "predictor": VJEPA21_PREDICTOR
    | both("predictor_embed.0", W, 4 * W)
    | both("predictor_embed.2", P, W)
    | both("predictor_proj", 4 * W, P)
    | both("predictor_proj_context", 4 * W, P),
}
# Member -> (keys, prefix, name of the encoder that evaluations use, axes and grid of sin-cos).
LAYOUTS = {
    "ijepa-h14": (IJEPA, "module.", "target_encoder", ("wh", (1, 3, 3))),
    "ijepa-h16-448": (IJEPA, "module.", "target_encoder", ("wh", (1, 3, 3))),
    "ijepa-g16": (IJEPA, "module.", "target_encoder", ("wh", (1, 3, 3))),
    "vjepa-l16": (VJEPA1, "module.backbone.", "target_encoder", ("thw", (8, 3, 3))),
    "vjepa-h16": (VJEPA1, "module.backbone.", "target_encoder", ("thw", (8, 3, 3))),
    "vjepa-h16-384": (VJEPA1, "module.backbone.", "target_encoder", ("thw", (8, 3, 3))),
    "vjepa2-l": (VJEPA2, "module.backbone.", "target_encoder", None),
    "vjepa2-h": (VJEPA2, "module.backbone.", "target_encoder", None),
    "vjepa2-g": (VJEPA2, "module.backbone.", "target_encoder", None),
    "vjepa2-g-384": (VJEPA2, "module.backbone.", "target_encoder", None),
    "vjepa2-ac-g": (AC, "module.", "encoder", None),
    "vjepa2.1-b-384": (DISTILLED, "module.backbone.", "ema_encoder", None),
    "vjepa2.1-l-384": (DISTILLED, "module.backbone.", "ema_encoder", None),
    "vjepa2.1-g-384": (FULL, "module.backbone.", "target_encoder", None),
    "vjepa2.1-G-384": (FULL, "module.backbone.", "target_encoder", None),
}


def content(name, others=True):
    """What ``torch.save`` gets for a member: every encoder with its own numbers."""
    keys, prefix, which, table = LAYOUTS[name]
    out = {}
    for seed, part in enumerate(dict.fromkeys((which, "encoder", "predictor"))):
        shapes = keys["predictor" if part == "predictor" else "encoder"]
        tensors = {key: numbers(s, 100 * seed + i) for i, (key, s) in enumerate(shapes.items())}
        if table is not None:
            own = "predictor_pos_embed" if part == "predictor" else "pos_embed"
            tensors[own] = sincos(table[1], table[0], P if part == "predictor" else W)
        out[part] = {prefix + key: value for key, value in tensors.items()}
    if others:
        out |= {"opt": {"state": {}, "param_groups": []}, "scaler": None, "epoch": 3, "lr": 1e-3}
    return out


def saved(tmp_path, what, name="file.pt"):
    torch.save(what, tmp_path / name)
    return tmp_path / name


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_every_member_has_a_fixture():
    assert LAYOUTS.keys() == FAMILY.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_member_loads_strictly_and_goes_back_to_the_same_file(name, tmp_path):
    original = content(name)
    which = LAYOUTS[name][2]
    checkpoint, report = read_meta(saved(tmp_path, original), name=miniature(name))
    kept = [which, "predictor"]
    tables = 2 if LAYOUTS[name][3] else 0
    assert len(report.mapped) == sum(len(original[part]) for part in kept) - tables
    assert len(report.regenerated) == tables
    assert report.dropped.keys() == original.keys() - set(kept)

    write_meta(checkpoint, tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.keys() == set(kept)
    for part in kept:
        assert same(back[part], original[part])

    again, _ = read_meta(tmp_path / "back.pt", name=miniature(name))
    for part, module in checkpoint.parts().items():
        assert same(module.state_dict(), again.parts()[part].state_dict())


@pytest.mark.parametrize("name", ["ijepa-h14", "vjepa-l16", "vjepa2-l", "vjepa2.1-g-384"])
@torch.no_grad()
def test_what_is_read_runs(name, tmp_path):
    checkpoint, _ = read_meta(saved(tmp_path, content(name)), name=miniature(name))
    frames = 1 if name.startswith("ijepa") else 4
    video = torch.zeros(1, frames, 12, 12, 3, dtype=torch.uint8)
    tokens = checkpoint.encoder(video, all_levels=name.startswith("vjepa2.1"))
    assert torch.isfinite(tokens).all()
    grid = checkpoint.encoder.grid(video)
    ids = torch.arange(grid.size)[None]
    out = checkpoint.predictor(tokens[:, :4], ids[:, :4], ids[:, 4:], grid, 0)
    assert torch.isfinite(out).all()
    assert not checkpoint.encoder.training


def test_reading_draws_nothing_from_the_global_generator(tmp_path):
    path = saved(tmp_path, content("vjepa2-l"))
    before = torch.get_rng_state()
    read_meta(path, name=miniature("vjepa2-l"))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("which", ["target_encoder", "encoder"])
def test_the_encoder_that_was_asked_for_is_taken(which, tmp_path):
    original = content("vjepa2-l")
    path = saved(tmp_path, original)
    checkpoint, _ = read_meta(path, name=miniature("vjepa2-l"), which=which)
    assert checkpoint.provenance.which == which
    wanted = original[which]["module.backbone.norm.bias"]
    assert torch.equal(checkpoint.encoder.state_dict()["norm.bias"], wanted)


def test_an_absent_encoder_lists_what_is_there(tmp_path):
    path = saved(tmp_path, content("vjepa2-l"))
    with pytest.raises(CheckpointError, match=r"no 'ema_encoder'.*target_encoder \(dict\).*opt"):
        read_meta(path, name=miniature("vjepa2-l"), which="ema_encoder")
    with pytest.raises(ConfigError, match="one of target_encoder, encoder, ema_encoder"):
        read_meta(path, which="teacher")


def test_a_bare_state_dict_is_an_encoder(tmp_path):
    bare = {k.removeprefix("module."): v for k, v in content("vjepa2-l")["encoder"].items()}
    checkpoint, report = read_meta(saved(tmp_path, bare), name=miniature("vjepa2-l"))
    assert checkpoint.predictor is None
    assert "no predictor" in report.notes[0]
    assert checkpoint.provenance.prefix == "backbone."


def test_prefixes_are_taken_off_the_start_only(tmp_path):
    original = content("vjepa2-l")
    original["target_encoder"]["module.backbone.blocks.module.extra"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"1 unexpected: blocks\.module\.extra"):
        read_meta(saved(tmp_path, original), name=miniature("vjepa2-l"))
    original = content("vjepa2-l")
    original["target_encoder"]["norm.bias"] = torch.zeros(W)
    with pytest.raises(CheckpointError, match=r"norm\.bias twice"):
        read_meta(saved(tmp_path, original), name=miniature("vjepa2-l"))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("part", ["encoder", "predictor"])
def test_every_missing_key_is_named(name, part, tmp_path):
    keys, prefix, which, _ = LAYOUTS[name]
    original = content(name, others=False)
    sub = which if part == "encoder" else part
    lost = list(keys[part])[-1]
    del original[sub][prefix + lost]
    with pytest.raises(CheckpointError, match=f"1 missing: {lost}$"):
        read_meta(saved(tmp_path, original), name=miniature(name))


def test_wrong_keys_and_shapes_are_all_named(tmp_path):
    original = content("vjepa2-l")
    encoder = original["target_encoder"]
    encoder["module.backbone.norm.bais"] = encoder.pop("module.backbone.norm.bias")
    encoder["module.backbone.norm.weight"] = torch.zeros(W + 1)
    with pytest.raises(CheckpointError) as caught:
        read_meta(saved(tmp_path, original), name=miniature("vjepa2-l"))
    said = str(caught.value)
    assert "1 missing: norm.bias" in said
    assert "1 unexpected: norm.bais" in said
    assert f"norm.weight: [{W + 1}] in the file, [{W}] wanted" in said


def test_left_over_positions_of_rotary_models_are_dropped_and_named(tmp_path):
    original = content("vjepa2-l")
    original["target_encoder"]["module.backbone.pos_embed"] = torch.zeros(1, 9, W)
    _, report = read_meta(saved(tmp_path, original), name=miniature("vjepa2-l"))
    (key,) = [key for key in report.dropped if key.endswith("pos_embed")]
    assert report.dropped[key] == "positions are rotary"


@pytest.mark.parametrize("name", ["ijepa-h14", "vjepa-l16"])
def test_other_position_tables_are_refused(name, tmp_path):
    _, prefix, which, (_, grid) = LAYOUTS[name]
    original = content(name)
    other = "hw" if name == "ijepa-h14" else "wht"
    original[which][f"{prefix}pos_embed"] = (
        sincos(grid, other, W) if other == "hw" else -sincos(grid, "thw", W)
    )
    with pytest.raises(CheckpointError, match=r"pos_embed is not the .* they differ by up to"):
        read_meta(saved(tmp_path, original), name=miniature(name))


def test_half_precision_is_held_as_float32_and_said(tmp_path):
    original = content("vjepa2-l")
    for part in ("target_encoder", "predictor"):
        original[part] = {key: value.bfloat16() for key, value in original[part].items()}
    checkpoint, report = read_meta(saved(tmp_path, original), name=miniature("vjepa2-l"))
    bias = checkpoint.encoder.state_dict()["norm.bias"]
    assert bias.dtype == torch.float32
    assert torch.equal(bias, original["target_encoder"]["module.backbone.norm.bias"].float())
    assert "bfloat16" in report.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to(torch.int8), r"other type than floating: .*torch.int8 \(norm.bias"),
        (lambda t: t.half(), r"mixes types of weights: .*torch.float16 \(norm.bias"),
        (lambda t: t.to_sparse(), r"norm.bias is a torch.sparse_coo, not a dense tensor"),
        (lambda t: t.tolist(), r"norm.bias is a list, not a dense tensor"),
    ],
)
def test_other_types_of_weights_are_refused(change, message, tmp_path):
    original = content("vjepa2-l")
    encoder = original["target_encoder"]
    encoder["module.backbone.norm.bias"] = change(encoder["module.backbone.norm.bias"])
    with pytest.raises(CheckpointError, match=message):
        read_meta(saved(tmp_path, original), name=miniature("vjepa2-l"))


def test_an_architecture_of_no_member_is_described(tmp_path):
    path = saved(tmp_path, content("vjepa2-l"))
    with pytest.raises(CheckpointError, match="width 48, 2 blocks, patches 2 x 4 x 4"):
        read_meta(path)
    with pytest.raises(CheckpointError, match=r"does not fit this architecture.*mis-shaped"):
        read_meta(path, name="vjepa2-l")
    with pytest.raises(ConfigError, match="did you mean 'vjepa2-l'"):
        read_meta(path, name="vjepa2-1")


def shapes_of(module):
    """A module's weights under Meta's names, of the right shapes and without memory."""
    tensors = write(table(module, rule_of(module)), module.state_dict())
    positions = position_table(module)
    if positions is not None:
        tensors[table_key(module)] = positions[None]
    return tensors


@pytest.mark.parametrize("name", FAMILY)
def test_a_member_is_recognised_by_its_shapes_or_the_choice_is_listed(name):
    m = FAMILY[name]
    encoder = shapes_of(blank(lambda: TubeletEncoder(m.encoder)))
    predictor = shapes_of(blank(predictor_of(m)[1]))
    if name.startswith("vjepa2-g"):
        with pytest.raises(CheckpointError, match=r"several .*: vjepa2-g, vjepa2-g-384$"):
            recognise(encoder, predictor, "file")
        with pytest.raises(CheckpointError, match=r"several .*: vjepa2-g, .*, vjepa2-ac-g$"):
            recognise(encoder, None, "file")
    else:
        assert recognise(encoder, predictor, "file") == m


def test_what_meta_does_not_have_is_not_written(tmp_path):
    checkpoint, _ = read_meta(
        saved(tmp_path, content("vjepa2-ac-g")), name=miniature("vjepa2-ac-g")
    )
    checkpoint.actions.config = dataclasses.replace(checkpoint.actions.config, residual=True)
    with pytest.raises(CheckpointError, match="residual = True is none that Meta's format knows"):
        write_meta(checkpoint, tmp_path / "out.pt")
    assert os.listdir(tmp_path) == ["file.pt"]


def pooler(depth=2, proj=False, queries=1):
    start = "pooler.cross_attention_block"
    shapes = (
        {"pooler.query_tokens": (1, queries, W)}
        | linear_norm(f"{start}.norm1", W)
        | both(f"{start}.xattn.q", W, W)
        | both(f"{start}.xattn.kv", 2 * W, W)
        | (both(f"{start}.xattn.proj", W, W) if proj else {})
        | linear_norm(f"{start}.norm2", W)
        | both(f"{start}.mlp.fc1", 4 * W, W)
        | both(f"{start}.mlp.fc2", W, 4 * W)
    )
    return shapes | blocks("pooler.blocks", depth - 1, W, 4 * W)


PROBES = {
    "V-JEPA 2": pooler(4) | both("linear", 5, W),
    "V-JEPA 1": pooler(1, proj=True) | both("linear", 5, W),
    "anticipation": pooler(4, queries=3)
    | both("verb_classifier", 3, W)
    | both("noun_classifier", 4, W)
    | both("action_classifier", 5, W),
}


def probe(kind, seed=0):
    shapes = PROBES[kind].items()
    return {f"module.{key}": numbers(s, seed + i) for i, (key, s) in enumerate(shapes)}


@pytest.mark.parametrize("kind", PROBES)
def test_probes_load_strictly_and_go_back(kind, tmp_path):
    heads = [probe(kind, 1000 * i) for i in range(3)]
    path = saved(tmp_path, {"classifiers": heads, "opt": [], "epoch": 2})
    module, report = read_meta_probe(path, head=1)
    assert len(report.mapped) == len(heads[1])
    assert report.dropped.keys() == {"opt", "epoch", "classifiers"}
    assert module.config.heads == 16
    assert module.config.eps == 1e-5
    assert module.config.version == ("v1" if kind == "V-JEPA 1" else "v2")
    module(torch.zeros(2, 9, W))
    write_meta_probe(module, tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert same(back["classifiers"][0], heads[1])


def test_probe_files_that_are_wrong(tmp_path):
    two = {"classifiers": [probe("V-JEPA 2"), probe("V-JEPA 2", 7)]}
    with pytest.raises(CheckpointError, match="2 classifiers: choose head"):
        read_meta_probe(saved(tmp_path, two))
    with pytest.raises(CheckpointError, match="no head = 2"):
        read_meta_probe(saved(tmp_path, two), head=2)
    with pytest.raises(CheckpointError, match="no 'classifiers'; it has encoder, predictor"):
        read_meta_probe(saved(tmp_path, content("vjepa2-ac-g")))
    lost = probe("V-JEPA 2")
    del lost["module.pooler.blocks.1.norm1.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: pooler.blocks.1.norm1.bias$"):
        read_meta_probe(saved(tmp_path, {"classifiers": [lost]}))
    foreign = saved(tmp_path, {"classifiers": [{"module.linear.weight": torch.ones(1)}]})
    with pytest.raises(CheckpointError, match=r"no attentive probe: 'pooler\.query_tokens'"):
        read_meta_probe(foreign)
