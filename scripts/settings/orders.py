"""Orders: which of two values of a setting gives a sandbox more, and so what a project may set.

A project's .env may be anybody's. Without the user's consent, a value in it counts only where the
setting's order says that it gives no more than what the user has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scripts.settings.parsing import Mount

    Usual = Mapping[str, int]
    """Variable → the limit that the user's provider sets where nobody else does."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """How the values of a setting compare."""

    allows: Callable[[Any, Any, Usual], bool]
    """True for (a project's value, the user's, the provider's usual limits) if the first gives no
    more."""
    says: str
    """What that means for a project's .env: a sentence in the setting's explanation."""
    why: str
    """The reason why it is this order."""
    is_comparable: bool = True
    """False: no value of a project's counts without consent, not even one that is the same."""


def ladder(*values: object, why: str, apart: str = "") -> Order:
    """Order the values from the one that gives least to the one that gives most.

    Args:
        values: The values.
        why: The reason.
        apart: One more, which gives something else: it is on no step of the ladder.
    """

    def allows(value: object, own: object, _usual: Usual) -> bool:
        if apart and apart in {value, own}:
            return value == own
        return values.index(value) <= values.index(own)

    least = values[0] or "empty"
    more = f", or to {apart} or back," if apart else ""
    says = f"A project's .env moves it further away from {least}{more} only after nddt trust."
    return Order(allows=allows, says=says, why=why)


def switch(*, more: bool, why: str) -> Order:
    """Order true and false; `more` is the one that gives more."""
    says = f"A project's .env sets {str(more).lower()} only after nddt trust."
    return Order(allows=lambda value, own, _: own is more or value is own, says=says, why=why)


def limit(*, why: str, unset: float = inf, of: str = "") -> Order:
    """Order numbers: a smaller one gives less.

    Args:
        why: The reason.
        unset: The limit that 0 means; none at all, unless it is said.
        of: The setting's variable, if a provider may have a usual limit for it, which 0 means.
    """

    def allows(value: int, own: int, usual: Usual) -> bool:
        unlimited = usual.get(of, unset)
        return (value or unlimited) <= (own or unlimited)

    says = "A project's .env raises it only after nddt trust."
    return Order(allows=allows, says=says, why=why)


def reserve(*, why: str) -> Order:
    """Order numbers of what is kept back: a larger one gives less, 0 keeps nothing back."""
    says = "A project's .env lowers it only after nddt trust."
    return Order(allows=lambda value, own, _: value >= own, says=says, why=why)


def subset(*, why: str, empty_is: str = "nothing") -> Order:
    """Order sets: what is among the user's own gives less.

    Args:
        why: The reason.
        empty_is: What no names at all mean: `nothing`, `all`, or `another` set, which has
            nothing to do with any that is named.
    """

    def allows(value: tuple[object, ...], own: tuple[object, ...], _usual: Usual) -> bool:
        if value and own:
            return set(value) <= set(own)
        return value == own or {"nothing": not value, "all": not own, "another": False}[empty_is]

    says = "A project's .env adds to it only after nddt trust."
    return Order(allows=allows, says=says, why=why)


def never(why: str, says: str = "A project's .env sets it only after nddt trust.") -> Order:
    """Take no value of a project's: none gives less than another."""
    return Order(allows=lambda *_: False, says=says, why=why, is_comparable=False)


def shown() -> Order:
    """Order directories by what is shown: those of the user's, to write or to read alone."""
    return Order(
        allows=_shows_no_more,
        says="A project's .env adds to it only after nddt trust.",
        why="what the user shows, in the same place, at most to read where it is to read",
    )


def _shows_no_more(value: tuple[Mount, ...], own: tuple[Mount, ...], _usual: Usual) -> bool:
    """Tell whether the user shows all of these, too, and to write what is to write."""
    allowed = {*own, *(replace(one, readonly=True) for one in own)}
    return allowed.issuperset(value)
