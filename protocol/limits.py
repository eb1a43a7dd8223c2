"""Ranges of values, and the error for what lies outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

# Above every float32; compared and not converted, because an int may be too large for a float.
_LARGEST: Final = 3.41e38


class ContractError(ValueError):
    """A value that the contract does not allow; the message says so to the sender."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A range of numbers.

    Attributes:
        what: names the number in messages.
        low: least number, or with ``above`` the number to exceed.
        high: largest number.
        whole: whether it must be an integer.
        above: whether ``low`` itself is excluded.
    """

    what: str
    low: float
    high: float
    whole: bool = False
    above: bool = False

    def check(self, value: Any) -> None:
        """Check a number.

        Raises:
            ContractError: it is not a finite number, or out of the range.
        """
        kinds = int if self.whole else (int, float)
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        if not (is_number and self.low <= value <= self.high and not (self.above and value == self.low)):
            raise ContractError(f"invalid {self.what} {shortened(value)}: expected {self}")

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.above:
            return f"{kind} above {self.low:g} and up to {self.high:g}"
        return f"{kind} from {self.low:g} to {self.high:g}"


def finite(what: str, value: Any) -> None:
    """Raise ``ContractError`` unless ``value`` is a finite number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and -_LARGEST < value < _LARGEST):
        raise ContractError(f"invalid {what} {shortened(value)}: expected a finite number")


def shortened(value: Any) -> str:
    """A value as a message shows it: short, on one line."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (bool, int, str)) or value is None:
        return f"`{repr(value[:40])[1:-1]}`" if isinstance(value, str) else repr(value)[:40]
    return f"a {type(value).__name__}"
