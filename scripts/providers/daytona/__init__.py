"""Sandboxes in Daytona's cloud, or on a server of one's own that runs Daytona."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scripts.errors import ConfigError
from scripts.machine import files, process, search_path
from scripts.naming import said
from scripts.providers.daytona.actions import ACTIONS as ACTIONS
from scripts.providers.daytona.settings import HOSTED, SIZE, DaytonaSettings
from scripts.settings.host import CA_BUNDLE, Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from scripts.contracts.image import Recipe
    from scripts.contracts.sandbox import Link, Sandbox, Specification
    from scripts.providers.daytona.api import Api
    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")

NAME = "daytona"
TITLE = "Daytona"
SETTINGS = DaytonaSettings
USUAL = {"NDDT_CPUS": SIZE[0], "NDDT_MEMORY": SIZE[1]}
VARIABLES = ("DAYTONA_*",)
LISTENERS = ("daytona",)
STARTS_SLOWLY = True
ANSWERS_SLOWLY = True
FALLS_SILENT = True
BREAKS = True
HAS_ROUTES = True


def is_set_up(settings: Settings) -> bool:
    """Tell whether there is a key of an account."""
    return bool(settings.of(DaytonaSettings).api_key)


def posture(settings: Settings) -> tuple[tuple[str, str, str], ...]:  # noqa: ARG001
    """Have none that is its own."""
    return ()


def idle_s(settings: Settings) -> int:
    """Tell what the user has set."""
    return settings.of(DaytonaSettings).idle_minutes * 60


def workspace(settings: Settings) -> str:  # noqa: ARG001  (the protocol's)
    """Return a copy: the cloud cannot see this machine's files."""
    return "sync"


def user(settings: Settings) -> tuple[int, int]:  # noqa: ARG001  (the protocol's)
    """Return the same for everybody: an organization shares snapshots."""
    return (1000, 1000)


def network(settings: Settings, found: Host) -> Host:
    """Return nothing of this machine's network to a sandbox in the cloud."""
    if settings.of(DaytonaSettings).api_url != HOSTED:
        return found
    return Host(ca_certs="", proxies={}, apt_mirror="", npm_registry="", pip_index_url="")


def _size(settings: Settings) -> tuple[int, int, int]:
    cpu, memory, disk = SIZE
    chosen = settings.of(DaytonaSettings).disk_gib
    return settings.cpus or cpu, settings.memory_gib or memory, chosen or disk


def image_name(settings: Settings, recipe: Recipe, version: str) -> str:
    """Name `nddt-<agent>-<version>-<hash>`: sizes belong to a snapshot, too."""
    if chosen := settings.of(DaytonaSettings).snapshot:
        return chosen
    return f"nddt-{recipe.tag(version, map(str, _size(settings)))}"


def check_mount(settings: Settings) -> None:
    """Refuse: the cloud cannot see this machine's files."""
    if settings.workspace != "mount":
        problem = f"NDDT_MOUNTS ({settings.sources['NDDT_MOUNTS']}) needs Docker on this machine"
        raise ConfigError(problem, f"take it away, or copy files with: {said('cp')}")
    raise ConfigError(
        f"Daytona cannot see the files of this machine ({settings.sources['NDDT_WORKSPACE']} "
        "says NDDT_WORKSPACE=mount)",
        "set NDDT_WORKSPACE=sync or none",
    )


def check_limits(settings: Settings) -> None:
    """Refuse what is a container's, and what cannot be behind the wall of `wall.py`."""
    for name, value in (
        ("NDDT_PIDS", settings.pids),
        ("NDDT_READONLY_ROOT", settings.readonly_root),
    ):
        # What a profile wants counts where it can be had.
        is_wanted = not settings.sources[name].startswith(("default", "profile"))
        if is_wanted and value:
            problem = f"{name}={str(value).lower()} ({settings.sources[name]}) needs Docker"
            raise ConfigError(f"{problem}, Daytona has no such limit", "take it away")
    for name, chosen in (
        ("NDDT_SUDO", str(settings.sudo).lower() if settings.sudo else ""),
        ("NDDT_DOCKER_FORWARD", settings.docker_forward),
    ):
        if chosen and settings.network != "open":
            raise ConfigError(
                f"{name}={chosen} ({settings.sources[name]}) needs more than one user, which a "
                f"Daytona sandbox without a network has not (NDDT_NETWORK={settings.network})",
                f"take {name} away, or set NDDT_NETWORK=open",
            )


