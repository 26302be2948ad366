"""Fields of a dataclass as settings: what each is called, how it is read, and who may set it.

An agent or a provider has settings of its own: a frozen dataclass of such fields, in its module.
All of them together: `configuration/declared.py`.
"""

from __future__ import annotations

from dataclasses import field, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from scripts.settings.profiles import PROFILES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _typeshed import DataclassInstance

    from scripts.settings.orders import Order


def variable(
    name: str,
    parse: Callable[[str], Any],
    default: str,
    text: str,
    *,
    order: Order,
    secret: bool = False,
    empty_is_none: bool = False,
) -> Any:  # noqa: ANN401  (as dataclasses.field)
    """Declare a setting.

    Args:
        name: Its variable.
        parse: Reads what is written.
        default: As it would be written.
        text: Its explanation, a sentence, in which `{names}` and `{usual}` are filled in later.
        order: Which of its values give a sandbox more.
        secret: It is shown to nobody.
        empty_is_none: An empty value means none of it; else it means that nothing is said.
    """
    metadata = {"variable": name, "parse": parse, "default": default, "secret": secret}
    metadata |= {"order": order, "text": f"{text} {order.says}", "empty_is_none": empty_is_none}
    return field(metadata=metadata, repr=not secret)


@cache
def declared(kind: type[DataclassInstance]) -> tuple[Mapping[str, Any], ...]:
    """List the settings of one class: `field`, and what `variable` was told of each."""
    return tuple({"field": f.name, **f.metadata} for f in fields(kind) if f.metadata)


def fallback(item: Mapping[str, Any], profile: str) -> Any:  # noqa: ANN401  (the setting's)
    """Read what a setting is with a profile where nobody sets it."""
    return item["parse"](PROFILES[profile].get(item["variable"], item["default"]))
