"""Every setting there is: nddt's own, and those of each agent and provider."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from scripts import agents, providers
from scripts.settings import declaring, parsing
from scripts.settings.fields import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scripts.contracts.agent import Agent
    from scripts.contracts.provider import Provider

    Item = Mapping[str, Any]
    """A setting: `kind` is its class, `attribute` its field there, `field` the name that options
    have for it; and what `declaring.variable` was told."""


@cache
def declared() -> tuple[Item, ...]:
    """List the settings; the first one is the profile."""
    core = tuple(
        {"kind": Settings, "attribute": item["field"], **item, **_completed(item)}
        for item in declaring.declared(Settings)
    )
    return (*core, *(item for one in _modules() for item in _own(one)))


def _modules() -> Iterator[Agent | Provider]:
    yield from map(agents.get, agents.NAMES)
    yield from map(providers.get, providers.NAMES)


def _own(module: Agent | Provider) -> Iterator[Item]:
    kind = module.SETTINGS
    for item in declaring.declared(kind) if kind else ():
        name = f"{module.NAME}_{item['field']}"
        yield {**item, "kind": kind, "attribute": item["field"], "field": name}


def _completed(item: Item) -> Item:
    """Fill in what follows from which agents and providers there are."""
    name = item["variable"]
    if name == "NDDT_ENV_VARS":
        return {"default": ",".join(forwarded(agents.NAMES[0]))}
    names = {"NDDT_AGENT": agents.NAMES, "NDDT_PROVIDER": providers.NAMES}.get(name)
    if names:
        text = item["text"].replace("{names}", " or ".join(names))
        return {"parse": parsing.choice(*names), "default": names[0], "text": text}
    if "{usual}" in item["text"]:
        return {"text": item["text"].replace("{usual}", _usual(name))}
    return {}


def forwarded(agent: str) -> tuple[str, ...]:
    """Name the variables that reach an agent where nobody says which: no other agent's keys."""
    item = next(one for one in declaring.declared(Settings) if one["variable"] == "NDDT_ENV_VARS")
    return (*agents.get(agent).KEYS, item["default"])


def _usual(variable: str) -> str:
    """Say which limit each provider sets where nobody else does."""
    found = ((one.TITLE, one.USUAL.get(variable)) for one in map(providers.get, providers.NAMES))
    return ", ".join(f"{limit or 'no limit'} with {title}" for title, limit in found)


def value(settings: Settings, item: Item) -> Any:  # noqa: ANN401  (the setting's)
    """Look up what a setting is."""
    kind = item["kind"]
    return getattr(settings if kind is Settings else settings.of(kind), item["attribute"])


def build_settings(values: Mapping[str, Any], **more: Any) -> Settings:  # noqa: ANN401  (the settings')
    """Put values, by variable, and what else `Settings` has together."""
    kinds: dict[type, dict[str, Any]] = {}
    for item in declared():
        kinds.setdefault(item["kind"], {})[item["attribute"]] = values[item["variable"]]
    core = kinds.pop(Settings)
    return Settings(**core, own=tuple(kind(**one) for kind, one in kinds.items()), **more)
