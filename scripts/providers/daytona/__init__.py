"""Sandboxes in Daytona's cloud, or on a server of one's own that runs Daytona."""

from __future__ import annotations

import logging
import re
import shlex
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scripts import naming, process, signals
from scripts.errors import (
    CannotCreateError,
    ConfigError,
    EndedBySignalError,
    NddtError,
    NoImageError,
    UnavailableError,
)
from scripts.host import CA_BUNDLE, Host
from scripts.providers import Sandbox, Specification
from scripts.providers.daytona import access
from scripts.providers.daytona.access import Access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from scripts.image import Recipe
    from scripts.providers import Link
    from scripts.providers.daytona.api import Api
    from scripts.settings import Settings

log = logging.getLogger("nddt")

NAME = "daytona"
TITLE = "Daytona"
IS_REMOTE = True
HOSTED = "https://app.daytona.io/api"
FINGERPRINT = f"{naming.LABEL}.fingerprint"
DEFAULT_SIZE = (2, 4, 8)
"""CPUs, memory and disk in GiB."""
EPHEMERAL_IDLE_MINUTES = 15
"""How long an ephemeral sandbox may outlive a client that was killed or cut off."""
CREATE_S = 60
"""How long the SDK may take to make a sandbox, before we look for ourselves."""
START_S = 180
REMOVE_S = 30
_MISSING = re.compile(r"Snapshot \S+ (not found|is (?!not ))")
"""What a sandbox is refused with whose snapshot is not there, is not ready, or sleeps."""
GONE = {"destroying", "destroyed"}
FAILED = {"error", "build_failed"}
STARTABLE = {"stopped", "archived"}


def workspace(settings: Settings) -> str:  # noqa: ARG001  (the protocol's)
    """Give a copy: the cloud cannot see this machine's files."""
    return "sync"


def user(settings: Settings) -> tuple[int, int]:  # noqa: ARG001  (the protocol's)
    """Give the same for everybody: an organization shares snapshots."""
    return (1000, 1000)


def network(settings: Settings, found: Host) -> Host:
    """Give nothing of this machine's network to a sandbox in the cloud."""
    if settings.daytona_api_url != HOSTED:
        return found
    return Host(ca_certs="", proxies={}, apt_mirror="", npm_registry="", pip_index_url="")


def _size(settings: Settings) -> tuple[int, int, int]:
    cpu, memory, disk = DEFAULT_SIZE
    return settings.cpus or cpu, settings.memory_gib or memory, settings.disk_gib or disk


def image_name(settings: Settings, recipe: Recipe, version: str) -> str:
    """Give `nddt-<agent>-<version>-<hash>`: sizes belong to a snapshot, too."""
    if settings.daytona_snapshot:
        return settings.daytona_snapshot
    return f"nddt-{recipe.tag(version, map(str, _size(settings)))}"


def check_mount(settings: Settings) -> None:
    """Refuse: the cloud cannot see this machine's files."""
    if settings.workspace != "mount":
        problem = f"NDDT_MOUNTS ({settings.sources['NDDT_MOUNTS']}) needs Docker on this machine"
        raise ConfigError(problem, "take it away, or copy files with: inv cp")
    raise ConfigError(
        f"Daytona cannot see the files of this machine ({settings.sources['NDDT_WORKSPACE']} "
        "says NDDT_WORKSPACE=mount)",
        "set NDDT_WORKSPACE=sync or none",
    )


def check_limits(settings: Settings) -> None:
    """Refuse what is a container's: the platform confines its sandboxes in its own way."""
    for name, value in (
        ("NDDT_PIDS", settings.pids),
        ("NDDT_READONLY_ROOT", settings.readonly_root),
    ):
        # What a profile wants counts where it can be had.
        is_wanted = not settings.sources[name].startswith(("default", "profile"))
        if is_wanted and value:
            problem = f"{name}={str(value).lower()} ({settings.sources[name]}) needs Docker"
            raise ConfigError(f"{problem}, Daytona has no such limit", "take it away")


def docker_risk(settings: Settings) -> str:
    """Refuse the engine of this machine, which the cloud cannot reach; else nothing is at risk."""
    if settings.docker_forward == "host":
        problem = f"NDDT_DOCKER_FORWARD=host ({settings.sources['NDDT_DOCKER_FORWARD']}) needs "
        raise ConfigError(f"{problem}Docker on this machine", "set NDDT_DOCKER_FORWARD=isolated")
    return ""


