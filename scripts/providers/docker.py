"""Sandboxes as containers of a Docker engine, local or not, or of Podman.

The docker command makes the pipes and builds, because it knows contexts, credentials and
ssh:// engines; docker-py answers everything else.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import tempfile
from collections import deque
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scripts import console, docker_inside, naming, process
from scripts.errors import CannotCreateError, ConfigError, NoImageError, UnavailableError
from scripts.providers import Sandbox, Specification, made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from scripts import host, image
    from scripts.providers import Link
    from scripts.settings import Settings

log = logging.getLogger("nddt")

NAME = "docker"
TITLE = "Docker"
IS_REMOTE = False
ANSWER_S = 120
"""How long the engine may take for one short command."""
SOCKET = Path("/var/run/docker.sock")
INIT = ("--entrypoint=tini",)
"""The image's own: not every engine has one for --init."""
FINGERPRINT = f"{naming.LABEL}.fingerprint"
ROOT_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE"),
    *("AUDIT_WRITE", "SETGID", "SETUID", "SYS_CHROOT"),
)
"""What a sandbox's root keeps, to install packages and to look after files of other users.

sshd needs the last four of a root, the first of them for a terminal. Any other user has no
capability at all, unless sudo gives them these.
"""


def program() -> str:
    """Give the client's name: `docker`, or `podman` where there is only that."""
    return "podman" if not process.find("docker") and process.find("podman") else "docker"


def pipe_environment(settings: Settings) -> Mapping[str, str]:
    """Give DOCKER_HOST if nothing says where the engine is and Podman's socket is all there is."""
    environ = settings.process_environment
    docker_here = program() == "docker" and SOCKET.exists()
    if environ.get("DOCKER_HOST") or _context(environ) or docker_here:
        return {}
    from scripts import engine  # noqa: PLC0415  (what a warm run does without)

    podman = engine.podman_socket(environ)
    return {"DOCKER_HOST": podman} if podman else {}


def _environment(settings: Settings) -> dict[str, str]:
    return {**settings.process_environment, **pipe_environment(settings)}


def _context(environ: Mapping[str, str]) -> str:
    """Give the name of the chosen docker context, empty for the default one."""
    if environ.get("DOCKER_CONTEXT"):
        return environ["DOCKER_CONTEXT"].replace("default", "")
    home = environ.get("DOCKER_CONFIG") or str(Path(environ.get("HOME", "/")) / ".docker")
    try:
        config = json.loads((Path(home) / "config.json").read_text(encoding="utf-8"))
        return str(config.get("currentContext", "")).replace("default", "")
    except (OSError, ValueError, AttributeError):
        return ""


def endpoint(settings: Settings) -> str:
    """Give the engine's address, such as unix:///var/run/docker.sock or ssh://user@host."""
    environ = _environment(settings)
    if environ.get("DOCKER_HOST"):
        return environ["DOCKER_HOST"]
    name = _context(environ)
    if name:
        from docker.context import ContextAPI  # noqa: PLC0415  (only for a chosen context)

        context = ContextAPI.get_context(name)
        if context is None:
            raise ConfigError(f"there is no docker context {name!r}", "run: docker context ls")
        return str(context.Host)
    return f"unix://{SOCKET}"


def workspace(settings: Settings) -> str:
    """Show the directory itself, or give a copy to an engine on another machine."""
    return "sync" if _remote_host(settings) else "mount"


def _remote_host(settings: Settings) -> str:
    """Give the host of an engine on another machine, empty for one on this."""
    address = urlsplit(endpoint(settings))
    if address.scheme not in {"ssh", "tcp", "http", "https"}:
        return ""
    name = address.hostname or ""
    return "" if name in {"localhost", "127.0.0.1", "::1"} else name


def user(settings: Settings) -> tuple[int, int]:
    """Give the caller's UID and GID; for a rootless engine root, which is the caller there."""
    if endpoint(settings).startswith("unix:///run/user/"):
        return (0, 0)
    return (os.getuid(), os.getgid())


def network(settings: Settings, found: host.Host) -> host.Host:  # noqa: ARG001  (the protocol's)
    """Give all of it: containers are on this machine's network."""
    return found


