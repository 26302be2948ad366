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
from hypothesis import example, given
from hypothesis import strategies as st

from scripts import agents
from scripts.contracts import image
from scripts.errors import CannotCreateError, NddtError
from scripts.providers import docker
from scripts.settings import host

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

    assert re.fullmatch(r"claude-2\.1\.330-[0-9a-f]{10}", made.tag("2.1.330"))
    assert re.fullmatch(r"tools-22-[0-9a-f]{10}", made.tag(""))
    assert made.tag("")[-10:] == made.tag("2.1.330")[-10:]


def test_docker_inside_is_in_images_of_its_own(project: Project) -> None:
    """All others are what they are without it."""
    plain = recipe(project)
    made = [recipe(project, NDDT_DOCKER_FORWARD=mode) for mode in ("isolated", "host")]

    assert "DOCKER_FORWARD" not in plain.text("1.0.0")
    assert len({one.tag("1.0.0") for one in (plain, *made)}) == 3
    assert 'ARG DOCKER_FORWARD="isolated"\n' in made[0].text("")
    assert made[0].text("1.0.0").startswith(plain.text("").rstrip())


def test_docker_names(project: Project) -> None:
    """Are tags of one repository."""
    made = recipe(project)
    name = docker.image_name(project.load(), made, "2.1.330")

    assert name == f"nddt:{made.tag('2.1.330')}"
    assert docker.image_name(project.load(), made, "") == f"nddt:{made.tag('')}"


def test_unchanged_input_has_the_same_name(project: Project) -> None:
    """So it is never built again."""
    assert recipe(project).tag("1.0.0") == recipe(project).tag("1.0.0")
    assert recipe(project).tag("", ["a"]) == recipe(project).tag("", ["a"])


@pytest.mark.parametrize("version", ["", "1.0.0"])
def test_what_a_provider_adds_changes_the_name(project: Project, version: str) -> None:
    """Each part of it, with its borders."""
    made = recipe(project)
    more: tuple[tuple[str, ...], ...] = ((), ("",), ("ab",), ("a", "b"), ("b", "a"), ("ab", ""))

    assert len({made.tag(version, one) for one in more}) == len(more)


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

    assert before.tag("") != after.tag("")
    assert before.tag("1.0.0") != after.tag("1.0.0")


def test_version_changes_only_the_agents_name(project: Project) -> None:
    """The tools below stay."""
    made = recipe(project)

    assert made.tag("1.0.0") != made.tag("1.0.1")
    assert made.text("1.0.0").startswith(made.text(""))
    assert made.text("1.0.1").startswith(made.text(""))
    assert arguments(made.text("1.0.0")) == arguments(made.text("")) | {
        "AGENT_PACKAGE": PACKAGE,
        "AGENT_VERSION": "1.0.0",
        "AGENT_PROGRAM": "claude",
        "AGENT_CONVERSATIONS": ".claude/projects/-workspace",
    }


def test_proxies_do_not_change_the_name(project: Project) -> None:
    """They are how the build reaches the world, not what comes of it."""
    proxies = {"HTTP_PROXY": "http://user:secret@proxy"}
    made = recipe(project, replace(NETWORK, proxies=proxies))

    assert made.tag("") == recipe(project).tag("")
    assert made.tag("1.0.0") == recipe(project).tag("1.0.0")
    assert made.proxies == proxies
    assert "secret" not in repr(made)
    assert "HTTP_PROXY" not in made.arguments
    assert "secret" not in made.text("1.0.0")


def test_dockerfile_declares_each_argument(project: Project) -> None:
    """Docker ignores others with a warning at most."""
    made = recipe(project)
    declared = set(re.findall(r"^ARG (\w+)", made.dockerfile, re.MULTILINE))

    agents = {"AGENT_PACKAGE", "AGENT_VERSION", "AGENT_PROGRAM", "AGENT_CONVERSATIONS"}
    assert declared == {*made.arguments, *agents}


# -- the text -------------------------------------------------------------------------------


