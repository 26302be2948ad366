"""What goes into the image, its name, and the version that stands behind `latest`."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from scripts import agents, host, image
from scripts.errors import CannotCreateError, NddtError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.conftest import Project

PACKAGE = "@anthropic-ai/claude-code"
NETWORK = host.Host(ca_certs="", proxies={}, apt_mirror="", npm_registry="", pip_index_url="")


def recipe(
    project: Project,
    network: host.Host = NETWORK,
    user: tuple[int, int] = (1000, 1000),
    **environ: str,
) -> image.Recipe:
    """Collect a recipe with these settings."""
    project.environ.update(environ)
    return image.recipe(project.load(), agents.get("claude"), network, user)


# -- names ----------------------------------------------------------------------------------


def test_names(project: Project) -> None:
    """Say agent and version; the tools, which agents share, say Node's."""
    made = recipe(project)

    assert re.fullmatch(r"nddt:claude-2\.1\.330-[0-9a-f]{10}", made.name("2.1.330"))
    assert made.tools_name == f"nddt:tools-22-{made.content}"


def test_unchanged_input_has_the_same_name(project: Project) -> None:
    """So it is never built again."""
    assert recipe(project).content == recipe(project).content


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda p: recipe(p, NDDT_BASE_IMAGE="debian:sid"), id="base"),
        pytest.param(lambda p: recipe(p, NDDT_NODE_VERSION="24"), id="node"),
        pytest.param(lambda p: recipe(p, user=(1001, 1000)), id="uid"),
        pytest.param(lambda p: recipe(p, user=(1000, 1001)), id="gid"),
        pytest.param(lambda p: recipe(p, replace(NETWORK, ca_certs="PEM")), id="ca-certs"),
        pytest.param(lambda p: recipe(p, replace(NETWORK, apt_mirror="http://m")), id="apt"),
        pytest.param(lambda p: recipe(p, replace(NETWORK, npm_registry="http://m")), id="npm"),
        pytest.param(lambda p: recipe(p, replace(NETWORK, pip_index_url="http://m")), id="pip"),
        pytest.param(lambda p: replace(recipe(p), dockerfile="FROM scratch"), id="dockerfile"),
    ],
)
def test_each_input_changes_the_name(
    project: Project, change: Callable[[Project], image.Recipe]
) -> None:
    """Of the tools and of what is built on them."""
    before, after = recipe(project), change(project)

    assert before.tools_name != after.tools_name
    assert before.name("1.0.0") != after.name("1.0.0")


def test_version_changes_only_the_agents_name(project: Project) -> None:
    """The tools below stay."""
    made = recipe(project)

    assert made.name("1.0.0") != made.name("1.0.1")
    assert made.agent_arguments("1.0.0") == {
        "AGENT_PACKAGE": PACKAGE,
        "AGENT_VERSION": "1.0.0",
        "AGENT_PROGRAM": "claude",
    }


def test_proxies_do_not_change_the_name(project: Project) -> None:
    """They are how the build reaches the world, not what comes of it."""
    proxies = {"HTTP_PROXY": "http://user:secret@proxy"}
    made = recipe(project, replace(NETWORK, proxies=proxies))

    assert made.content == recipe(project).content
    assert made.proxies == proxies
    assert "secret" not in repr(made)
    assert "HTTP_PROXY" not in made.arguments


def test_dockerfile_declares_each_argument(project: Project) -> None:
    """Docker ignores others with a warning at most."""
    made = recipe(project)
    declared = set(re.findall(r"^ARG (\w+)", made.dockerfile, re.MULTILINE))

    assert declared == {*made.arguments, *made.agent_arguments("1.0.0")}


# -- versions -------------------------------------------------------------------------------