def docker_risk(settings: Settings) -> str:
    """Refuse the engine of this machine, which the cloud cannot reach; else nothing is at risk."""
    if settings.docker_forward == "host":
        problem = f"NDDT_DOCKER_FORWARD=host ({settings.sources['NDDT_DOCKER_FORWARD']}) needs "
        raise ConfigError(f"{problem}Docker on this machine", "set NDDT_DOCKER_FORWARD=isolated")
    return ""


def disks(settings: Settings) -> tuple[Path, ...]:  # noqa: ARG001  (the protocol's)
    """Return none: they are not on this machine."""
    return ()


def _api(settings: Settings) -> Api:
    from scripts.providers.daytona.api import Api  # noqa: PLC0415  (what a warm run does without)

    return Api(settings)


def prepare(settings: Settings, *, yes: bool) -> None:
    """Make sure that OpenSSH is here."""
    from scripts.machine import engine  # noqa: PLC0415

    environ = settings.process_environment
    engine.ensure_installed(("ssh", "ssh-keygen"), yes=yes, environ=environ)


# -- snapshots ------------------------------------------------------------------------------


def find_image(settings: Settings, name: str) -> bool:
    """Look a snapshot up, waiting for one that is being built; False if there is none."""
    from scripts.providers.daytona import snapshots  # noqa: PLC0415

    api = _api(settings)
    with api.explained("write:snapshots"):
        found = snapshots.wait_until_usable(api, name)
    if not found and settings.of(DaytonaSettings).snapshot:
        raise ConfigError(f"there is no snapshot {name}", "correct NDDT_DAYTONA_SNAPSHOT")
    return found


def build(settings: Settings, recipe: Recipe, version: str, *, yes: bool) -> None:  # noqa: ARG001
    """Have Daytona build a snapshot from the Dockerfile."""
    from scripts.providers.daytona import snapshots  # noqa: PLC0415

    api = _api(settings)
    name = image_name(settings, recipe, version)
    with api.explained("write:snapshots"):
        snapshots.build_snapshot(api, name, recipe, version, _size(settings))


def look_up(
    settings: Settings, recipe: Recipe, package: str, build_tools: Callable[[], None]
) -> str:
    """Ask npm, this machine's or else one in a sandbox that has only the tools."""
    from scripts.providers.daytona import questions  # noqa: PLC0415

    words = ("npm", "view", package, "version")
    if search_path.find_program("npm"):
        done = process.capture(words, env=settings.process_environment, timeout_s=60)
        if done.ok and done.stdout.strip():
            return done.stdout.split()[-1].strip("'")
    build_tools()
    variables = {"NODE_EXTRA_CA_CERTS": CA_BUNDLE, **recipe.proxies}
    return questions.version(settings, image_name(settings, recipe, ""), words, variables)


def ask(settings: Settings, image: str, words: Sequence[str]) -> str:
    """Run it in a sandbox of its own."""
    from scripts.providers.daytona import questions  # noqa: PLC0415

    return questions.answer(settings, image, words)


def prune_images(settings: Settings, owner: str, keep: int) -> tuple[str, ...]:  # noqa: ARG001
    """Remove old snapshots of nddt's that no sandbox is made from."""
    from scripts.providers.daytona import snapshots  # noqa: PLC0415

    api = _api(settings)
    used = {one.image for one in sandboxes(settings)}
    with api.explained("delete:snapshots"):
        return snapshots.prune(api, used, keep)


