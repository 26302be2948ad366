"""What a sandbox without a network reaches all the same: hosts that are allowed, by our proxy.

The proxy runs on this machine while the session does, and listens on a socket in a private
directory; ssh leads a port of the sandbox's loopback to it. So without us there is no way out.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scripts import agents, env_forward, naming
from scripts.contracts.provisions import Kept, Provision
from scripts.errors import UsageError
from scripts.machine import files, socket_server, state
from scripts.naming import said
from scripts.network.decisions import Decisions
from scripts.settings import allowlist, host
from scripts.settings.allowlist import Allowlist, Rule
from scripts.transport.forwards import SocketPort

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from scripts.contracts.session import Session
    from scripts.machine.socket_server import Serve
    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")

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


def bring_network(
    settings: Settings,
    session: Session,
    names: Collection[str],
    package_rules: Callable[[], tuple[Rule, ...]],
) -> Provision:
    """Bring along what the setting grants of the network.

    Args:
        settings: All of them.
        session: What it is for.
        names: Of the variables that it has anyway.
        package_rules: Asked, when the proxy starts, where the image's tools take packages from.
    """
    if settings.network == "open":
        return Provision()
    if settings.network == "none":
        told = "You run in a sandbox that has no network, apart from the model's address."
        return Provision(system_prompt_lines=(told,), plan_lines=(("network", "none"),))
    port = PORT
    if not (session.is_alone or session.is_conversation):
        port = FIRST_PORT + int(session.id, 16) % PORTS
    directory = session.directory(settings.process_environment, "net")
    url = f"http://127.0.0.1:{port}"
    told = (
        "You run in a sandbox that reaches only hosts which the user has allowed, by HTTP and "
        f"HTTPS through the proxy {url}, which the usual variables name. It answers 403 to "
        "anything else. If you need another host, say which, and that the user allows it with: "
        "nddt network.allow HOST"
    )
    forwards = (SocketPort(port, str(directory / "proxy")),)
    make_service = partial(_make_service, settings, package_rules, directory)
    if session.is_conversation:
        brings = Provision(kept=(Kept(forwards=forwards, make_service=make_service),))
    else:
        brings = Provision(forwards=forwards, background_services=(partial(_here, make_service),))
    return brings + Provision(
        variables=_variables(settings, port, names),
        system_prompt_lines=(told,),
        plan_lines=(("network", f"allowed hosts, by a proxy; see: {said('network')}"),),
    )


def _variables(settings: Settings, port: int, theirs: Collection[str]) -> dict[str, str]:
    """Return what has programs use the proxy; apart from the proxy itself, the user's own count."""
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


# -- what is allowed ------------------------------------------------------------------------


def _place(settings: Settings) -> Path:
    """Name the directory with what is known of a directory's sandboxes; it need not exist."""
    workspace = settings.directory if settings.workspace != "none" else None
    home = state.state_directory(settings.process_environment)
    return home / "network" / naming.persistent_name(workspace)


def _log(settings: Settings) -> Decisions:
    return Decisions(_place(settings) / "log")


def fixed_rules(settings: Settings) -> tuple[Rule, ...]:
    """Return what is allowed everywhere: our defaults, NDDT_ALLOW_HOSTS, the model's address.

    The latter only from the environment: a project's .env file must not widen anything.
    """
    agent = agents.get(settings.agent)
    model = settings.process_environment.get(agent.BASE_URL, "")
    rules = (*_defaults(settings), *settings.allow_hosts)
    if model and not host.loopback_endpoint(model, agent.BASE_URL):
        rules += _rules_in(model)
    return rules


def _defaults(settings: Settings) -> tuple[Rule, ...]:
    """Read what is allowed where nobody sets anything: for the agent, and for all."""
    own = map(allowlist.rule, agents.get(settings.agent).HOSTS)
    return (*own, *allowlist.read_rules(allowlist.DEFAULTS))


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