def image_name(settings: Settings, recipe: image.Recipe, version: str) -> str:  # noqa: ARG001
    """Give `nddt:<agent>-<version>-<hash>`."""
    return f"nddt:{recipe.tag(version)}"


def check_mount(settings: Settings) -> None:
    """Refuse to mount a directory of this machine into an engine on another one."""
    host = _remote_host(settings)
    if host:
        wanted = "set NDDT_WORKSPACE=sync or none"
        if settings.workspace != "mount":
            wanted = f"take NDDT_MOUNTS ({settings.sources['NDDT_MOUNTS']}) away, or: inv cp"
        raise ConfigError(
            f"the engine at {host} cannot see this machine's files",
            f"{wanted}; or use an engine on this machine",
        )


def check_limits(settings: Settings) -> None:
    """Take any: an engine has all of them."""


def docker_risk(settings: Settings) -> str:
    """Refuse what only Docker's own engine on this machine has; tell whom root can harm."""
    mode, address = settings.docker_forward, endpoint(settings)
    here = f"NDDT_DOCKER_FORWARD={mode} ({settings.sources['NDDT_DOCKER_FORWARD']})"
    if program() == "podman" or "podman" in address:
        raise ConfigError(f"{here} needs Docker; this is Podman", "take it away, or use Docker")
    if mode == "host":
        if not address.startswith("unix://"):
            problem = f"{here} needs the socket of an engine on this machine, not {address}"
            raise ConfigError(problem, "set NDDT_DOCKER_FORWARD=isolated")
        return (
            "with NDDT_DOCKER_FORWARD=host there is no sandbox: through the engine's socket the "
            "agent can do all that the engine can, as a rule all that root can on this machine"
        )
    if os.getuid() == 0 or settings.sudo:  # of a rootless engine, root in it is that user
        whose = "of root" if os.getuid() == 0 else "with NDDT_SUDO"
        return (
            f"with NDDT_DOCKER_FORWARD=isolated the sandbox {whose} is a weak one: a program in it "
            "can change the settings of the engine's kernel in /proc/sys, and so take over the "
            "machine; that of an ordinary user without sudo cannot"
        )
    return ""


def _command(settings: Settings, *words: str) -> process.Result:
    return process.capture((program(), *words), env=_environment(settings), timeout_s=ANSWER_S)


def disks(settings: Settings) -> tuple[Path, ...]:
    """Give where an engine on this machine keeps all that it has, if it is where it usually is."""
    home = Path(settings.process_environment.get("HOME", "/"), ".local/share")
    usual = (Path("/var/lib/docker"), home / "docker", home / "containers")
    here = not _remote_host(settings)
    return tuple(one for one in usual if here and one.exists())


def prepare(settings: Settings, *, yes: bool) -> None:
    """Make sure that the engine and the programs that reach it are there."""
    from scripts import engine  # noqa: PLC0415

    environ = _environment(settings)
    engine.ensure_installed(("ssh", "ssh-keygen"), yes=yes, environ=environ)
    engine.ensure_running(yes=yes, environ=environ)


def has_image(settings: Settings, name: str) -> bool:
    """Tell whether the engine has an image."""
    return _command(settings, "image", "inspect", "--format", "{{.Id}}", name).ok


def build(settings: Settings, recipe: image.Recipe, version: str, *, yes: bool) -> None:
    """Build with whichever builder the docker command has; only the changed layers."""
    from scripts import engine  # noqa: PLC0415

    labels = naming.image_labels(settings.owner)
    environ = _environment(settings)
    engine.ensure_base(recipe.base, yes=yes, environ=environ, labels=labels)
    words = ["build", "--tag", image_name(settings, recipe, version), "--file", "-", "--force-rm"]
    words += [word for item in labels.items() for word in ("--label", "=".join(item))]
    # A value stays out of the argument list: a proxy's may hold a password.
    words += [word for name in recipe.proxies for word in ("--build-arg", name)]
    if any(host in str(recipe.proxies) for host in ("//127.", "//localhost", "//[::1]")):
        words += ["--network", "host"]
    title = f"building {recipe.agent} {version}" if version else "building the sandbox image"
    log.info("%s; this happens once", title)
    tail: deque[str] = deque(maxlen=30)
    show = console.progress(title)

    def on_line(line: str) -> None:
        tail.append(line)
        show(line)

    with tempfile.TemporaryDirectory(prefix="nddt-") as nothing:
        code = process.stream(
            (program(), *words, nothing),
            on_line,
            env={"BUILDKIT_PROGRESS": "plain", **environ, **recipe.proxies},
            stdin=recipe.text(version).encode(),
        )
    show("")
    if code != 0:
        raise _build_error(tail, version)