# -- sandboxes ------------------------------------------------------------------------------


def find(settings: Settings, name: str) -> Sandbox | None:
    """Look a sandbox up by its name."""
    from scripts.providers.daytona import inventory  # noqa: PLC0415

    api = _api(settings)
    with api.explained():
        return inventory.ours(api, name)


def sandboxes(settings: Settings) -> tuple[Sandbox, ...]:
    """List all sandboxes of the organization that carry our label."""
    from scripts.providers.daytona import inventory  # noqa: PLC0415

    api = _api(settings)
    with api.explained():
        return inventory.every(api)


def create(settings: Settings, want: Specification, image: str) -> Sandbox:
    """Make a sandbox that stays."""
    from scripts.providers.daytona import creation  # noqa: PLC0415

    api = _api(settings)
    with creation.explained_with_room(api):
        return creation.create_running(api, want, image)


def start(settings: Settings, sandbox: Sandbox) -> None:
    """Start a sandbox, whatever it is doing now."""
    from scripts.providers.daytona import inventory  # noqa: PLC0415

    api = _api(settings)
    with api.explained("write:sandboxes"):
        inventory.start_sandbox(api, sandbox)


def stop(settings: Settings, sandbox: Sandbox) -> None:
    """Stop a sandbox; it keeps its disk."""
    from scripts.providers.daytona import inventory  # noqa: PLC0415

    api = _api(settings)
    with api.explained("write:sandboxes"):
        inventory.stop_sandbox(api, sandbox)


def remove(settings: Settings, sandbox: Sandbox) -> None:
    """Delete a sandbox, and see that it is gone."""
    from scripts.providers.daytona import inventory  # noqa: PLC0415

    api = _api(settings)
    with api.explained("delete:sandboxes"):
        inventory.delete_sandbox(api, sandbox)


# -- the way in -----------------------------------------------------------------------------


def pipe_environment(settings: Settings) -> Mapping[str, str]:  # noqa: ARG001
    """Return nothing: ssh has a configuration file."""
    return {}


def _access(api: Api, sandbox: Sandbox, link: Link) -> tuple[str, ...]:
    from scripts.providers.daytona import access  # noqa: PLC0415

    log.info("Creating Daytona API client...")
    ask, valid = api.sandboxes.create_ssh_access, access.VALID_MINUTES
    answer = api.call("open a sandbox", ask, sandbox.id, expires_in_minutes=valid)
    new = access.Access.read(answer)
    new.store(link.directory)
    log.info("Connecting via SSH...")
    return new.pipe(link, api.settings.process_environment)


@contextmanager
def ephemeral(
    settings: Settings, want: Specification, image: str, link: Link
) -> Iterator[tuple[str, ...]]:
    """Make a sandbox, give the way into it, and delete it."""
    from scripts.providers.daytona import creation  # noqa: PLC0415

    api = _api(settings)
    with creation.lasting_for(api, want, image) as made:
        files.write(link.id_file, made.id)
        log.info("Sandbox is ready!")
        with api.explained("write:sandboxes"):
            way = _access(api, made, link)
        yield way


def known_pipe(settings: Settings, name: str, link: Link) -> tuple[str, ...] | None:  # noqa: ARG001
    """Find the way that the last token still opens."""
    from scripts.providers.daytona import access  # noqa: PLC0415

    known = access.Access.load(link.directory)
    if known is None:
        return None
    log.info("Connecting via SSH...")
    return known.pipe(link, settings.process_environment)


def pipe(settings: Settings, sandbox: Sandbox, link: Link) -> tuple[str, ...]:
    """Get a new token; it takes the place of all older ones of the sandbox."""
    api = _api(settings)
    with api.explained("write:sandboxes"):
        return _access(api, sandbox, link)


def explain(errors: str, link: Link) -> None:  # noqa: ARG001
    """Look at what ssh has printed."""
    from scripts.providers.daytona import access  # noqa: PLC0415

    access.explain(errors)