def arguments(text: str) -> dict[str, str]:
    """Read the values of a Dockerfile's arguments as a builder does; all of them are quoted."""
    found = {}
    for name, quoted in re.findall(r'^ARG (\w+)="(.*)"$', text, re.MULTILINE):
        assert not re.search(r'(?<!\\)(\\\\)*["$]', quoted), name
        found[name] = re.sub(r"\\(.)", r"\1", quoted)
    assert len(re.findall("^ARG ", text, re.MULTILINE)) >= len(found)
    return found


def test_text_has_all_arguments(project: Project) -> None:
    """And differs from the Dockerfile in nothing else."""
    made = recipe(project, replace(NETWORK, ca_certs="PEM", npm_registry="https://npm.example"))
    lines = zip(made.text("1.0.0").splitlines(), made.dockerfile.splitlines(), strict=True)
    assert all(new == old for new, old in lines if not old.startswith("ARG "))
    assert arguments(made.text("1.0.0")) == {
        **made.arguments,
        "AGENT_PACKAGE": PACKAGE,
        "AGENT_VERSION": "1.0.0",
        "AGENT_PROGRAM": "claude",
        "AGENT_CONVERSATIONS": ".claude/projects/-workspace",
    }


def test_text_of_the_tools(project: Project) -> None:
    """Is what comes before the agent's stage, byte by byte: builders cache by prefixes."""
    made = recipe(project)
    tools, agent = made.text(""), made.text("1.0.0")

    assert agent.startswith(tools + image.AGENT_STAGE)
    assert image.AGENT_STAGE not in tools
    assert "AGENT_" not in tools
    assert tools.endswith("\n")


@given(value=st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])))
@example(value='"; RUN id; "')
@example(value="$HOME ${HOME} `id` $(id)")
@example(value="\\")
@example(value="\\1 \\g<0>")
def test_any_value_survives_in_the_text(value: str) -> None:
    """Whatever it holds that a line of a Dockerfile can hold."""
    made = image.Recipe(
        dockerfile=f"ARG A=1\nFROM x AS tools\nARG A\nARG B\n{image.AGENT_STAGE}\nARG A\n",
        base="x",
        arguments={"A": value, "NODE_VERSION": "22"},
        proxies={},
        agent="claude",
        title="Claude Code",
        package=PACKAGE,
        program="claude",
        conversations=".claude/projects",
    )
    text = made.text("1.0.0")

    assert arguments(text) == {"A": value}
    assert len(text.split("\n")) == 7
    assert re.findall(r"^ARG (\w+)", text, re.MULTILINE) == ["A", "A", "B", "A"]
    assert text.startswith(made.text(""))


def test_text_without_a_stage_for_the_agent(project: Project) -> None:
    """Is a mistake of ours."""
    with pytest.raises(ValueError, match="FROM tools AS agent"):
        replace(recipe(project), dockerfile="FROM scratch\n").text("")


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


ODD = (
    *("https://evil.example/x.tgz", "git+ssh://evil.example/x", "npm:evil@1.0.0", "file:../x"),
    *(
        "1.0.0\nRUN evil",
        '1.0.0"',
        "1.0.0 --registry=x",
        "1.0.0-$(x)",
        "1.0",
        "latest",
        "",
        "v1.0.0",
    ),
    *("1.0.0-" + "a" * 99, "1" * 99 + ".0.0", "\u0661.0.0", "1.0.0 \x1b[2J"),
)


@pytest.mark.parametrize("answer", ODD)
def test_an_answer_that_is_no_version(memory: Path, answer: str) -> None:
    """A registry chooses a number, and neither another package nor a line of the Dockerfile."""
    with pytest.raises(NddtError, match="which is no version") as caught:
        image.version("latest", PACKAGE, memory, Registry(answer))
    assert str(caught.value).isprintable()
    assert not memory.exists()

    remember(memory, answer, 0)

    assert image.version("latest", PACKAGE, memory, Registry("2.0.0")) == "2.0.0"
    remember(memory, "1.0.0", 1e7)
    assert image.version("latest", PACKAGE, memory, Registry(answer)) == "1.0.0"


def test_a_version_before_another(memory: Path) -> None:
    """The tag `next` may name one."""
    assert image.version("next", PACKAGE, memory, Registry("2.1.0-beta.1")) == "2.1.0-beta.1"


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