def disks(settings: Settings) -> tuple[Path, ...]:  # noqa: ARG001  (the protocol's)
    """Give none: they are not on this machine."""
    return ()


def _api(settings: Settings) -> Api:
    from scripts.providers.daytona.api import Api  # noqa: PLC0415  (what a warm run does without)

    return Api(settings)


def prepare(settings: Settings, *, yes: bool) -> None:
    """Make sure that OpenSSH is here."""
    from scripts import engine  # noqa: PLC0415

    environ = settings.process_environment
    engine.ensure_installed(("ssh", "ssh-keygen"), yes=yes, environ=environ)


# -- snapshots ------------------------------------------------------------------------------


def has_image(settings: Settings, name: str) -> bool:
    """Tell whether a snapshot can be used, waiting for one that is being built."""
    from scripts.providers.daytona import snapshots  # noqa: PLC0415

    api = _api(settings)
    with api.explained("write:snapshots"):
        found = snapshots.is_usable(api, name)
    if not found and settings.daytona_snapshot:
        raise ConfigError(f"there is no snapshot {name}", "correct NDDT_DAYTONA_SNAPSHOT")
    return found


def build(settings: Settings, recipe: Recipe, version: str, *, yes: bool) -> None:  # noqa: ARG001
    """Have Daytona build a snapshot from the Dockerfile."""
    from scripts.providers.daytona import snapshots  # noqa: PLC0415

    api = _api(settings)
    name = image_name(settings, recipe, version)
    with api.explained("write:snapshots"):
        snapshots.build(api, name, recipe.text(version), _size(settings))


def look_up(
    settings: Settings, recipe: Recipe, package: str, build_tools: Callable[[], None]
) -> str:
    """Ask npm, this machine's or else one in a sandbox that has only the tools."""
    words = ("npm", "view", package, "version")
    if process.find("npm"):
        done = process.capture(words, env=settings.process_environment, timeout_s=60)
        if done.ok and done.stdout.strip():
            return done.stdout.split()[-1].strip("'")
    build_tools()
    variables = {"NODE_EXTRA_CA_CERTS": CA_BUNDLE, **recipe.proxies}
    said = _asked(settings, image_name(settings, recipe, ""), words, variables)
    # Notices to the user are in it, too.
    versions = re.findall(r"^'?(\d+\.\d+\.\d+)'?$", said.result, re.MULTILINE)
    if said.exit_code != 0 or not versions:
        reason = (said.result.strip() or "it said nothing").splitlines()[-1]
        raise CannotCreateError(
            f"npm does not know {package}: {reason}", "check NDDT_CLAUDE_VERSION"
        )
    return str(versions[-1])


def ask(settings: Settings, image: str, words: Sequence[str]) -> str:
    """Run it in a sandbox of its own."""
    said = _asked(settings, image, words, {})
    if said.exit_code != 0:
        reason = (said.result.strip() or "it said nothing").splitlines()[-1]
        raise CannotCreateError(f"{image} did not answer: {reason}", "see --verbose")
    return str(said.result)


def _asked(
    settings: Settings, image: str, words: Sequence[str], variables: Mapping[str, str]
) -> Any:  # noqa: ANN401  (the SDK's)
    """Run a program in a new sandbox, which is removed."""
    now = int(time.time())
    labels = naming.labels(owner=settings.owner, workspace="", mode="ephemeral", created=now, pid=0)
    want = Specification(
        name=f"nddt-lookup-{now}-{time.monotonic_ns() % 100000}",
        persistent=False,
        workspace=None,
        user="nddt",
        labels=labels,
    )
    api = _api(settings)
    with _new(api, want, image) as made, api.explained():
        sandbox: Any = made.handle
        run = sandbox.process.exec
        doing = f"ask {words[0]}"
        return api.call(doing, run, shlex.join(words), env=dict(variables), timeout=60, within_s=70)


def prune_images(settings: Settings, owner: str, keep: int) -> tuple[str, ...]:  # noqa: ARG001
    """Remove old snapshots of nddt's that no sandbox is made from."""
    from scripts.providers.daytona import snapshots  # noqa: PLC0415

    api = _api(settings)
    used = {one.image for one in sandboxes(settings)}
    with api.explained("delete:snapshots"):
        return snapshots.prune(api, used, keep)


# -- sandboxes ------------------------------------------------------------------------------