def _build_error(tail: Sequence[str], version: str) -> CannotCreateError:
    text = "\n".join(tail)
    if "no space left on device" in text or "enough free space" in text:
        next_step = "make room: docker system df, inv docker.cleanup --images"
    elif "ETARGET" in text or "No matching version" in text or "E404" in text:
        next_step = f"check NDDT_NODE_VERSION and NDDT_CLAUDE_VERSION ({version})"
    else:
        next_step = "the lines above say why; --verbose shows the command"
    # Without a terminal, the log has just been printed as a whole.
    detail = text if console.is_terminal(2) else ""
    return CannotCreateError("the image could not be built", next_step, detail=detail)


def look_up(
    settings: Settings, recipe: image.Recipe, package: str, build_tools: Callable[[], None]
) -> str:
    """Ask npm inside the tools image, which knows the mirror and the authorities."""
    build_tools()
    from scripts.host import CA_BUNDLE  # noqa: PLC0415

    variables = {"NODE_EXTRA_CA_CERTS": CA_BUNDLE, **recipe.proxies}
    options = [word for name in variables for word in ("--env", name)]
    tools = image_name(settings, recipe, "")
    done = process.capture(
        (program(), "run", "--rm", *options, tools, "npm", "view", package, "version"),
        env={**_environment(settings), **variables},
        timeout_s=60,
    )
    if not done.ok or not done.stdout.strip():
        raise CannotCreateError(
            f"npm does not know {package}: {done.last_line}",
            "check NDDT_CLAUDE_VERSION and the network",
        )
    return done.stdout.split()[-1].strip("'")


def ask(settings: Settings, image: str, words: Sequence[str]) -> str:
    """Run it in a container of its own, without a network."""
    fixed = ("run", "--rm", "--pull=never", "--network=none", "--log-driver=none")
    done = _command(settings, *fixed, "--entrypoint", words[0], image, *words[1:])
    if not done.ok:
        _check_image(done)
        raise CannotCreateError(f"{image} did not answer: {done.last_line}", "see --verbose")
    return done.stdout


def _check_image(done: process.Result) -> None:
    """Look at why the engine did not make a container.

    Raises:
        NoImageError: For want of its image.
    """
    if "Unable to find image" in done.stderr or "No such image" in done.stderr:
        raise NoImageError(done.last_line)


def _mount(source: Path, target: str, *, readonly: bool = False) -> str:
    """Give the value of --mount that shows a directory or a file of this machine."""
    how = ("readonly",) if readonly else ()
    return _csv("type=bind", f"source={source}", f"target={target}", *how)


def _csv(*words: str) -> str:
    """Write a value of --mount, a line of CSV: any path survives it."""
    line = io.StringIO()
    csv.writer(line, lineterminator="", quoting=csv.QUOTE_ALL).writerow(words)
    return line.getvalue()


def _volume(want: Specification, target: str) -> str:
    """Give the value of --mount for a volume that goes with its sandbox."""
    labels = [f"volume-label={name}={value}" for name, value in want.labels.items()]
    return _csv("type=volume", f"target={target}", *labels)


def confinement(want: Specification) -> tuple[str, ...]:
    """Give the arguments of `docker run` that take away what a sandbox does not need.

    The engine's own filters of system calls (seccomp) and paths stay as they are.
    """
    kept = ROOT_CAPABILITIES if want.user == "root" or want.has_sudo else ()
    words = ["--cap-drop=ALL"]
    if want.docker == "isolated":
        # newuidmap(1) gains its privilege from its file; it maps root, too, if that is the user.
        kept = (*kept, "SETFCAP", "SETGID", "SETUID")
    elif not want.has_sudo:
        words += ["--security-opt=no-new-privileges"]
    words += [f"--cap-add={name}" for name in dict.fromkeys(kept)]
    words += [f"--pids-limit={want.pids}"] if want.pids else []
    words += [f"--cpus={want.cpus}"] if want.cpus else []
    # Swap would be a way around the limit.
    limit = f"{want.memory_gib}g"
    words += [f"--memory={limit}", f"--memory-swap={limit}"] if want.memory_gib else []
    if want.has_readonly_root:
        words += ["--read-only"]
        words += [f"--tmpfs={place}:exec,mode=1777" for place in ("/tmp", "/var/tmp")]  # noqa: S108
        # These begin as they are in the image, and are the user's; a tmpfs would be neither.
        own = () if want.workspace is not None and not want.is_synced else ("/workspace",)
        for place in (want.home, *own):
            words += ["--mount", _volume(want, place)]
    return tuple(words)


