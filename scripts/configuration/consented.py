"""What a project's .env file would give a sandbox more, and so is asked about."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scripts import agents, env_forward, providers
from scripts.configuration import trust
from scripts.configuration.declared import declared
from scripts.configuration.withheld import is_withheld
from scripts.naming import said
from scripts.settings import parsing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from scripts.configuration.layers import Layer, Values
    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")


@dataclass(frozen=True, kw_only=True)
class Written:
    """A line of a project's file that has to do with what a sandbox gets."""

    name: str
    value: str = field(repr=False)
    line: int
    needs_consent: bool


def written(layer: Layer, own: Values) -> tuple[Written, ...]:
    """List the settings of a project's file, and the variables that it gives a sandbox more."""
    items = {item["variable"]: item for item in declared()}
    # Once its own list counts, so does what that names and the user's does not.
    more = parsing.words(layer.values.get("NDDT_ENV_VARS", ""))
    mine = own["NDDT_ENV_VARS"].value

    def one(name: str, value: str) -> Written:
        needs = _exceeds(items[name], value, own) if name in items else True
        return Written(name=name, value=value, line=layer.lines[name], needs_consent=needs)

    def is_more(name: str) -> bool:
        named = env_forward.matches(name, more) and not env_forward.matches(name, mine)
        return is_withheld(name) or named

    return tuple(
        one(name, value)
        for name, value in layer.values.items()
        if value and (name in items or is_more(name))
    )


def usual(own: Values) -> Mapping[str, int]:
    """Look up the limits that the user's provider sets where nobody else does."""
    return providers.get(own["NDDT_PROVIDER"].value).USUAL


def _exceeds(item: Mapping[str, Any], raw: str, own: Values) -> bool:
    """Tell whether a value is one that needs the user's consent."""
    order, name = item["order"], item["variable"]
    try:
        value = item["parse"](raw.strip())
    except ValueError:
        return True
    return not order.allows(value, own[name].value, usual(own))


def _ignored(layer: Layer, own: Values, loaded: Settings) -> tuple[str, ...]:
    """List the names in a project's file that would count, and change something, with consent."""
    items = {item["variable"]: item for item in declared()}
    configuration = (name for one in agents.NAMES for name in agents.get(one).CONFIGURATION)
    forwarded = env_forward.select((*loaded.env_vars, *configuration), layer.values)

    def would_count(name: str) -> bool:
        if name not in items:
            return name in forwarded and name not in loaded.process_environment
        item = items[name]
        try:
            differs = item["parse"](layer.values[name].strip()) != own[name].value
        except ValueError:
            differs = True
        return differs and own[name].rank != "now" and layer.may_set(name)

    needing = (one.name for one in written(layer, own) if one.needs_consent)
    return tuple(name for name in needing if would_count(name))


def report_ignored(layer: Layer, own: Values, loaded: Settings) -> None:
    """Warn, in one line, of what a project's file would change and does not."""
    names = _ignored(layer, own, loaded)
    if layer.project and names:
        shown = ", ".join(f"{name} (line {layer.lines[name]})" for name in names)
        standing = trust.standing(loaded.process_environment, layer.project)
        hint = f"look at it and agree: {said('trust')}"
        log.warning("%s %s, so not used: %s — %s", layer.title, standing, shown, hint)
