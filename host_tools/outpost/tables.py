"""TOML tables read key by key: what is missing, wrong or left over is told with file and key."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from outpost.errors import OutpostError

_KINDS = {str: "a string", int: "a whole number", float: "a number", list: "a list",
          dict: "a table", bool: "true or false"}
_MISSING = object()


class Table:
    """One TOML table, whose keys are taken one by one; what is left over is an error."""

    error: type[OutpostError] = OutpostError  # what subclasses raise instead

    def __init__(self, file: Path, path: str, values: Any) -> None:
        self.file, self.path = file, path
        if not isinstance(values, dict):
            raise self.error(f"{file}: [{path}] must be a table")
        self.values = dict(values)
        self.known: list[str] = []

    def fail(self, key: str, problem: str) -> OutpostError:
        """Return the error that names file, table and key."""
        return self.error(f"{self.file}: [{self.path}] {key}: {problem}" if self.path
                          else f"{self.file}: {key}: {problem}")

    def take(self, key: str, kind: type, default: Any = _MISSING) -> Any:
        """Return the value of `key`, a `kind`; without a default it must be there."""
        self.known.append(key)
        if key not in self.values:
            if default is _MISSING:
                raise self.fail(key, f"is missing; it must be {_KINDS[kind]}")
            return default
        value = self.values.pop(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.fail(key, f"is {value!r}; it must be {_KINDS[kind]}")
        return value

    def number(self, key: str, kind: type, low: float, high: float,
               default: Any = _MISSING) -> Any:
        """Return a number from `low` to `high`."""
        value = self.take(key, kind, default)
        if value is not None and not low <= value <= high:
            raise self.fail(key, f"is {value}; allowed: {low} to {high}")
        return value

    def choice(self, key: str, kind: type, allowed: Any, default: Any = _MISSING) -> Any:
        """Return one of `allowed`."""
        value = self.take(key, kind, default)
        if value is not None and value not in allowed:
            raise self.fail(key, f"is {value!r}; allowed: {', '.join(map(str, allowed))}")
        return value

    def strings(self, key: str, allowed: Any = None, default: Any = _MISSING) -> Any:
        """Return a list of different strings, not empty, as a tuple."""
        values = self.take(key, list, default)
        if values is default:
            return values
        if not values:
            raise self.fail(key, "is empty")
        for value in values:
            if not isinstance(value, str):
                raise self.fail(key, f"has {value!r} in it; only strings are allowed")
            if allowed is not None and value not in allowed:
                raise self.fail(key, f"has {value!r} in it{meant(value, allowed)}; "
                                     f"allowed: {', '.join(allowed)}")
            if values.count(value) > 1:
                raise self.fail(key, f"has {value!r} twice")
        return tuple(values)

    def numbers(self, key: str, low: float, high: float, size: int) -> tuple[float, ...]:
        """Return `size` numbers from `low` to `high`, none falling below the one before."""
        values = self.take(key, list)
        if (len(values) != size or any(type(one) not in (int, float) for one in values)
                or not all(low <= one <= high for one in values)
                or sorted(values) != values):
            raise self.fail(key, f"is {values!r}; it must be {size} rising numbers from {low:g} "
                                 f"to {high:g}")
        return tuple(map(float, values))

    def pairs(self, key: str, low: Sequence[float], high: Sequence[float], default: Any = _MISSING
              ) -> Any:
        """Return a list of lists of numbers, each as long as `low` and within it and `high`."""
        values = self.take(key, list, default)
        for value in values:
            if (not isinstance(value, list) or len(value) != len(low)
                    or any(type(one) not in (int, float) for one in value)
                    or not all(a <= one <= b for a, one, b in zip(low, value, high, strict=True))):
                raise self.fail(key, f"has {value!r} in it; each must be {len(low)} numbers, from "
                                     f"{list(low)} to {list(high)}")
        return tuple(tuple(map(float, value)) for value in values)

    def table(self, key: str, required: bool = True) -> Self:
        """Return the table `key`; an empty one if it is not there and need not be."""
        values = self.take(key, dict, _MISSING if required else {})
        return type(self)(self.file, f"{self.path}.{key}" if self.path else key, values)

    def finish(self) -> None:
        """Raise the error for a key that nobody has taken."""
        for key in self.values:
            raise self.fail(key, f"is not known{meant(key, self.known)}; "
                                 f"allowed here: {', '.join(self.known)}")


def meant(word: str, allowed: Any) -> str:
    """Return the allowed word that `word` is probably a slip of, as a parenthesis, or nothing."""
    close = difflib.get_close_matches(word, allowed, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