def run_arguments(want: Specification, image: str) -> tuple[str, ...]:
    """Give the arguments of `docker run` that ephemeral and persistent sandboxes share."""
    words = ["--pull=never", "--name", want.name, "--hostname", want.name[:63]]
    # What the pipe carries is encrypted; a log of it would only fill the disk.
    words += ["--log-driver=none"]
    words += ["--network=none"] if want.is_offline else []
    words += confinement(want)
    words += [word for item in want.labels.items() for word in ("--label", "=".join(item))]
    if want.workspace is not None and not want.is_synced:
        words += ["--mount", _mount(want.workspace, "/workspace", readonly=want.is_readonly)]
    for one in (*want.mounts, *want.covers):
        words += ["--mount", _mount(one.source, one.target, readonly=one.readonly)]
    return (*words, "--label", f"{FINGERPRINT}={want.fingerprint(image)}")


def docker_arguments(settings: Settings, want: Specification) -> tuple[str, ...]:
    """Give the arguments of `docker run` that let a sandbox have Docker."""
    if want.docker == "host":
        socket = Path(urlsplit(endpoint(settings)).path)
        shown = ("--mount", _mount(socket, docker_inside.SOCKET))
        # Without one, the docker command will say what is wrong.
        return (*shown, f"--group-add={socket.stat().st_gid}") if socket.exists() else shown
    if want.docker == "isolated":
        return (
            # For user namespaces, and for the /proc of a container in one, which the kernel gives
            # only to those who see all of their own.
            *("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"),
            *("--security-opt=systempaths=unconfined", f"--device={docker_inside.TUN}"),
            # overlayfs does not stand on the sandbox's own files, which are one.
            *("--mount", _volume(want, docker_inside.data(want.home))),
        )
    return ()


def ephemeral(
    settings: Settings,
    want: Specification,
    image: str,
    link: Link,
) -> AbstractContextManager[tuple[str, ...]]:
    """Give the command whose container is the connection and goes with it."""
    words = (*docker_arguments(settings, want), *run_arguments(want, image), *INIT)
    served = (image, "--", "sh", *link.server)
    return nullcontext((program(), "run", "--rm", "-i", *words, *served))


def known_pipe(settings: Settings, name: str, link: Link) -> None:
    """Know none: a container of that name may have become somebody else's."""


def pipe(settings: Settings, sandbox: Sandbox, link: Link) -> tuple[str, ...]:  # noqa: ARG001
    """Give the command that reaches a running container."""
    return (program(), "exec", "-i", sandbox.name, "sh", *link.server)


def explain(errors: str, link: Link) -> None:
    """Know nothing: the docker command says itself what is wrong."""


def create(settings: Settings, want: Specification, image: str) -> Sandbox:
    """Start a container that waits."""
    words = (*docker_arguments(settings, want), *run_arguments(want, image), *INIT)
    idle = (image, "--", "sleep", "infinity")
    done = _command(settings, "run", "--detach", *words, *idle)
    if not done.ok:
        _check_image(done)
        _command(settings, "rm", "--force", "--volumes", want.name)
        raise CannotCreateError(f"{want.name} could not be created: {done.last_line}")
    return made(want, image)


