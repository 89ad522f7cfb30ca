"""A nested table read key by key, that knows which keys were never asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.errors import ConfigError

_REQUIRED = object()


class Table:
    """Dotted access to a nested mapping.

    Attributes:
        notes: what readers have to say about keys, in the order in which it came up.
    """

    def __init__(self, table: Mapping[str, Any]):
        self._values = dict(_flat(table, ""))
        self._read: set[str] = set()
        self.notes: list[str] = []

    def has(self, key: str) -> bool:
        """Whether the table has ``key``; that does not count as reading it."""
        return key in self._values

    def get(self, key: str, default: Any = _REQUIRED) -> Any:
        """The value of ``key``, whatever its type. Raises ConfigError if it is required."""
        self._read.add(key)
        value = self._values.get(key, default)
        if value is _REQUIRED:
            raise ConfigError(f"{key} is missing: the published training needs it too")
        return value

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        """A number; YAML reads 1e-6 as text, which counts. Raises ConfigError for others."""
        value = self.get(key, default)
        try:
            if isinstance(value, bool):
                raise ValueError
            return float(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{key}: {value!r} is not a number") from error

    def whole(self, key: str, default: Any = _REQUIRED) -> int:
        """A whole number. Raises ConfigError for others."""
        value = self.number(key, default)
        if not value.is_integer():
            raise ConfigError(f"{key}: {value} is not a whole number")
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false. Raises ConfigError for others."""
        value = self.get(key, default)
        if value not in (True, False, None):
            raise ConfigError(f"{key}: {value!r} is neither true nor false")
        return bool(value)

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        """A string. Raises ConfigError for others."""
        value = self.get(key, default)
        if not isinstance(value, str):
            raise ConfigError(f"{key}: {value!r} is not a string")
        return value

    def pair(self, key: str, default: Any = _REQUIRED) -> tuple[float, float]:
        """Two numbers. Raises ConfigError for others."""
        value = self.get(key, default)
        try:
            low, high = value
            return float(low), float(high)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{key}: {value!r} is not a list of two numbers") from error

    def note(self, text: str) -> None:
        """Say something about the file."""
        self.notes.append(text)

    def drop(self, reasons: Mapping[str, str]) -> None:
        """Note each of these keys that is there, with its reason for having no counterpart."""
        self._read |= reasons.keys()
        for key, reason in reasons.items():
            if self.has(key):
                self.note(f"{key}: {self.get(key)!r} is left out: {reason}")

    def require(self, key: str, wanted: Any, default: Any, why: str) -> None:
        """Raise ConfigError unless ``key`` is ``wanted`` (or absent and ``default`` is)."""
        value = self.get(key, default)
        if value != wanted and not (wanted is False and not value):
            raise ConfigError(f"{key}: {value!r} cannot be imported: {why}")

    def known(self) -> set[str]:
        """The keys that somebody asked for, there or not."""
        return self._read

    def unread(self) -> list[str]:
        """The keys that nobody asked for."""
        return sorted(self._values.keys() - self._read)


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
