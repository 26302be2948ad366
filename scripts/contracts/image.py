"""What goes into the sandbox's image, and the name that follows from it.

The same Dockerfile and arguments serve every provider. The name holds a hash over all of
them, so an unchanged input is never built again and a changed one always is.
"""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import naming, plain_text
from scripts.errors import CannotCreateError, NddtError
from scripts.machine import files, foreign_json
from scripts.settings.parsing import PACKAGE_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from scripts.contracts.agent import Agent
    from scripts.settings import host
    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")

DOCKERFILE = Path(__file__).parents[2] / "dockerfiles" / "sandbox.Dockerfile"
NPM = DOCKERFILE.with_name("npm.Dockerfile")
"""What begins the agent's part if it is a package of npm's."""
DOCKER_INSIDE = DOCKERFILE.with_name("docker.Dockerfile")
"""What goes before the agent's part if there is to be Docker inside."""
SUDO = DOCKERFILE.with_name("sudo.Dockerfile")
"""What goes after it if the user inside may become root."""
AGENT_STAGE = "FROM tools AS agent"
"""The line of the Dockerfile at which the agent's part begins."""
DAY_S = 24 * 60 * 60
TAGS = ("latest", "stable", "next")
"""Names that stand for a version and are looked up."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that goes into an image, but for the agent's version.

    The tools are the part that all versions of the agent share; a new version adds one layer.
    """

    dockerfile: str = field(repr=False)
    base: str
    arguments: Mapping[str, str] = field(repr=False)
    """Build arguments of the tools."""
    proxies: Mapping[str, str] = field(repr=False)
    """Proxies of the build; Docker keeps these out of the image, and so do we of its name."""
    agent: str
    title: str
    """The agent's, in texts for people."""
    package: str
    program: str
    conversations: str
    """Directory of the agent's that the user inside must own, relative to the home directory."""

    @property
    def version_settings(self) -> str:
        """Name the settings that say which versions go into it."""
        return " and ".join(("NDDT_NODE_VERSION", f"NDDT_{self.agent.upper()}_VERSION"))

    def tag(self, version: str, more: Iterable[str] = ()) -> str:
        """Tell this image from others.

        Args:
            version: The agent's; empty means the tools alone.
            more: What else its content depends on.
        """
        items = (f"{name}={value}" for name, value in sorted(self.arguments.items()))
        content = naming.digest([self.dockerfile, *items, *more], 10)
        if not version:
            return naming.image_tag("tools", self.arguments["NODE_VERSION"], content)
        return naming.image_tag(self.agent, version, content)

    def text(self, version: str) -> str:
        """Build the Dockerfile with its arguments filled in, since not every builder takes any.

        Args:
            version: The agent's; empty means the tools alone.
        """
        tools, stage, _ = self.dockerfile.partition(AGENT_STAGE)
        values = {
            **self.arguments,
            "AGENT_PACKAGE": self.package,
            "AGENT_VERSION": version,
            "AGENT_PROGRAM": self.program,
            "AGENT_CONVERSATIONS": self.conversations,
        }

        def filled(found: re.Match[str]) -> str:
            name = found[1]
            return f"ARG {name}={_quoted(values[name])}" if name in values else found[0]

        if not stage:
            raise ValueError(f"the Dockerfile lacks {AGENT_STAGE!r}")
        text = self.dockerfile if version else tools
        return re.sub(r"^ARG (\w+).*$", filled, text, flags=re.MULTILINE)


def _quoted(value: str) -> str:
    """Quote a value for a Dockerfile, in which $ means a variable."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def recipe(settings: Settings, agent: Agent, network: host.Host, user: tuple[int, int]) -> Recipe:
    """Collect what goes into the image.

    Args:
        settings: Base image, versions, and whether there are Docker and sudo inside.
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
    dockerfile = DOCKERFILE.read_text(encoding="utf-8")
    if agent.PACKAGE:
        package = NPM.read_text(encoding="utf-8")
        dockerfile = dockerfile.replace(f"{AGENT_STAGE}\n", f"{AGENT_STAGE}\n{package}")
    if settings.docker_forward:
        arguments["DOCKER_FORWARD"] = settings.docker_forward
        more = DOCKER_INSIDE.read_text(encoding="utf-8")
        dockerfile = dockerfile.replace(AGENT_STAGE, f"{more}{AGENT_STAGE}")
    if settings.sudo:
        dockerfile += SUDO.read_text(encoding="utf-8")
    return Recipe(
        dockerfile=dockerfile,
        base=settings.base_image,
        arguments=arguments,
        proxies=network.proxies,
        agent=agent.NAME,
        title=agent.TITLE,
        package=agent.PACKAGE,
        program=agent.PROGRAM,
        conversations=agent.CONVERSATIONS,
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
        found = _number(look_up(key), key)
    except NddtError as error:
        if not answer:
            raise
        log.info("%s; using %s %s, known from before", error.message, key, answer.version)
        return answer.version
    known[key] = _Answer(version=found, asked=int(time.time()))
    text = json.dumps({name: asdict(one) for name, one in known.items()}, indent=1)
    try:
        files.write(memory, text)
    except OSError as error:
        log.warning("%s cannot be remembered, and is looked up each time: %s", key, error)
    return found


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What the registry said, and when, in seconds since 1970."""

    version: str
    asked: int


def _number(answer: str, key: str) -> str:
    """Check what a registry says.

    Raises:
        CannotCreateError: It is another thing than the number of a version.
    """
    if not PACKAGE_VERSION.fullmatch(answer):
        said = f"{plain_text.one_line(answer[:80])!r}, which is no version"
        raise CannotCreateError(f"npm says that {key} is {said}", "check your npm's registry")
    return answer


def _remembered(memory: Path) -> dict[str, _Answer]:
    """Read the answers; what is not one is as good as not asked."""
    try:
        known = foreign_json.read_json(memory)
        return {
            name: _Answer(version=str(one["version"]), asked=int(one["asked"]))
            for name, one in known.items()
            if PACKAGE_VERSION.fullmatch(str(one["version"]))
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