@contextmanager
def _client(settings: Settings) -> Iterator[Any]:
    """Connect docker-py to the engine that the docker command would use."""
    import docker  # noqa: PLC0415  (100 ms that only some tasks need)
    from docker.context import ContextAPI  # noqa: PLC0415
    from docker.errors import APIError, DockerException  # noqa: PLC0415

    environ = _environment(settings)
    name = "" if environ.get("DOCKER_HOST") else _context(environ)
    try:
        if environ.get("DOCKER_HOST"):
            client = docker.from_env(environment=environ, use_ssh_client=True)
        else:
            context = ContextAPI.get_context(name) if name else None
            tls = (context and context.TLSConfig) or False
            client = docker.DockerClient(endpoint(settings), tls=tls, use_ssh_client=True)
        try:
            yield client
        finally:
            client.close()
    except APIError as error:
        reason = str(error.explanation or error).splitlines()[0][:200]
        next_step = "see the engine's log"
        if "source path does not exist" in reason:  # what a stopped sandbox shows was removed
            next_step = "make it again, or remove the sandbox: inv docker.cleanup"
        raise CannotCreateError(f"the engine refused: {reason}", next_step) from error
    except DockerException as error:
        podman = "start its socket: systemctl --user start podman.socket"
        raise UnavailableError(
            f"the engine does not answer: {str(error).splitlines()[0][:200]}",
            "run: inv setup" if program() == "docker" else podman,
        ) from error


def _sandbox(container: Any) -> Sandbox:  # noqa: ANN401  (docker-py has no types of its own)
    labels = container.labels
    states = {"running": "running", "exited": "stopped", "created": "stopped"}
    return Sandbox(
        name=container.name,
        state=states.get(container.status, container.status),
        mode=labels.get(naming.LABEL, ""),
        image=container.attrs["Config"]["Image"],
        workspace=labels.get(f"{naming.LABEL}.workspace", ""),
        owner=labels.get(f"{naming.LABEL}.owner", ""),
        created=int(labels.get(f"{naming.LABEL}.created", "0")),
        pid=int(labels.get(f"{naming.LABEL}.pid", "0")),
        fingerprint=labels.get(FINGERPRINT, ""),
        is_synced=f"{naming.LABEL}.sync" in labels,
        is_offline=f"{naming.LABEL}.offline" in labels,
    )


def find(settings: Settings, name: str) -> Sandbox | None:
    """Look a container up by its name."""
    from docker.errors import NotFound  # noqa: PLC0415

    with _client(settings) as client:
        try:
            container = client.containers.get(name)
        except NotFound:
            return None
        if naming.LABEL not in container.labels:
            raise CannotCreateError(
                f"the name {name} belongs to a container that is not nddt's",
                "choose another with --name",
            )
        return _sandbox(container)


def sandboxes(settings: Settings) -> tuple[Sandbox, ...]:
    """List all containers that carry our label."""
    with _client(settings) as client:
        found = client.containers.list(
            all=True, filters={"label": naming.LABEL}, ignore_removed=True
        )
        ours = [_sandbox(one) for one in found]
    return tuple(sorted(ours, key=lambda one: -one.created))


def start(settings: Settings, sandbox: Sandbox) -> None:
    """Start a stopped container."""
    with _client(settings) as client:
        client.containers.get(sandbox.name).start()


def stop(settings: Settings, sandbox: Sandbox) -> None:
    """Stop a container; `sleep infinity` has nothing to say goodbye for."""
    with _client(settings) as client:
        client.containers.get(sandbox.name).stop(timeout=2)


def remove(settings: Settings, sandbox: Sandbox) -> None:
    """Remove a container and its anonymous volumes."""
    from docker.errors import APIError, NotFound  # noqa: PLC0415

    with _client(settings) as client:
        try:
            client.containers.get(sandbox.name).remove(force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if "already in progress" not in str(error):
                raise


def prune_images(settings: Settings, owner: str, keep: int) -> tuple[str, ...]:
    """Remove old images that no container uses."""
    from docker.errors import APIError  # noqa: PLC0415

    removed: list[str] = []
    with _client(settings) as client:
        found = client.images.list(filters={"label": f"{naming.LABEL}.owner={owner}"})
        tagged = [one for one in found if any(tag.startswith("nddt:") for tag in one.tags)]
        tagged.sort(key=lambda one: one.attrs["Created"], reverse=True)
        for old in tagged[keep:]:
            for tag in old.tags:
                try:
                    client.images.remove(tag)
                except APIError as error:
                    log.info("%s stays: %s", tag, error.explanation)
                else:
                    removed.append(tag)
    return tuple(removed)
