"""The tables of settings in docs/settings.md, written from the code: `./nddt lint --docs`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from scripts import agents, providers
from scripts.configuration.declared import declared
from scripts.settings.fields import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from scripts.contracts.agent import Agent
    from scripts.contracts.provider import Provider

PAGE = "docs/settings.md"
"""Its file, from the root of the repository."""
_MARK = "<!-- from here on written by nddt lint --docs -->\n"
_HEAD = "| Variable | Default | Meaning | Only after `nddt trust`, a project's `.env` … |\n"
_SAYS = re.compile(r"^(.*\.) (A project's \.env (.*?),? only after .* trust\.|No \.env file .*\.)$")


def is_true(root: Path) -> bool:
    """Tell whether the page is what the code would write."""
    text = (root / PAGE).read_text(encoding="utf-8")
    return text == _with_tables(text)


def write(root: Path) -> None:
    """Write what follows the mark in the page anew."""
    file = root / PAGE
    file.write_text(_with_tables(file.read_text(encoding="utf-8")), encoding="utf-8")


def _with_tables(text: str) -> str:
    kinds = dict.fromkeys(item["kind"] for item in declared())
    modules: tuple[Agent | Provider, ...] = (
        *map(agents.get, agents.NAMES),
        *map(providers.get, providers.NAMES),
    )
    titles: dict[type, str] = {Settings: "nddt"}
    titles |= {one.SETTINGS: one.NAME for one in modules if one.SETTINGS}
    tables = (
        f"\n## Of {titles[kind]}\n\n" + _table(item for item in declared() if item["kind"] is kind)
        for kind in kinds
    )
    return "".join((*text.partition(_MARK)[:2], *tables))


def _table(items: Iterable[Mapping[str, Any]]) -> str:
    return _HEAD + "|---|---|---|---|\n" + "".join(map(_row, items))


def _row(item: Mapping[str, Any]) -> str:
    default = item["default"].replace(",", "`, `")
    parts = _SAYS.match(item["text"])
    meaning, says, short = parts.groups() if parts else (item["text"], "", "")
    cells = (f"`{item['variable']}`", f"`{default}`" if default else "", meaning, short or says)
    return "".join(f"| {cell} " for cell in cells).replace("|  ", "| ") + "|\n"