class Registry:
    """Answers a look-up, or fails as one that cannot be reached; counts what it is asked."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, package: str) -> str:
        """Give the next answer."""
        self.asked.append(package)
        if not self._answers:
            raise CannotCreateError("the registry does not answer")
        return self._answers.pop(0)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """Give a place that does not exist yet."""
    return tmp_path / "cache" / "versions.json"


def remember(memory: Path, version: str, age_s: float) -> None:
    """Write a memory that was made some time ago."""
    memory.parent.mkdir(exist_ok=True)
    answer = {"version": version, "asked": int(time.time() - age_s)}
    memory.write_text(json.dumps({f"{PACKAGE}@latest": answer}))


def test_pinned_version_never_asks(memory: Path) -> None:
    """And remembers nothing."""
    registry = Registry()

    assert image.version("2.1.330", PACKAGE, memory, registry) == "2.1.330"
    assert registry.asked == []
    assert not memory.parent.exists()


@pytest.mark.parametrize("tag", image.TAGS)
def test_tag_is_asked_for_once(memory: Path, tag: str) -> None:
    """The answer is remembered."""
    registry = Registry("2.0.0", "3.0.0")

    found = [image.version(tag, PACKAGE, memory, registry) for _ in range(3)]

    assert found == ["2.0.0"] * 3
    assert registry.asked == [f"{PACKAGE}@{tag}"]
    assert [path.name for path in memory.parent.iterdir()] == [memory.name]


def test_tags_and_packages_are_remembered_apart(memory: Path) -> None:
    """One answer does not push out another."""
    registry = Registry("1.0.0", "2.0.0", "3.0.0")
    wanted = [("latest", PACKAGE), ("stable", PACKAGE), ("latest", "other")] * 2

    found = [image.version(tag, package, memory, registry) for tag, package in wanted]

    assert found == ["1.0.0", "2.0.0", "3.0.0"] * 2


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [(0, "1.0.0"), (86_000, "1.0.0"), (86_500, "2.0.0"), (-3600, "2.0.0")],
    ids=["now", "today", "yesterday", "clock-set-back"],
)
def test_answer_lasts_a_day(memory: Path, age_s: float, expected: str) -> None:
    """One from the future says nothing about its age."""
    remember(memory, "1.0.0", age_s)

    assert image.version("latest", PACKAGE, memory, Registry("2.0.0")) == expected


def test_failed_look_up_uses_the_remembered_answer(
    memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However old; offline is no reason to stop."""
    remember(memory, "1.0.0", 1e7)

    with caplog.at_level(logging.INFO, "nddt"):
        assert image.version("latest", PACKAGE, memory, Registry()) == "1.0.0"

    assert "using @anthropic-ai/claude-code@latest 1.0.0" in caplog.text


def test_failed_look_up_without_memory(memory: Path) -> None:
    """Is the provider's error."""
    with pytest.raises(NddtError, match="the registry does not answer"):
        image.version("latest", PACKAGE, memory, Registry())


BROKEN: Iterable[tuple[str, bytes]] = [
    ("empty", b""),
    ("no-json", b"{"),
    ("no-utf-8", b"\xff"),
    ("list", b"[1]"),
    ("text-as-answer", b'{"%s@latest": "1.0.0"}' % PACKAGE.encode()),
    ("no-time", b'{"%s@latest": {"version": "1.0.0"}}' % PACKAGE.encode()),
    ("no-number", b'{"%s@latest": {"version": "1", "asked": "?"}}' % PACKAGE.encode()),
    ("no-version", b'{"%s@latest": {"asked": %d}}' % (PACKAGE.encode(), time.time())),
]


@pytest.mark.parametrize("content", [pytest.param(text, id=name) for name, text in BROKEN])
def test_broken_memory_is_made_anew(memory: Path, content: bytes) -> None:
    """It holds nothing that cannot be asked for again."""
    memory.parent.mkdir()
    memory.write_bytes(content)
    registry = Registry("2.0.0")

    found = [image.version("latest", PACKAGE, memory, registry) for _ in range(2)]

    assert found == ["2.0.0"] * 2


def test_memory_that_cannot_be_written(
    runtime: Path, without_privilege: Callable[[], AbstractContextManager[None]]
) -> None:
    """A read-only home is no reason to stop."""
    runtime.chmod(0o555)

    with without_privilege():
        found = image.version("latest", PACKAGE, runtime / "nddt" / "v.json", Registry("2.0.0"))

    assert found == "2.0.0"


def test_writers_at_once(memory: Path) -> None:
    """Leave a whole file, and nothing beside it."""
    together = threading.Barrier(8)
    found: list[str] = []

    def work(number: int) -> None:
        def look_up(_: str) -> str:
            together.wait(10)
            return f"{number}.0.0"

        found.append(image.version("latest", PACKAGE, memory, look_up))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == [f"{number}.0.0" for number in range(8)]
    assert json.loads(memory.read_text())[f"{PACKAGE}@latest"]["version"] in found
    assert [path.name for path in memory.parent.iterdir()] == [memory.name]
