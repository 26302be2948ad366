"""What a sandbox without a network reaches all the same: hosts that are allowed, by our proxy.

The proxy runs on this machine while the session does, and listens on a socket in a private
directory; ssh leads a port of the sandbox's loopback to it. So without us there is no way out.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import select
import shlex
import socket
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scripts import agents, allowlist, env_forward, host, lifecycle, naming, state
from scripts.allowlist import Allowlist, Rule
from scripts.decisions import Decisions
from scripts.errors import UsageError
from scripts.provisions import Provision
from scripts.ssh import SocketPort

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from scripts.lifecycle import Work
    from scripts.plan import Plan
    from scripts.settings import Settings

log = logging.getLogger("nddt")

Serve = Callable[[socket.socket], None]
"""Accepts connections until its listener is shut down."""

PORT = 3128
"""The proxy's port in a sandbox, or that of a conversation, which outlives its sessions."""
FIRST_PORT, PORTS = 20_000, 10_000
"""Where other sessions have theirs, if several may be in one sandbox."""
ASK = """
apt-get update --print-uris 2>/dev/null
npm config get registry
pip config get global.index-url 2>/dev/null || python3 -c '
from pip._internal.models.index import PyPI
print(PyPI.simple_url, "https://" + PyPI.file_storage_domain)'
pip config get global.extra-index-url 2>/dev/null
:
"""
"""Prints, among other things, the addresses from which a sandbox's tools take packages."""


def provision(work: Work, plan: Plan, *, is_conversation: bool) -> Provision:
    """Bring along what the setting grants of the network.

    Args:
        work: See there.
        plan: What it is for.
        is_conversation: Whether that is the agent in tmux, which outlives the session and finds
            the proxy at the same place when the user comes back.
    """
    if work.settings.network == "open":
        return Provision()
    if work.settings.network == "none":
        told = "You run in a sandbox that has no network, apart from the model's address."
        return Provision(told=(told,), shown=(("network", "none"),))
    port = PORT
    if plan.sandbox.persistent and not is_conversation:
        port = FIRST_PORT + int(plan.session, 16) % PORTS
    directory = _directory(work, plan, is_conversation=is_conversation)
    url = f"http://127.0.0.1:{port}"
    told = (
        "You run in a sandbox that reaches only hosts which the user has allowed, by HTTP and "
        f"HTTPS through the proxy {url}, which the usual variables name. It answers 403 to "
        "anything else. If you need another host, say which, and that the user allows it with: "
        "inv network.allow HOST"
    )
    return Provision(
        forwards=(SocketPort(port, str(directory / "proxy")),),
        variables=_variables(work.settings, port, plan.brings.variables),
        serving=(partial(_served, work, plan, directory),),
        told=(told,),
        shown=(("network", "allowed hosts, by a proxy; see: inv network"),),
    )


def _variables(settings: Settings, port: int, theirs: Mapping[str, str]) -> dict[str, str]:
    """Give what has programs use the proxy; apart from the proxy itself, the user's own count."""
    url = f"http://127.0.0.1:{port}"
    names = [name for one in ("HTTP_PROXY", "HTTPS_PROXY") for name in (one, one.lower())]
    found = {}
    # Git's ssh has no proxy of its own.
    command = f"socat - PROXY:127.0.0.1:%h:%p,proxyport={port}"
    found["GIT_SSH_COMMAND"] = f"ssh -o ProxyCommand={shlex.quote(command)}"
    found["NODE_USE_ENV_PROXY"] = "1"
    if int(settings.node_version.partition(".")[0]) >= 22:
        # Else each node says that this is an experiment.
        found["NODE_OPTIONS"] = "--disable-warning=UNDICI-EHPA"
    none = dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1")
    ours = {name: value for name, value in found.items() if name not in theirs}
    return {**ours, **dict.fromkeys(names, url), **none}


def _directory(work: Work, plan: Plan, *, is_conversation: bool) -> Path:
    """Give the directory of a socket; a kept connection knows that of a conversation."""
    if is_conversation:
        return state.sandbox_directory(work.environ, work.key(plan.sandbox.name)) / "net"
    return state.made_up_directory(work.environ, f"{plan.session}-net")


# -- what is allowed ------------------------------------------------------------------------


def _place(settings: Settings) -> Path:
    """Give the directory with what is known of a directory's sandboxes; it need not exist."""
    workspace = settings.directory if settings.workspace != "none" else None
    home = state.state_directory(settings.process_environment)
    return home / "network" / naming.persistent_name(workspace)


def _log(settings: Settings) -> Decisions:
    return Decisions(_place(settings) / "log")


def fixed_rules(settings: Settings) -> tuple[Rule, ...]:
    """Give what is allowed everywhere: our defaults, NDDT_ALLOW_HOSTS, the model's address.

    The latter only from the environment: a project's .env file must not widen anything.
    """
    agent = agents.get(settings.agent)
    model = settings.process_environment.get(agent.BASE_URL, "")
    rules = (*allowlist.read(allowlist.DEFAULTS), *settings.allow_hosts)
    if model and not host.loopback_endpoint(model, agent.BASE_URL):
        rules += _rules_in(model)
    return rules


