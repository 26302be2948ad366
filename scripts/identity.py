"""Who the user is: SSH and GPG keys to use, git's settings, a token for GitHub."""

from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import git_config, inside, naming, state
from scripts.errors import ConfigError, UnavailableError
from scripts.provisions import Provision
from scripts.ssh import Socket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.git_config import Entries
    from scripts.plan import Plan
    from scripts.settings import Settings
    from scripts.ssh_files import PrivateKey

log = logging.getLogger("nddt")


def provision(settings: Settings, plan: Plan, *, is_conversation: bool) -> Provision:
    """Bring along what the settings name.

    Args:
        settings: See there.
        plan: What it is for.
        is_conversation: Whether that is the agent in tmux, which outlives the session and finds
            what is forwarded at the same place when the user comes back.

    Raises:
        ConfigError: There are no such keys.
        UnavailableError: There is no agent.
    """
    name = inside.AGENT if is_conversation else plan.session
    environ = settings.process_environment
    home = Path(environ.get("HOME", "/"))
    brings = Provision()
    private: tuple[PrivateKey, ...] = ()
    if settings.ssh_forward == "agent":
        outside = _outside(settings, plan, is_conversation=is_conversation)
        brings += _agent(settings, outside, inside.place(name, "ssh"))
    elif settings.ssh_forward == "keys":
        private = _private_keys(settings, home / ".ssh")
        brings += Provision(shown=(("ssh", f"copies of {_listed(private)}"),))
    if settings.ssh_forward:
        from scripts import ssh_files  # noqa: PLC0415  (not needed by most)

        user = settings.owner.partition("@")[0]
        brings += ssh_files.provision(home, user, inside.place(name, "bin"), private)
    if settings.gpg_forward:
        from scripts import gpg  # noqa: PLC0415

        brings += gpg.provision(environ, inside.place(name, "gpg"))
    if settings.ssh_forward or settings.gpg_forward:
        brings += Provision(after=(inside.without_places(name),))
    return brings + _git(settings, plan.brings.variables, home, private)


def _outside(settings: Settings, plan: Plan, *, is_conversation: bool) -> Path:
    """Give the path of a socket on this machine; a kept connection knows that of a conversation."""
    environ = settings.process_environment
    if is_conversation:
        key = naming.key(settings.provider, plan.sandbox.name)
        return state.sandbox_directory(environ, key) / "ssh-agent"
    return state.made_up_directory(environ, plan.session) / "ssh-agent"


# -- SSH ------------------------------------------------------------------------------------


def _agent(settings: Settings, outside: Path, place: str) -> Provision:
    from scripts import ssh_agent  # noqa: PLC0415

    upstream = settings.process_environment.get("SSH_AUTH_SOCK")
    if not upstream:
        raise UnavailableError(
            "NDDT_SSH_FORWARD is agent, but there is no SSH agent here (SSH_AUTH_SOCK)",
            'start one: eval "$(ssh-agent)" && ssh-add',
        )
    keys = ssh_agent.named(ssh_agent.keys(upstream), settings.ssh_keys, "the SSH agent")
    if not keys:
        log.warning("the SSH agent has no key yet — add one: ssh-add")
    allowed = frozenset(one.blob for one in keys) if settings.ssh_keys else None
    shown = ", ".join(map(str, keys)) if settings.ssh_keys else f"all, now {len(keys)}"
    return Provision(
        forwards=(Socket(place, str(outside)),),
        variables={"SSH_AUTH_SOCK": place},
        serving=(partial(ssh_agent.served, outside, upstream, allowed),),
        shown=(("ssh", f"keys of this machine's agent: {shown}"),),
    )


def _private_keys(settings: Settings, directory: Path) -> tuple[PrivateKey, ...]:
    from scripts import ssh_agent, ssh_files  # noqa: PLC0415

    found = ssh_files.private_keys(directory)
    if not found:
        raise ConfigError(
            f"NDDT_SSH_FORWARD is keys, but {directory} has no private key",
            "make one: ssh-keygen, or set NDDT_SSH_FORWARD=agent",
        )
    keys = ssh_agent.named(found, settings.ssh_keys, str(directory))
    log.warning("the sandbox gets a copy of these private keys: %s", _listed(keys))
    return keys


def _listed(keys: tuple[PrivateKey, ...]) -> str:
    return ", ".join(one.path.name for one in keys)


# -- git ------------------------------------------------------------------------------------


def _git(
    settings: Settings,
    variables: Mapping[str, str],
    home: Path,
    private: tuple[PrivateKey, ...],
) -> Provision:
    entries = None
    if settings.git_config:
        entries = git_config.read(settings.directory, settings.process_environment)
    if entries is None:
        return git_config.provision((), variables)
    signing, before = _signing(settings, entries, home, private)
    if signing is None and git_config.is_signing(entries):
        log.info("commits in the sandbox are not signed: it has no key for that")
    chosen = git_config.chosen(entries, signing)
    who = [git_config.last(entries, f"user.{part}") or "" for part in ("name", "email")]
    # There is nobody in the sandbox whom git could protect from another user's repositories.
    safe = (("safe.directory", "*"),)
    return git_config.provision((*safe, *chosen), variables) + Provision(
        before=before, shown=(("git", " ".join(filter(None, who)) or "no name"),)
    )


def _signing(
    settings: Settings, entries: Entries, home: Path, private: tuple[PrivateKey, ...]
) -> tuple[Entries | None, tuple[str, ...]]:
    """Tell what git signs with in the sandbox, and the shell text that says where the key is."""
    key = git_config.last(entries, "user.signingkey")
    form = git_config.last(entries, "gpg.format") or "openpgp"
    if form == "openpgp" and settings.gpg_forward:
        return ((("user.signingkey", key),) if key else ()), ()
    if form != "ssh" or not settings.ssh_forward or not key:
        return None, ()
    public = _public_key(key, home)
    if public is None:
        return None, ()
    entries = (("gpg.format", "ssh"), ("user.signingkey", f"key::{public}"))
    if settings.ssh_forward == "agent":
        return entries, ()
    from scripts import ssh_agent, ssh_files  # noqa: PLC0415

    wanted = ssh_agent.public_fingerprint(public)
    name = next((one.path.name for one in private if one.fingerprint == wanted), None)
    if name is None:
        return None, ()
    set_key = 'git config --file "$NDDT_SESSION/gitconfig" user.signingkey'
    return entries, (f'{set_key} "{ssh_files.PLACE}/{name}"',)


def _public_key(key: str, home: Path) -> str | None:
    """Give the public SSH key that user.signingkey means: itself, or a file with it.

    A private key's file has its public half beside it.
    """
    literal = key.removeprefix("key::")
    if not re.match(r"(ssh|sk-ssh|ecdsa|sk-ecdsa)-\S+ \S+", literal):
        path = home / key[2:] if key.startswith("~/") else Path(key)
        names = (path.name,) if path.name.endswith(".pub") else (f"{path.name}.pub", path.name)
        literal = next(filter(None, (_first_line(path.with_name(one)) for one in names)), "")
    found = re.match(r"((?:ssh|sk-ssh|ecdsa|sk-ecdsa)-\S+ [A-Za-z0-9+/=]+)", literal)
    return found[1] if found else None


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return ""