def _state(found: Any) -> str:  # noqa: ANN401  (the SDK's Sandbox)
    return str(getattr(found.state, "value", found.state))


def _is_gone(found: Any) -> bool:  # noqa: ANN401
    desired = getattr(found, "desired_state", None)
    return _state(found) in GONE or str(getattr(desired, "value", desired)) == "destroyed"


def _sandbox(found: Any) -> Sandbox:  # noqa: ANN401
    labels: Mapping[str, str] = found.labels or {}
    state = _state(found)
    return Sandbox(
        name=found.name,
        state="running" if state == "started" else state,
        mode=labels.get(naming.LABEL, ""),
        image=found.snapshot or "",
        workspace=labels.get(f"{naming.LABEL}.workspace", ""),
        owner=labels.get(f"{naming.LABEL}.owner", ""),
        created=int(labels.get(f"{naming.LABEL}.created", "0")),
        pid=int(labels.get(f"{naming.LABEL}.pid", "0")),
        fingerprint=labels.get(FINGERPRINT, ""),
        is_synced=f"{naming.LABEL}.sync" in labels,
        is_offline=f"{naming.LABEL}.offline" in labels,
        handle=found,
    )


def _get(api: Api, name: str) -> Any:  # noqa: ANN401  (the SDK's Sandbox, or None)
    from scripts.providers.daytona.api import Refusal  # noqa: PLC0415

    try:
        found = api.call("look up a sandbox", api.client.get, name)
    except Refusal as error:
        if error.status == 404 and "Cannot " not in error.text:
            return None
        raise
    return None if _is_gone(found) else found


def find(settings: Settings, name: str) -> Sandbox | None:
    """Look a sandbox up by its name."""
    api = _api(settings)
    with api.explained():
        found = _get(api, name)
    if found is None:
        return None
    if naming.LABEL not in (found.labels or {}):
        raise CannotCreateError(
            f"the name {name} belongs to a sandbox that is not nddt's",
            "choose another with --name or NDDT_NAME",
        )
    return _sandbox(found)


def sandboxes(settings: Settings) -> tuple[Sandbox, ...]:
    """List all sandboxes of the organization that carry our label."""
    from daytona.common.sandbox import ListSandboxesQuery  # noqa: PLC0415

    api = _api(settings)

    def every() -> list[Any]:
        return list(api.client.list(ListSandboxesQuery(limit=100)))

    with api.explained():
        found = api.call("list sandboxes", every, within_s=90)
    ours = [_sandbox(one) for one in found if naming.LABEL in one.labels and not _is_gone(one)]
    return tuple(sorted(ours, key=lambda one: -one.created))


def _create(api: Api, want: Specification, image: str) -> Sandbox:
    """Make a sandbox, and never lose sight of one: whatever happens, its name is known."""
    from daytona import CreateSandboxFromSnapshotParams  # noqa: PLC0415

    from scripts.providers.daytona.api import Refusal  # noqa: PLC0415

    settings = api.settings
    hours = settings.delete_after_hours
    if want.persistent:
        lasting: dict[str, Any] = {"auto_stop_interval": settings.idle_minutes}
        lasting["auto_delete_interval"] = hours * 60 if hours else -1
    elif want.is_synced:  # if its client is killed, there is work in it
        lasting = {"auto_stop_interval": EPHEMERAL_IDLE_MINUTES}
        lasting["auto_delete_interval"] = hours * 60 if hours else -1
    else:
        lasting = {"ephemeral": True, "auto_stop_interval": EPHEMERAL_IDLE_MINUTES}
    parameters = CreateSandboxFromSnapshotParams(
        name=want.name,
        snapshot=image,
        labels={**want.labels, FINGERPRINT: want.fingerprint(image)},
        network_block_all=want.is_offline or None,
        **lasting,
    )
    try:
        made = api.call(
            "create a sandbox",
            api.client.create,
            parameters,
            timeout=0,
            within_s=CREATE_S,
            repeat=False,
        )
    except Refusal as error:
        if error.status == 400 and _MISSING.match(error.text):
            raise NoImageError(error.text, "build it: inv daytona.build-image") from error
        if error.kind == "offline":
            raise
        try:
            return _reconciled(api, want, error)
        except Refusal as unknown:
            if unknown is not error:  # else it has been looked for, and is not there
                _warn_of(want, unknown)
            raise
    except (KeyboardInterrupt, EndedBySignalError):
        with signals.ignored():
            _remove_unseen(api, want)
        raise
    wanted = settings.daytona_organization
    if wanted and made.organization_id != wanted:
        _remove(api, _sandbox(made))
        raise ConfigError(
            f"DAYTONA_API_KEY belongs to the organization {made.organization_id}",
            "correct DAYTONA_ORGANIZATION_ID, or use a key of that organization",
        )
    return _sandbox(made)


