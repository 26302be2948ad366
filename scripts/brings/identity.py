"""Who the user is: SSH and GPG keys to use, git's settings, a token for GitHub."""

from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.brings import git_config
from scripts.contracts.provisions import Provision
from scripts.errors import ConfigError, UnavailableError
from scripts.transport import inside
from scripts.transport.forwards import Socket

if TYPE_CHECKING:
    from collections.abc import Collection

    from scripts.brings.git_config import Entries
    from scripts.brings.ssh_files import PrivateKey
    from scripts.contracts.session import Session
    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")


def bring_identity(settings: Settings, session: Session, names: Collection[str]) -> Provision:
    """Bring along what the settings name.

    Args:
        settings: All of them.
        session: What it is for.
        names: Of the variables that it has anyway.

    Raises:
        ConfigError: There are no such keys.
        UnavailableError: There is no agent.
    """
    environ = settings.process_environment
    home = Path(environ.get("HOME", "/"))
    brings = Provision()
    private: tuple[PrivateKey, ...] = ()
    if settings.ssh_forward == "agent":
        outside = session.directory(environ) / "ssh-agent"
        brings += _agent(settings, outside, inside.place(session.name, "ssh"))
    elif settings.ssh_forward == "keys":
        private = _private_keys(settings, home / ".ssh")
        brings += Provision(plan_lines=(("ssh", f"copies of {_listed(private)}"),))
    if settings.ssh_forward:
        from scripts.brings import ssh_files  # noqa: PLC0415  (not needed by most)

        user = settings.owner.partition("@")[0]
        brings += ssh_files.bring_ssh_files(home, user, inside.place(session.name, "bin"), private)
    if settings.gpg_forward:
        from scripts.brings import gpg  # noqa: PLC0415

        outside, there = session.directory(environ) / "gpg-agent", inside.place(session.name, "gpg")
        brings += gpg.bring_gpg(environ, settings.gpg_keys, outside, there)
    if settings.ssh_forward or settings.gpg_forward:
        brings += Provision(after=(inside.without_places(session.name),))
    return brings + _git(settings, names, home, private)


# -- SSH ------------------------------------------------------------------------------------


def _agent(settings: Settings, outside: Path, place: str) -> Provision:
    from scripts.brings import ssh_agent  # noqa: PLC0415

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
        background_services=(partial(ssh_agent.serve_ssh_agent, outside, upstream, allowed),),
        plan_lines=(("ssh", f"keys of this machine's agent: {shown}"),),
    )


def _private_keys(settings: Settings, directory: Path) -> tuple[PrivateKey, ...]:
    from scripts.brings import ssh_agent, ssh_files  # noqa: PLC0415

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
    names: Collection[str],
    home: Path,
    private: tuple[PrivateKey, ...],
) -> Provision:
    entries = None
    if settings.git_config:
        entries = git_config.read_git_settings(settings.directory, settings.process_environment)
    if entries is None:
        return git_config.bring_git_settings((), names)
    signing, before = _signing(settings, entries, home, private)
    if signing is None and git_config.is_signing(entries):
        log.info("commits in the sandbox are not signed: it has no key for that")
    chosen = git_config.chosen(entries, signing)
    who = [git_config.last(entries, f"user.{part}") or "" for part in ("name", "email")]
    # There is nobody in the sandbox whom git could protect from another user's repositories.
    safe = (("safe.directory", "*"),)
    who_is_it = (("git", " ".join(filter(None, who)) or "no name"),)
    return (
        git_config.bring_git_settings((*safe, *chosen), names)
        + git_config.ignored(entries, settings.process_environment)
        + Provision(before=before, plan_lines=who_is_it)
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
    from scripts.brings import ssh_agent, ssh_files  # noqa: PLC0415

    wanted = ssh_agent.public_fingerprint(public)
    name = next((one.path.name for one in private if one.fingerprint == wanted), None)
    if name is None:
        return None, ()
    set_key = 'git config --file "$NDDT_SESSION/gitconfig" user.signingkey'
    return entries, (f'{set_key} "{ssh_files.PLACE}/{name}"',)


def _public_key(key: str, home: Path) -> str | None:
    """Read the public SSH key that user.signingkey means: itself, or a file with it.

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
