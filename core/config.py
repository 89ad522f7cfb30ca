"""Configs: frozen dataclasses written as TOML and read back to the same object.

    @dataclass(frozen=True, kw_only=True)
    class TrainConfig:
        steps: int = 1000
        model: ModelConfig = field(default_factory=ModelConfig)

    save_config(config, run / "config.toml")
    assert load_config(TrainConfig, run / "config.toml") == config

Field types: bool, int, float, str, Path, Literal, ``X | None``, tuples of these, and dataclasses of
these. A missing key takes its default (of the default instance, inside a nested table); an unknown
key or an ill-typed value is an error, and all errors of a file are reported at once. ``None`` is
left out where it is the default and written ``"none"`` where it is not.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from .errors import ConfigError
from .io import atomic_write_text

C = TypeVar("C")

_NONE = "none"
_BAD = object()
_REQUIRED = object()
_SCALARS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path in quotes",
}


def to_toml(config: Any) -> str:
    """``config`` (a dataclass instance) as TOML text that :func:`from_toml` reads back to an equal
    object. Raises ``TypeError`` for a value of an unsupported type, ``ConfigError`` for the one
    value that has no spelling (the string "none" in an optional field)."""
    return "\n".join(_lines(config, base=None, prefix="")) + "\n"


def from_toml(cls: type[C], text: str, *, source: str = "config") -> C:
    """Build ``cls`` from TOML ``text``.

    Raises :class:`ConfigError` that lists every unknown key (with the nearest valid one), every
    ill-typed or missing value and every value refused by a ``__post_init__``; ``source`` names the
    text in that message.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not valid TOML: {error}") from error
    return from_table(cls, table, source=source)


def from_table(
    cls: type[C], table: Mapping[str, Any], *, base: C | None = None, source: str = "config"
) -> C:
    """Build ``cls`` from nested tables, as TOML or YAML gives them.

    Args:
        base: what missing keys are taken from; by default the fields' own defaults.

    Raises :class:`ConfigError` as :func:`from_toml` does.
    """
    errors: list[str] = []
    config = _build(cls, dict(table), base, "", _known_paths(cls), errors)
    if errors:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        raise ConfigError(f"{source} has {count}:\n" + "\n".join(f"  - {e}" for e in errors))
    return config