def package_rules(settings: Settings, image: str, ask: Callable[..., str]) -> tuple[Rule, ...]:
    """Look up where the tools of an image take packages from; an image is asked once.

    What is asked is a sandbox that nobody has worked in: the answer widens what others reach.

    Args:
        settings: All of them.
        image: Its name.
        ask: The provider's `ask`.
    """
    environ = settings.process_environment
    memory = state.cache_directory(environ) / "package-hosts" / naming.digest((image,), 16)
    if not memory.exists():
        log.info("asking %s where packages come from", image)
        rules = _rules_in(ask(settings, image, ("sh", "-c", ASK)))
        files.write(memory, "".join(f"{one}\n" for one in rules))
    return allowlist.read_rules(memory)


def allow(settings: Settings, text: str) -> Rule:
    """Allow more to the directory's sandboxes, now and later.

    Raises:
        UsageError: It is no host.
    """
    rule = _rule(text)
    file = _place(settings) / "allowed"
    with _changing(file):
        rules = dict.fromkeys((*allowlist.read_rules(file), rule))
        files.write(file, "".join(f"{one}\n" for one in rules))
    return rule


def deny(settings: Settings, text: str) -> Rule:
    """Take back what `allow` has allowed.

    Raises:
        UsageError: It has not, or it is no host.
    """
    rule = _rule(text)
    file = _place(settings) / "allowed"
    with _changing(file):
        rules = allowlist.read_rules(file)
        if rule not in rules:
            raise UsageError(
                f"{rule} was not allowed here", f"{said('network --allowed')} shows what is"
            )
        files.write(file, "".join(f"{one}\n" for one in rules if one != rule))
    return rule


@contextmanager
def _changing(file: Path) -> Iterator[None]:
    files.make_private(file.parent)
    with files.lock(file.parent):
        yield


def _rule(text: str) -> Rule:
    try:
        return allowlist.rule(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no host", f"allowed: {error}") from error


def allowed(settings: Settings) -> list[tuple[str, ...]]:
    """List what is allowed, but for where packages come from, which depends on the image."""
    defaults = _defaults(settings)
    here = allowlist.read_rules(_place(settings) / "allowed")
    rows = [(str(one), "default") for one in defaults]
    rows += [(str(one), "setting") for one in fixed_rules(settings) if one not in defaults]
    return [("HOST", "FROM"), *rows, *((str(one), said("network.allow")) for one in here)]


def blocked(settings: Settings) -> list[tuple[str, ...]]:
    """List what the directory's sandboxes wanted and did not get."""
    return [("BLOCKED", "TIMES", "LAST", "WHY"), *_log(settings).blocked()]


# -- the proxy's socket ---------------------------------------------------------------------


def _here(
    make_service: Callable[[], Callable[[], AbstractContextManager[None]]],
) -> AbstractContextManager[None]:
    return make_service()()


def _make_service(
    settings: Settings, package_rules: Callable[[], tuple[Rule, ...]], directory: Path
) -> Callable[[], AbstractContextManager[None]]:
    """Build what is the proxy, for this process or for another one."""
    allows = Allowlist((*fixed_rules(settings), *package_rules()), _place(settings) / "allowed")
    begin = partial(
        _begin, allows, _log(settings), env_forward.proxies(settings.process_environment)
    )
    return partial(listening, directory, begin)


def _begin(allowed: Allowlist, decisions: Decisions, proxies: dict[str, str]) -> Serve:
    # Only now: imported any earlier, it would keep the sandbox from starting.
    from scripts.network import gate, proxy  # noqa: PLC0415

    made = gate.Gate(allowed=allowed, decisions=decisions, proxies=proxies)
    return partial(proxy.serve, gate=made)


def listening(directory: Path, begin: Callable[[], Serve]) -> AbstractContextManager[None]:
    """Be the proxy at the socket `proxy` of a directory until the block's end.

    Args:
        directory: See `socket_server.serve_clients`.
        begin: Called with the first connection, and returns what serves.
    """
    return socket_server.serve_clients(directory / "proxy", begin, name="the proxy")
