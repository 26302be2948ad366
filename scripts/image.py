"""What goes into the sandbox's image, and the name that follows from it.

The same Dockerfile and arguments serve every provider. The name holds a hash over all of
them, so an unchanged input is never built again and a changed one always is.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import host, naming
from scripts.errors import NddtError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scripts.agents import Agent
    from scripts.settings import Settings

log = logging.getLogger("nddt")

DOCKERFILE = Path(__file__).parent.parent / "dockerfiles" / "sandbox.Dockerfile"
DAY_S = 24 * 60 * 60
TAGS = ("latest", "stable", "next")
"""Names that stand for a version and are looked up."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that goes into an image, but for the agent's version.

    `tools` is the part that all versions of the agent share; a new version adds one layer.
    """

    dockerfile: str = field(repr=False)
    base: str
    arguments: Mapping[str, str] = field(repr=False)
    """Build arguments of the tools."""
    proxies: Mapping[str, str] = field(repr=False)
    """Proxies of the build; Docker keeps these out of the image, and so do we of its name."""
    agent: str
    package: str
    program: str

    @property
    def content(self) -> str:
        """Hash of all that goes into the tools."""
        items = sorted(self.arguments.items())
        return naming.digest([self.dockerfile, *(f"{k}={v}" for k, v in items)], 10)

    @property
    def tools_name(self) -> str:
        """Name of the image without an agent."""
        return naming.image_name("tools", self.arguments["NODE_VERSION"], self.content)

    def name(self, version: str) -> str:
        """Name of the image with this version of the agent."""
        return naming.image_name(self.agent, version, self.content)

    def agent_arguments(self, version: str) -> dict[str, str]:
        """Build arguments of the agent's layer."""
        return {
            "AGENT_PACKAGE": self.package,
            "AGENT_VERSION": version,
            "AGENT_PROGRAM": self.program,
        }


def recipe(settings: Settings, agent: Agent, network: host.Host, user: tuple[int, int]) -> Recipe:
    """Collect what goes into the image.

    Args:
        settings: Base image and versions.
        agent: Which agent it is for.
        network: This machine's network configuration.
        user: UID and GID of the user inside.
    """
    arguments = {
        "BASE_IMAGE": settings.base_image,
        "NODE_VERSION": settings.node_version,
        "USER_ID": str(user[0]),
        "GROUP_ID": str(user[1]),
        **network.build_args(),
    }
    return Recipe(
        dockerfile=DOCKERFILE.read_text(encoding="utf-8"),
        base=settings.base_image,
        arguments=arguments,
        proxies=network.proxies,
        agent=agent.NAME,
        package=agent.PACKAGE,
        program=agent.PROGRAM,
    )


def version(wanted: str, package: str, memory: Path, look_up: Callable[[str], str]) -> str:
    """Turn `latest` and the like into a version, asking the registry once a day.

    Args:
        wanted: A tag or a version; a version is returned as it is.
        package: The agent's package.
        memory: JSON file that remembers answers.
        look_up: Asks the registry for `package@tag`.

    Raises:
        NddtError: The look-up failed and nothing is remembered.
    """
    if wanted not in TAGS:
        return wanted
    key = f"{package}@{wanted}"
    known = _remembered(memory)
    answer = known.get(key)
    if answer and 0 <= time.time() - answer.asked < DAY_S:
        return answer.version
    try:
        found = look_up(key)
    except NddtError as error:
        if not answer:
            raise
        log.info("%s; using %s %s, known from before", error.message, key, answer.version)
        return answer.version
    known[key] = _Answer(version=found, asked=int(time.time()))
    text = json.dumps({name: asdict(one) for name, one in known.items()}, indent=1)
    partial = memory.with_suffix(f".{time.monotonic_ns()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(memory)
    except OSError as error:
        log.warning("%s cannot be remembered, and is looked up each time: %s", key, error)
    return found


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What the registry said, and when, in seconds since 1970."""

    version: str
    asked: int


def _remembered(memory: Path) -> dict[str, _Answer]:
    """Read the answers; what is not one is as good as not asked."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
        return {
            name: _Answer(version=str(one["version"]), asked=int(one["asked"]))
            for name, one in known.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
