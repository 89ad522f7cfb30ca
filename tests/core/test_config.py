"""Configs survive the trip to TOML and back, and every mistake is named at once."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.core.config import from_table, from_toml, load_config, save_config, to_toml
from tubelet.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Mask:
    kind: Literal["short", "long", 3] = "short"
    aspect: tuple[float, float] = (0.75, 1.5)


@dataclass(frozen=True, kw_only=True)
class Model:
    depth: int = 12
    width: int = 384
    drop: float = 0.0
    masks: tuple[Mask, ...] = (Mask(),)

    def __post_init__(self):
        if self.width % 4:
            raise ConfigError(
                f"width = {self.width} must divide by 4; nearest: {self.width // 4 * 4}"
            )


@dataclass(frozen=True, kw_only=True)
class Train:
    name: str = "run"
    note: str | None = None
    out: Path = Path("runs/x")
    fps: float | None = 4.0
    frame_step: int | None = None
    bf16: bool = False
    sizes: tuple[int, ...] = (64,)
    backend: Literal["auto", "pyav"] | int = "auto"
    model: Model = field(default_factory=lambda: Model(depth=2))
    probe: Model | None = None


@dataclass(frozen=True, kw_only=True)
class Needs:
    source: Path


reals = st.floats(allow_nan=False)
masks = st.builds(Mask, kind=st.sampled_from(["short", "long", 3]), aspect=st.tuples(reals, reals))
models = st.builds(
    Model,
    depth=st.integers(),
    width=st.integers(1, 400).map(lambda n: 4 * n),
    drop=reals,
    masks=st.lists(masks, max_size=2).map(tuple),
)
trains = st.builds(
    Train,
    name=st.text(),
    note=st.none() | st.text().filter(lambda s: s != "none"),
    out=st.text(st.characters(codec="utf-8"), min_size=1).map(Path),
    fps=st.none() | reals,
    frame_step=st.none() | st.integers(),
    bf16=st.booleans(),
    sizes=st.lists(st.integers(), max_size=3).map(tuple),
    backend=st.sampled_from(["auto", "pyav"]) | st.integers(),
    model=models,
    probe=st.none() | models,
)


@given(trains)
def test_round_trip(config):
    assert from_toml(Train, to_toml(config)) == config


def test_round_trip_through_a_file(tmp_path):
    config = Train(name='a\n"b" \\ ü \x7f', fps=None, probe=Model(drop=math.inf))
    save_config(config, tmp_path / "new" / "config.toml")
    assert load_config(Train, tmp_path / "new" / "config.toml") == config


def test_missing_keys_take_the_default_of_the_default_instance():
    assert from_toml(Train, "[model]\nwidth = 8").model == Model(depth=2, width=8)
    assert from_toml(Train, "") == Train()


def test_values_have_their_declared_types():
    config = from_toml(Train, 'fps = 3\nout = "a/b"\nsizes = [1, 2]')
    assert (config.fps, type(config.fps)) == (3.0, float)
    assert config.out == Path("a/b")
    assert config.sizes == (1, 2)
    assert from_toml(Train, 'fps = "none"').fps is None


def test_all_errors_at_once_with_hints():
    text = """
    nmae = "x"
    bf16 = 1
    backend = "pyavv"
    sizes = [1, "two"]
    depth = 3
    [model]
    widht = 8
    depth = 2.5
    masks = [{kind = "lnog", aspect = [1.0]}]
    [probe]
    width = 7
    """
    with pytest.raises(ConfigError) as caught:
        from_toml(Train, text, source="bad.toml")
    message = str(caught.value)
    for expected in [
        "bad.toml has 10 errors",
        "unknown key 'nmae'; did you mean 'name'?",
        "bf16 = 1: expected true or false",
        'backend = "pyavv": expected one of "auto", "pyav" or a whole number; did you mean',
        'sizes[1] = "two": expected a whole number',
        "unknown key 'depth'; did you mean 'model.depth'?",
        "unknown key 'model.widht'; did you mean 'width'?",
        "model.depth = 2.5: expected a whole number",
        'model.masks[0].kind = "lnog"',
        "did you mean 'long'?",
        "model.masks[0].aspect has 1 values: expected 2",
        "probe: width = 7 must divide by 4; nearest: 4",
    ]:
        assert expected in message


@pytest.mark.parametrize("text", ["bf16 = 0", "frame_step = true", "model = 3", "sizes = 64"])
def test_no_silent_conversions(text):
    with pytest.raises(ConfigError, match="expected"):
        from_toml(Train, text)


def test_a_missing_required_key_is_named():
    with pytest.raises(ConfigError, match="missing key 'source'"):
        from_toml(Needs, "")


def test_unreadable_files_are_config_errors(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "broken.toml").write_text("a = = 1")
    for name, reason in [
        ("absent.toml", "No such file"),
        ("binary.toml", "not UTF-8"),
        ("broken.toml", "not valid TOML"),
    ]:
        with pytest.raises(ConfigError, match=reason):
            load_config(Train, tmp_path / name)


def test_the_one_string_without_a_spelling_is_refused():
    with pytest.raises(ConfigError, match="note is the text 'none'"):
        to_toml(Train(note="none"))
    assert from_toml(Train, to_toml(Train(name="none"))).name == "none"


def test_tables_change_a_base_key_by_key():
    @dataclass(frozen=True, kw_only=True)
    class Inner:
        a: int = 1
        b: int = 2

    @dataclass(frozen=True, kw_only=True)
    class Outer:
        name: str = "x"
        inner: Inner = field(default_factory=Inner)

    base = Outer(name="y", inner=Inner(a=7, b=8))
    assert from_table(Outer, {"inner": {"b": 9}}, base=base) == Outer(
        name="y", inner=Inner(a=7, b=9)
    )
    assert from_table(Outer, {"inner": {"b": 9}}) == Outer(inner=Inner(b=9))
    with pytest.raises(ConfigError, match=r"suite: unknown key|inner.c"):
        from_table(Outer, {"inner": {"c": 9}}, base=base)
