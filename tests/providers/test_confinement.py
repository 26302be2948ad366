"""What a sandbox is not given; that it holds is tried in test_contract_hardening.py."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from scripts import plan
from scripts.errors import ConfigError
from scripts.providers import daytona
from scripts.providers.docker import arguments

if TYPE_CHECKING:
    from tests.conftest import Project

USER = (1000, 1000)
NEVER = {"SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYS_RAWIO", "MKNOD", "NET_RAW", "NET_ADMIN"}


def words(project: Project, user: tuple[int, int] = USER, **environ: str) -> tuple[str, ...]:
    """Give the arguments that confine a sandbox with these settings."""
    project.environ.update({f"NDDT_{name}": value for name, value in environ.items()})
    want = plan.specification(project.load_for_provider(), user, persistent=True, pid=os.getpid())
    return arguments.confinement(want)


def test_a_user_has_nothing(project: Project) -> None:
    """No capability, no way to one, and a limit to processes."""
    expected = ("--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=4096")

    assert words(project) == expected


@pytest.mark.parametrize("docker_forward", ["", "isolated", "host"])
def test_root_has_what_it_needs(project: Project, docker_forward: str) -> None:
    """Nothing of that reaches this machine's devices, network or other processes."""
    found = words(project, (0, 0), DOCKER_FORWARD=docker_forward)

    kept = {one.partition("=")[2] for one in found if one.startswith("--cap-add")}
    assert found[0] == "--cap-drop=ALL"
    assert kept == set(arguments.ROOT_CAPABILITIES) | (
        {"SETFCAP"} if docker_forward == "isolated" else set()
    )
    assert not kept & NEVER
    privileged = "--security-opt=no-new-privileges" not in found
    assert privileged == (docker_forward == "isolated")


def test_sudo_gives_a_user_what_root_has(project: Project) -> None:
    """And nothing to root, who has it already."""
    as_root = words(project, (0, 0))

    assert words(project, (0, 0), SUDO="true") == as_root
    assert set(words(project, SUDO="true")) == set(as_root) - {"--security-opt=no-new-privileges"}


def test_limits(project: Project) -> None:
    """Memory is one with swap; 0 is no limit."""
    found = words(project, PIDS="0", MEMORY="3", CPUS="2")

    assert found[2:] == ("--cpus=2", "--memory=3g", "--memory-swap=3g")


@pytest.mark.parametrize(("workspace", "places"), [("mount", 1), ("sync", 2), ("none", 2)])
def test_a_readonly_root_has_places_to_write(project: Project, workspace: str, places: int) -> None:
    """The directory itself is one where it is mounted."""
    found = words(project, READONLY_ROOT="true", WORKSPACE=workspace)

    assert "--read-only" in found
    assert found.count("--mount") == places


@pytest.mark.parametrize(
    ("name", "value"), [("NDDT_SUDO", "true"), ("NDDT_DOCKER_FORWARD", "isolated")]
)
@pytest.mark.parametrize("network", ["none", "allowlist"])
def test_daytona_without_a_network_has_one_user(
    project: Project, name: str, value: str, network: str
) -> None:
    """So what needs more is refused with it, and only with it."""
    project.environ[name] = value
    daytona.check_limits(project.load())

    project.environ["NDDT_NETWORK"] = network
    with pytest.raises(ConfigError, match=f"{name}={value} .*NDDT_NETWORK={network}"):
        daytona.check_limits(project.load())


@pytest.mark.parametrize(("name", "value"), [("NDDT_PIDS", "9"), ("NDDT_READONLY_ROOT", "true")])
def test_what_daytona_cannot_set(project: Project, name: str, value: str) -> None:
    """Is refused, with the setting and where it comes from."""
    daytona.check_limits(project.load())
    project.environ[name] = value

    with pytest.raises(ConfigError, match=rf"{name}={value} \(environment\) needs Docker"):
        daytona.check_limits(project.load())
