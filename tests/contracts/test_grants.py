"""What a kept sandbox has, against what is allowed now."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import plan
from scripts.contracts import grants
from scripts.contracts.grants import Grants
from scripts.contracts.sandbox import Specification, made
from scripts.errors import UnavailableError
from scripts.run import sandboxes
from scripts.run.work import Work

if TYPE_CHECKING:
    from tests.conftest import Project

A, B = ("/a", "/in/a"), ("/b", "/in/b")
PLAIN = Grants(
    directory="/here",
    is_copy=False,
    is_readonly=False,
    mounts=((*A, False), (*B, True)),
    docker="isolated",
    has_root=True,
    has_network=True,
    has_writable_system=True,
    pids=100,
    memory_gib=4,
    cpus=2,
)
LESS = (
    ({"directory": ""}, "NDDT_WORKSPACE"),
    ({"is_copy": True}, "NDDT_WORKSPACE"),
    ({"directory": "/there"}, grants.DIRECTORY),
    ({"is_readonly": True}, "NDDT_WORKSPACE_READONLY"),
    ({"mounts": ()}, "NDDT_MOUNTS"),
    ({"mounts": ((*A, False),)}, "NDDT_MOUNTS"),
    ({"mounts": ((*A, True), (*B, True))}, "NDDT_MOUNTS"),
    ({"mounts": (("/c", "/in/a", False), (*B, True))}, "NDDT_MOUNTS"),
    ({"docker": ""}, "NDDT_DOCKER_FORWARD"),
    ({"has_root": False}, "NDDT_SUDO"),
    ({"has_network": False}, "NDDT_NETWORK"),
    ({"has_writable_system": False}, "NDDT_READONLY_ROOT"),
    ({"pids": 99}, "NDDT_PIDS"),
    ({"memory_gib": 1}, "NDDT_MEMORY"),
    ({"cpus": 1}, "NDDT_CPUS"),
)
MORE: tuple[Any, ...] = (
    *({}, {"mounts": ((*A, False), (*B, False))}, {"mounts": (*PLAIN.mounts, ("/c", "/c", False))}),
    *({"docker": "host"}, {"pids": 0}, {"pids": 101}, {"memory_gib": 0}, {"cpus": 3}),
)


@pytest.mark.parametrize(("changed", "name"), LESS)
def test_what_is_taken_away(changed: dict[str, Any], name: str) -> None:
    """Each property is noticed by itself; the other way round it is a wish for more."""
    less = replace(PLAIN, **changed)

    assert list(PLAIN.beyond(less)) == [name]
    if name not in {grants.DIRECTORY, "NDDT_MOUNTS"}:
        assert list(less.beyond(PLAIN)) == []


@pytest.mark.parametrize("changed", MORE)
def test_what_is_allowed_beside(changed: dict[str, Any]) -> None:
    """No sandbox is too small."""
    assert list(PLAIN.beyond(replace(PLAIN, **changed))) == []


def test_a_copy() -> None:
    """Of no directory's is another one's; it is no directory of this machine, to change or not."""
    copy = replace(PLAIN, is_copy=True)

    assert list(copy.beyond(replace(PLAIN, is_readonly=True))) == []
    assert list(copy.beyond(replace(PLAIN, directory=""))) == [grants.DIRECTORY]


def test_no_limit_is_more_than_any() -> None:
    """0 means none."""
    unlimited = replace(PLAIN, pids=0, memory_gib=0, cpus=0)

    assert list(unlimited.beyond(PLAIN)) == ["NDDT_PIDS", "NDDT_MEMORY", "NDDT_CPUS"]
    assert list(replace(unlimited, directory="").beyond(replace(unlimited, directory="/x"))) == []


@given(st.text(), st.lists(st.tuples(st.text(), st.text(), st.booleans())).map(tuple))
def test_labels(directory: str, mounts: tuple[tuple[str, str, bool], ...]) -> None:
    """Are read as they were written, whatever a path consists of."""
    made = replace(PLAIN, directory=directory, mounts=mounts, given=("NDDT_MOUNTS",))

    assert "\n" not in made.text()
    assert grants.read_grants(made.text()) == made


@pytest.mark.parametrize(
    "label", ["", "{}", "[]", "1", "x", PLAIN.text()[:-1], PLAIN.text().replace("pids", "pid")]
)
def test_labels_of_others(label: str) -> None:
    """Tell nothing."""
    assert grants.read_grants(label) is None


# -- a sandbox and settings -------------------------------------------------------------------


def work(project: Project, environ: dict[str, str], **options: str) -> Work:
    """Have these settings."""
    there = replace(project, environ={**project.environ, **environ})
    return Work(provider=project.provider, settings=there.load_for_provider(**options))


def check(project: Project, made_by: Work, now: Work) -> None:
    """Let a sandbox that was made by one be used by another as it is."""
    found = made(plan_of(project, made_by), "image", "1")
    sandboxes.check_allowed(now, plan_of(project, now), found.grants)


def plan_of(project: Project, one: Work) -> Specification:
    """Describe the sandbox."""
    user = project.provider.user(one.settings)
    return plan.specification(one.settings, user, persistent=True, pid=1)


def test_whose_word_counts(project: Project) -> None:
    """What is said always; defaults where the directory's own sandbox was not made by options."""
    plain, sudo = work(project, {}), work(project, {"NDDT_SUDO": "true"})
    shown = work(project, {}, mounts=f"{project.home}:/x")
    opened = work(project, {}, profile="open")
    by_name = work(project, {}, name="by-name")
    refused = pytest.raises(UnavailableError, match="has more than is allowed now: NDDT_")

    check(project, shown, plain)
    check(project, opened, plain)
    check(project, sudo, by_name)
    check(project, shown, by_name)
    with refused as caught:
        check(project, sudo, plain)
    assert caught.value.exit_code == 69
    assert "NDDT_SUDO (default)" in caught.value.message
    for made_by, now in (
        (shown, {"NDDT_MOUNTS": f"{project.home}:/x:ro"}),
        (opened, {"NDDT_PIDS": "100"}),
        (plain, {"NDDT_PROFILE": "airgap"}),
    ):
        for options in ({}, {"name": "by-name"}):
            with refused:
                check(project, made_by, work(project, now, **options))


def test_a_sandbox_that_does_not_tell(project: Project) -> None:
    """Is not used, except to bring back what is in it."""
    now = work(project, {})

    with pytest.raises(UnavailableError, match="another version of nddt made it"):
        sandboxes.check_allowed(now, plan_of(project, now), None)

    sandboxes.check_allowed(replace(now, is_last=True), plan_of(project, now), None)
