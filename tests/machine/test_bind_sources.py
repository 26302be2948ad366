"""Sources of bind mounts: who could exchange them, and what is not started."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.errors import CannotCreateError
from scripts.machine import bind_sources

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Bind:
    """What is shown."""

    source: Path
    readonly: bool = False


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A directory with `project/data`, `other`, and links between them."""
    for name in ("project/data/deep", "other/there", "links"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "links/project").symlink_to("../project")
    (tmp_path / "links/absolute").symlink_to(tmp_path / "project/data/deep")
    (tmp_path / "project/out").symlink_to(tmp_path / "other/there")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        *(("project/data", True), ("project/data/deep", True), ("project/missing", True)),
        *(("project/out", True), ("links/project/data", True), ("links/absolute", True)),
        *(("links/project/out", True), ("links/project/out/..", True)),
        *(("project", False), ("other/there", False), ("links/project", False)),
        *(("project-2", False), ("", False), ("other/../links", False)),
    ],
)
def test_where_a_way_leads_through(top: Path, path: str, *, expected: bool) -> None:
    """Every name on the way counts, those of links too, but not the end itself."""
    through = bind_sources.way_through(top / path, (top / "project",))

    assert through == (top / "project" if expected else None)


def test_a_directory_by_another_name(top: Path) -> None:
    """Is the same one."""
    assert bind_sources.way_through(top / "project/data", (top / "links/project",))


def test_a_loop_of_links(top: Path) -> None:
    """Ends."""
    (top / "loop").symlink_to("loop")

    assert bind_sources.way_through(top / "loop/x", (top / "other",)) is None
    with pytest.raises(CannotCreateError, match="Too many levels of symbolic links"):
        bind_sources.check_sources((Bind(top / "loop/x"),), "")


def test_what_is_started(top: Path) -> None:
    """Directories beside each other, one twice, and what is in one that cannot be changed."""
    project, other = top / "project", top / "other"

    bind_sources.check_sources((Bind(project), Bind(other), Bind(project, readonly=True)), "")
    bind_sources.check_sources((Bind(project, readonly=True), Bind(project / "data")), "")
    bind_sources.check_sources((), "")


@pytest.mark.parametrize("readonly", [True, False])
def test_what_could_be_exchanged(top: Path, *, readonly: bool) -> None:
    """What is in a directory that the same sandbox can change, and be it to read."""
    shown = Bind(top / "project/data", readonly=readonly)

    with pytest.raises(CannotCreateError, match=f"can change {top}/project") as caught:
        bind_sources.check_sources((shown, Bind(top / "project")), "do that")

    assert (caught.value.exit_code, caught.value.next_step) == (73, "do that")


@pytest.mark.parametrize("name", ["links/project", "links/project/data", "missing", "other/../x"])
def test_what_leads_elsewhere(top: Path, name: str) -> None:
    """A link at any part of the way, or nothing."""
    with pytest.raises(CannotCreateError, match=r"leads to|cannot be used: No such file"):
        bind_sources.check_sources((Bind(top / name),), "")


def test_what_has_become_a_link(top: Path) -> None:
    """The directory above it, too."""
    shown = (Bind(top / "project/data"),)
    bind_sources.check_sources(shown, "")
    (top / "project").rename(top / "moved")
    (top / "project").symlink_to("moved")

    with pytest.raises(CannotCreateError, match=f"leads to {top}/moved/data now"):
        bind_sources.check_sources(shown, "")


def test_sandboxes_that_contain_each_other(top: Path) -> None:
    """Are named once each, whichever of them starts; those beside each other are not."""
    project, data, other = top / "project", top / "project/data", top / "other"
    others = {
        "around": (Bind(project),),
        "in": (Bind(other), Bind(data / "deep", readonly=True)),
        "same": (Bind(data), Bind(other)),
        "reads": (Bind(project, readonly=True),),
        "none": (),
    }

    found = list(bind_sources.entangled((Bind(data),), others))

    assert found == [("around", data, project), ("in", data / "deep", data)]


def test_the_engine_starts_nothing_without_it() -> None:
    """Each function that starts a container with something of this machine looks first."""
    folder = (ROOT / "scripts/providers/docker").glob("*.py")
    tree = ast.parse("\n".join(file.read_text(encoding="utf-8") for file in folder))
    starting = set()
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        text = ast.unparse(function)
        shows = "run_arguments(" in text and function.name != "run_arguments"
        if shows or "container.start(" in text or ".restart(" in text or "'start'" in text:
            starting.add(function.name)
            assert "bind_sources.check_sources(" in text, function.name

    assert starting == {"_run", "start"}
    assert ast.unparse(tree).count("'type=bind'") == 1