def load_config(cls: type[C], path: str | os.PathLike[str]) -> C:
    """Read ``cls`` from the TOML file ``path``. Raises :class:`ConfigError`, also if unreadable."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the config file {path}: {reason}") from error
    return from_toml(cls, text, source=str(path))


def save_config(config: Any, path: str | os.PathLike[str]) -> None:
    """Write ``config`` to ``path`` atomically as TOML."""
    atomic_write_text(path, to_toml(config))


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known word nearest to ``word``, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


# --- writing ---------------------------------------------------------------------------------


def _lines(config: Any, base: Any, prefix: str) -> Iterator[str]:
    """Lines of one table: plain keys first, nested dataclasses after as ``[prefix.name]``."""
    hints = _hints(type(config))
    nested = []
    for field in _fields(type(config)):
        value, default = getattr(config, field.name), _default(field, base)
        if dataclasses.is_dataclass(value):
            nested.append((field.name, value, default))
        elif value is not None or default is not None:
            yield f"{field.name} = {_literal(value, hints[field.name], prefix + field.name)}"
    for name, value, default in nested:
        yield f"\n[{prefix}{name}]"
        same_type = type(default) is type(value)
        yield from _lines(value, default if same_type else None, f"{prefix}{name}.")


def _literal(value: Any, hint: Any, where: str) -> str:
    if value is None:
        return f'"{_NONE}"'
    if value == _NONE and type(None) in typing.get_args(hint):
        raise ConfigError(f"{where} is the text 'none', which a file spells None: pick another")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        hints = _tuple_hints(_tuple_arm(hint), len(value))
        return (
            "[" + ", ".join(_literal(v, h, where) for v, h in zip(value, hints, strict=True)) + "]"
        )
    if dataclasses.is_dataclass(value):
        own = _hints(type(value))
        pairs = ((f.name, getattr(value, f.name)) for f in _fields(type(value)))
        return "{" + ", ".join(f"{n} = {_literal(v, own[n], where)}" for n, v in pairs) + "}"
    raise TypeError(f"{where} holds a {type(value).__name__}, which configs do not support")


def _tuple_arm(hint: Any) -> Any:
    arms = [a for a in _arms(hint) if typing.get_origin(a) is tuple]
    return arms[0] if arms else tuple[Any, ...]


# --- reading ---------------------------------------------------------------------------------


def _build(
    cls: Any, table: dict, base: Any, prefix: str, known: list[str], errors: list[str]
) -> Any:
    """An instance of ``cls`` with defaults from ``base``, or ``_BAD`` and more ``errors``."""
    before = len(errors)
    hints, values = _hints(cls), {}
    fields = {field.name: field for field in _fields(cls)}
    for key in (key for key in table if key not in fields):
        errors.append(f"unknown key {prefix + key!r}{_key_hint(prefix, key, known)}")
    for name, field in fields.items():
        default = _default(field, base)
        if name in table:
            values[name] = _convert(table[name], hints[name], default, prefix + name, known, errors)
        elif default is _REQUIRED:
            errors.append(f"missing key {prefix + name!r}: it has no default")
        else:
            values[name] = default
    if len(errors) > before:
        return _BAD
    try:
        return cls(**values)
    except ConfigError as error:
        errors.append(f"{prefix.rstrip('.')}: {error}" if prefix else str(error))
        return _BAD


def _convert(
    value: Any, hint: Any, default: Any, where: str, known: list[str], errors: list[str]
) -> Any:
    """``value`` as ``hint`` wants it, or ``_BAD`` after adding to ``errors``."""
    arms = _arms(hint)
    if type(None) in arms and value == _NONE:
        return None
    for arm in arms:
        if dataclasses.is_dataclass(arm) and isinstance(value, dict):
            base = default if type(default) is arm else None
            return _build(arm, value, base, f"{where}.", known, errors)
        if typing.get_origin(arm) is tuple and isinstance(value, list):
            return _convert_tuple(value, arm, where, known, errors)
        if typing.get_origin(arm) is Literal:
            for choice in typing.get_args(arm):
                if choice == value and type(choice) is type(value):
                    return choice
        elif arm is float and type(value) in (int, float):
            return float(value)
        elif arm is Path and type(value) is str:
            return Path(value)
        elif type(value) is arm:
            return value
    shown = "a table" if isinstance(value, dict) else json.dumps(value, default=str)
    hint_text = _value_hint(value, arms)
    errors.append(f"{where} = {shown}: expected {_describe(arms)}{hint_text}")
    return _BAD


def _convert_tuple(value: list, arm: Any, where: str, known: list[str], errors: list[str]) -> Any:
    hints = _tuple_hints(arm, len(value))
    if len(hints) != len(value):
        errors.append(f"{where} has {len(value)} values: expected {len(hints)}")
        return _BAD
    before = len(errors)
    out = [
        _convert(v, h, None, f"{where}[{i}]", known, errors)
        for i, (v, h) in enumerate(zip(value, hints, strict=True))
    ]
    return _BAD if len(errors) > before else tuple(out)


def _key_hint(prefix: str, key: str, known: list[str]) -> str:
    """The nearest key of the same table, or else a key of the same name in another table."""
    siblings = [p.removeprefix(prefix) for p in known if p.startswith(prefix)]
    near = did_you_mean(key, [s for s in siblings if "." not in s])
    elsewhere = [p for p in known if p.split(".")[-1] == key]
    return near or (f"; did you mean {elsewhere[0]!r}?" if elsewhere else "")


def _value_hint(value: Any, arms: list[Any]) -> str:
    choices = [c for a in arms if typing.get_origin(a) is Literal for c in typing.get_args(a)]
    return did_you_mean(value, map(str, choices)) if isinstance(value, str) else ""


def _describe(arms: list[Any]) -> str:
    parts = []
    for arm in arms:
        if arm is type(None):
            parts.append('"none"')
        elif typing.get_origin(arm) is Literal:
            parts.append("one of " + ", ".join(json.dumps(c) for c in typing.get_args(arm)))
        elif typing.get_origin(arm) is tuple:
            parts.append("a list")
        elif dataclasses.is_dataclass(arm):
            parts.append("a table")
        else:
            parts.append(_SCALARS.get(arm, str(arm)))
    return " or ".join(parts)


# --- dataclass facts -------------------------------------------------------------------------


def _fields(cls: Any) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(cls) if field.init]


def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _arms(hint: Any) -> list[Any]:
    union = typing.get_origin(hint) in (Union, types.UnionType)
    return list(typing.get_args(hint)) if union else [hint]


def _tuple_hints(arm: Any, length: int) -> list[Any]:
    args = typing.get_args(arm)
    return [args[0]] * length if args[-1:] == (Ellipsis,) else list(args)


def _default(field: dataclasses.Field, base: Any) -> Any:
    """The field's value in the default instance ``base``, else its own default, or _REQUIRED."""
    if base is not None:
        return getattr(base, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return _REQUIRED


def _known_paths(cls: Any, prefix: str = "") -> list[str]:
    """Every dotted key of ``cls``."""
    paths = []
    for field in _fields(cls):
        paths.append(prefix + field.name)
        for arm in _arms(_hints(cls)[field.name]):
            if dataclasses.is_dataclass(arm):
                paths += _known_paths(arm, f"{prefix}{field.name}.")
    return paths