def _rules_in(text: str) -> tuple[Rule, ...]:
    """Find the hosts in a text with addresses; what allows none, such as an IP, is left out."""
    found: dict[Rule, None] = {}
    for url in re.findall(r"https?://[^\s']+", text):
        with contextlib.suppress(ValueError):
            parts = urlsplit(url)
            usual = {"http": allowlist.HTTP, "https": allowlist.HTTPS}[parts.scheme]
            port = f":{parts.port}" if parts.port not in {None, usual} else ""
            found[allowlist.rule(f"{parts.hostname}{port}")] = None
    return tuple(found)


def package_rules(work: Work, plan: Plan) -> tuple[Rule, ...]:
    """Give where the tools of the plan's image take packages from; an image is asked once.

    What is asked is a sandbox that nobody has worked in: the answer widens what others reach.
    """
    image = plan.image(lifecycle.agent_version(work, plan))
    memory = state.cache_directory(work.environ) / "package-hosts" / naming.digest((image,), 16)
    if not memory.exists():
        log.info("asking %s where packages come from", image)
        rules = _rules_in(work.provider.ask(work.settings, image, ("sh", "-c", ASK)))
        memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.write(memory, "".join(f"{one}\n" for one in rules))
    return allowlist.read(memory)


def allow(settings: Settings, text: str) -> Rule:
    """Allow more to the directory's sandboxes, now and later.

    Raises:
        UsageError: It is no host.
    """
    rule = _rule(text)
    file = _place(settings) / "allowed"
    with _changing(file):
        rules = dict.fromkeys((*allowlist.read(file), rule))
        state.write(file, "".join(f"{one}\n" for one in rules))
    return rule


def deny(settings: Settings, text: str) -> Rule:
    """Take back what `allow` has allowed.

    Raises:
        UsageError: It has not, or it is no host.
    """
    rule = _rule(text)
    file = _place(settings) / "allowed"
    with _changing(file):
        rules = allowlist.read(file)
        if rule not in rules:
            raise UsageError(f"{rule} was not allowed here", "inv network --allowed shows what is")
        state.write(file, "".join(f"{one}\n" for one in rules if one != rule))
    return rule


@contextmanager
def _changing(file: Path) -> Iterator[None]:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with state.lock(file.parent):
        yield


def _rule(text: str) -> Rule:
    try:
        return allowlist.rule(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no host", f"allowed: {error}") from error


def allowed(settings: Settings) -> list[tuple[str, ...]]:
    """List what is allowed, but for where packages come from, which depends on the image."""
    defaults = allowlist.read(allowlist.DEFAULTS)
    here = allowlist.read(_place(settings) / "allowed")
    rows = [(str(one), "default") for one in defaults]
    rows += [(str(one), "setting") for one in fixed_rules(settings) if one not in defaults]
    return [("HOST", "FROM"), *rows, *((str(one), "inv network.allow") for one in here)]


def blocked(settings: Settings) -> list[tuple[str, ...]]:
    """List what the directory's sandboxes wanted and did not get."""
    return [("BLOCKED", "TIMES", "LAST", "WHY"), *_log(settings).blocked()]


# -- the proxy's socket ---------------------------------------------------------------------


@contextmanager
def _served(work: Work, plan: Plan, directory: Path) -> Iterator[None]:
    """Be the proxy at a socket until the block's end."""
    rules = (*fixed_rules(work.settings), *package_rules(work, plan))
    allows = Allowlist(rules, _place(work.settings) / "allowed")
    serve = partial(
        _serve, allows, _log(work.settings), env_forward.proxies(work.settings.process_environment)
    )
    try:
        with listening(directory, serve):
            yield
    finally:
        if directory != _directory(work, plan, is_conversation=True):  # where others may wait
            with contextlib.suppress(OSError):
                directory.rmdir()


def _serve(
    allowed: Allowlist, decisions: Decisions, proxies: dict[str, str], listener: socket.socket
) -> None:
    # Only now: imported any earlier, it would keep the sandbox from starting.
    from scripts import proxy  # noqa: PLC0415

    proxy.accept(listener, proxy.Gate(allowed=allowed, decisions=decisions, proxies=proxies))


@contextmanager
def listening(directory: Path, serve: Serve) -> Iterator[None]:
    """Listen on the socket `proxy` in a directory until the block's end.

    Of several that want the same, as two terminals at one conversation do, one listens; when it
    is done, the next one does.

    Args:
        directory: Made if missing.
        serve: Called with the first connection.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / "proxy"
    turn = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    listener = socket.socket(socket.AF_UNIX)
    changing, ended, began = threading.Lock(), threading.Event(), threading.Event()

    def begin() -> None:
        with changing:
            if not ended.is_set():
                path.unlink(missing_ok=True)  # what a killed process has left
                listener.bind(str(path))
                listener.listen(128)
                began.set()

    def work() -> None:
        with contextlib.suppress(OSError):  # it has been shut down
            if not began.is_set():
                fcntl.flock(turn, fcntl.LOCK_EX)
                begin()
            if began.is_set():
                with listener:
                    select.select([listener], [], [])
                    if not ended.is_set():
                        serve(listener)

    with contextlib.suppress(BlockingIOError):
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        begin()
    threading.Thread(target=work, daemon=True, name="network").start()
    try:
        yield
    finally:
        with changing:
            ended.set()
            if began.is_set():
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # macOS has no such thing for it
                    listener.shutdown(socket.SHUT_RDWR)
            else:
                listener.close()
        os.close(turn)