def _reconciled(api: Api, want: Specification, error: Any) -> Sandbox:  # noqa: ANN401  (a Refusal)
    """Find out what has become of a sandbox whose creation has failed, or seems to have."""
    deadline = time.monotonic() + START_S
    misses = 0
    while time.monotonic() < deadline:
        found = _get(api, want.name)
        if found is None:
            misses += 1
            if misses > (3 if error.is_unsure else 0):
                raise error
            time.sleep(0.5)
            continue
        made = _sandbox(found)
        if made.owner != api.settings.owner or made.pid != int(want.labels["nddt.pid"]):
            raise CannotCreateError(
                f"the name {want.name} belongs to a sandbox of {made.owner or 'somebody else'}",
                "choose another with --name or NDDT_NAME",
            )
        if made.state == "running":
            return made
        if made.state in FAILED:
            reason = " ".join(str(found.error_reason or error.text).split())[:300]
            _remove(api, made)
            raise CannotCreateError(f"the sandbox could not be started: {reason}", "try again")
        time.sleep(0.5)
    _remove_unseen(api, want)
    raise error


def _remove_unseen(api: Api, want: Specification) -> None:
    """Remove what may have been made, or say how it is removed."""
    from scripts.providers.daytona.api import Refusal  # noqa: PLC0415

    try:
        for _ in range(4):
            found = _get(api, want.name)
            if found is not None:
                _remove(api, _sandbox(found), within_s=20)
                return
            time.sleep(0.5)
    except (Refusal, NddtError) as error:
        _warn_of(want, error)


def _warn_of(want: Specification, error: Exception) -> None:
    """Tell of a sandbox that may exist and cannot be looked at."""
    log.warning(
        "sandbox %s may exist: %s — inv daytona.cleanup --name %s --yes removes it",
        want.name,
        error,
        want.name,
    )


@contextmanager
def _new(api: Api, want: Specification, image: str) -> Iterator[Sandbox]:
    """Have a sandbox until the block's end."""
    from scripts.providers.daytona.api import Refusal  # noqa: PLC0415

    with _explained_with_room(api):
        made = _create(api, want, image)
    try:
        yield made
    finally:
        with signals.ignored():
            try:
                _remove(api, made, within_s=20)
            except (Refusal, NddtError) as error:
                log.warning(
                    "sandbox %s could not be removed: %s — inv daytona.cleanup --name %s --yes "
                    "does it; unused, it goes by itself after %d minutes",
                    want.name,
                    error,
                    want.name,
                    EPHEMERAL_IDLE_MINUTES,
                )


@contextmanager
def _explained_with_room(api: Api) -> Iterator[None]:
    """Explain a refusal; if it is for want of room, tell which sandboxes could make some."""
    from scripts.providers.daytona.api import NoRoomError  # noqa: PLC0415

    try:
        with api.explained("write:sandboxes"):
            yield
    except NoRoomError as error:
        ours = [one for one in sandboxes(api.settings) if one.owner == api.settings.owner]
        error.detail = "\n".join(f"yours: {one.name} ({one.state})" for one in ours)
        raise


def create(settings: Settings, want: Specification, image: str) -> Sandbox:
    """Make a sandbox that stays."""
    api = _api(settings)
    with _explained_with_room(api):
        return _create(api, want, image)


def start(settings: Settings, sandbox: Sandbox) -> None:
    """Start a sandbox, whatever it is doing now."""
    from scripts.providers.daytona.api import Refusal  # noqa: PLC0415

    api = _api(settings)
    deadline = time.monotonic() + START_S
    with api.explained("write:sandboxes"):
        while time.monotonic() < deadline:
            found = _get(api, sandbox.name)
            state = _state(found) if found is not None else "gone"
            if state == "started":
                return
            if found is None or state in FAILED:
                reason = " ".join(str(getattr(found, "error_reason", "") or state).split())[:300]
                raise UnavailableError(
                    f"sandbox {sandbox.name} cannot be started: {reason}",
                    f"make a new one: inv daytona.cleanup --name {sandbox.name}",
                )
            if state in STARTABLE:
                try:
                    api.call("start a sandbox", found.start, timeout=0, within_s=START_S)
                except Refusal as error:
                    if not (error.is_unsure or error.is_busy):
                        raise
            time.sleep(0.5)
    raise UnavailableError(f"sandbox {sandbox.name} did not start in {START_S} s", "try again")


def stop(settings: Settings, sandbox: Sandbox) -> None:
    """Stop a sandbox; it keeps its disk."""
    api = _api(settings)
    with api.explained("write:sandboxes"):
        found: Any = sandbox.handle
        api.call("stop a sandbox", found.stop, timeout=0, within_s=REMOVE_S)


def archive(settings: Settings, sandbox: Sandbox) -> None:
    """Move a sandbox's disk to where it costs nothing; starting it takes longer then."""
    if sandbox.state == "running":
        stop(settings, sandbox)
    api = _api(settings)
    with api.explained("write:sandboxes"):
        found = _get(api, sandbox.name)
        api.call("archive a sandbox", found.archive, within_s=REMOVE_S)


def remove(settings: Settings, sandbox: Sandbox) -> None:
    """Delete a sandbox, and see that it is gone."""
    api = _api(settings)
    with api.explained("delete:sandboxes"):
        _remove(api, sandbox)


def _remove(api: Api, sandbox: Sandbox, within_s: float = REMOVE_S) -> None:
    from scripts.providers.daytona.api import Refusal  # noqa: PLC0415

    found: Any = sandbox.handle
    try:
        api.call("delete a sandbox", found.delete, timeout=0, within_s=within_s)
    except Refusal as error:
        if error.status != 404:
            raise
    deadline = time.monotonic() + within_s
    while (left := _get(api, sandbox.name)) is not None:
        if left.id != found.id:
            return
        if time.monotonic() > deadline:
            raise UnavailableError(f"{sandbox.name} is still {_state(left)}", "try again later")
        time.sleep(0.5)


def preview(settings: Settings, sandbox: Sandbox, port: int, minutes: int) -> str:
    """Give an address at Daytona that anybody can reach a port of a sandbox by, for a time.

    Args:
        settings: See there.
        sandbox: It must run, for there to be something to see.
        port: Of the sandbox.
        minutes: How long the address is good; Daytona allows a day.
    """
    api = _api(settings)
    with api.explained():
        found: Any = sandbox.handle
        signed = api.call(
            "sign an address", found.create_signed_preview_url, port, minutes * 60, repeat=False
        )
    return str(signed.url)


# -- the way in -----------------------------------------------------------------------------


def pipe_environment(settings: Settings) -> Mapping[str, str]:  # noqa: ARG001
    """Give nothing: ssh has a configuration file."""
    return {}


def _access(api: Api, sandbox: Sandbox, link: Link) -> tuple[str, ...]:
    log.info("Creating Daytona API client...")
    found: Any = sandbox.handle
    answer = api.call("open a sandbox", found.create_ssh_access, access.VALID_MINUTES)
    new = Access.read(answer)
    new.store(link.directory)
    log.info("Connecting via SSH...")
    return new.pipe(link, api.settings.process_environment)


@contextmanager
def ephemeral(
    settings: Settings, want: Specification, image: str, link: Link
) -> Iterator[tuple[str, ...]]:
    """Make a sandbox, give the way into it, and delete it."""
    api = _api(settings)
    with _new(api, want, image) as made:
        log.info("Sandbox is ready!")
        with api.explained("write:sandboxes"):
            way = _access(api, made, link)
        yield way


def known_pipe(settings: Settings, name: str, link: Link) -> tuple[str, ...] | None:  # noqa: ARG001
    """Give the way that the last token still opens."""
    known = Access.load(link.directory)
    if known is None:
        return None
    log.info("Connecting via SSH...")
    return known.pipe(link, settings.process_environment)


def pipe(settings: Settings, sandbox: Sandbox, link: Link) -> tuple[str, ...]:
    """Get a new token; it takes the place of all older ones of the sandbox."""
    api = _api(settings)
    with api.explained("write:sandboxes"):
        if sandbox.handle is None:
            sandbox = replace(sandbox, handle=_get(api, sandbox.name))
        return _access(api, sandbox, link)


def explain(errors: str, link: Link) -> None:  # noqa: ARG001
    """Look at what ssh has printed."""
    access.explain(errors)
