"""Directories that nobody means to hand to an agent: asked about each time, or never shown.

A place is private with all that is in it, and so is what has it in it. Of nddt's own directories
and of what renews a login nothing is ever shown, whoever agrees: with them a sandbox could be all
that the user is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import agents, naming
from scripts.errors import ConfigError
from scripts.machine import state
from scripts.machine.bind_sources import identity, way_through
from scripts.settings.env_file import user_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scripts.settings.fields import Settings


PRIVATE: Mapping[str, str] = {
    "SSH keys": "~/.ssh",
    "GPG keys": "~/.gnupg $GNUPGHOME",
    # of clouds, servers, databases, package registries
    "keys and logins": "~/.aws ~/.azure ~/.oci ~/.boto ~/.s3cfg ~/.fly ~/.databrickscfg ~/.kube "
    "~/.docker ~/.terraform.d ~/.terraformrc ~/.vault-token ~/.netrc ~/.git-credentials ~/.pgpass "
    "~/.my.cnf ~/.mylogin.cnf ~/.rclone.conf ~/.subversion ~/.npmrc ~/.yarnrc.yml ~/.pypirc "
    "~/.cargo ~/.gem ~/.m2 ~/.gradle ~/.nuget ~/.composer $DOCKER_CONFIG $GH_CONFIG_DIR "
    "$AZURE_CONFIG_DIR $CLOUDSDK_CONFIG",
    "settings and conversations of coding agents, logins among them": "~/.claude ~/.claude.json "
    "~/.codex ~/.gemini ~/.cursor ~/.copilot ~/.continue $CLAUDE_CONFIG_DIR",
    "settings and data of your programs, logins among them": "~/.config ~/.local ~/.cache ~/.var "
    "~/.dbus ~/.vscode ~/.vscode-server ~/snap ~/Library ~/AppData $XDG_CONFIG_HOME $XDG_DATA_HOME "
    "$XDG_STATE_HOME $XDG_CACHE_HOME $XDG_RUNTIME_DIR",
    "passwords and keys": "~/.password-store ~/.gnome2 ~/.kde ~/.kde4 ~/.pki ~/.lastpass ~/.op "
    "~/.age ~/.sops ~/.bitcoin ~/.ethereum ~/.electrum $PASSWORD_STORE_DIR",
    # where it is not in one of the above
    "a profile with logins, cookies and messages": "~/.mozilla ~/.librewolf ~/.waterfox ~/.floorp "
    "~/.zen ~/.opera ~/.thunderbird ~/Mail ~/Maildir",
    "a part of this machine's system": "/etc /usr /bin /sbin /lib /lib32 /lib64 /libx32 /boot /efi "
    "/nix /gnu /snap /System /Library /Applications /private/etc",
    "what the kernel and running programs show of themselves": "/proc /sys /dev /run /var/run "
    "/private/var/run /cores",
    "root's home directory": "/root /private/var/root",
    "data of this machine's services": "/var/lib /var/log /var/spool /var/mail /var/cache /var/db "
    "/var/backups /private/var/db /lost+found",
}
"""Why → which: `~` is the user's home directory, `$NAME` what a variable says."""
SHARED = "/tmp /var/tmp $TMPDIR $TMUX_TMPDIR"  # noqa: S108  (nothing is put there)
"""Where all programs have files and sockets; a directory in one of them is no worse for that."""
MEDIA = "/run/media"
"""Where disks of the user's appear."""


def private(directory: Path, environ: Mapping[str, str]) -> str:
    """Say why somebody may not want a directory to be shown; empty if there is no reason."""
    real = os.path.realpath(directory)
    home = os.path.realpath(environ.get("HOME") or "/")
    if _is_in(real, MEDIA):
        return ""
    # By what they are, too: a file system may not tell capitals, or be mounted at two places.
    around = {identity(one) for one in (Path(real), *Path(real).parents)}
    for holds, names in PRIVATE.items():
        for name in names.split():
            for place in _places(name, home, environ):
                # A part of the system may be where the user lives: `/root`, say.
                is_in = _is_in(real, place) or identity(place) in around
                if is_in and not (_is_in(home, place) and _is_in(real, home)):
                    return f"{name} is private: {holds}"
                if _is_in(place, real) and name[0] != "$" and os.path.lexists(place):
                    return f"{name} is in it, which is private: {holds}"
    for name in SHARED.split():
        if identity(real) in map(identity, _places(name, home, environ)):
            return f"{name} is private: files and sockets of all your programs"
    return ""


def _is_in(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _places(name: str, home: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Find where a place is, and where it leads if it is a link."""
    path = name
    if name[0] == "~":
        path = home.rstrip("/") + name[1:]
    elif name[0] == "$":
        path = environ.get(name[1:], "")
    if path.startswith("/"):
        yield path
        real = os.path.realpath(path)
        if real != path:
            yield real


# -- what is never shown ----------------------------------------------------------------------


def refuse_private(directory: Path, settings: Settings) -> None:
    """Refuse what nobody can agree to.

    Args:
        directory: To be shown, or copied.
        settings: Where nddt and the agents keep what is theirs.

    Raises:
        ConfigError: It is, is in, or has in it a directory of nddt's own, but for the home
            directory and what is above, which may be agreed to; or it has in it what renews a
            login.
    """
    environ = settings.process_environment
    real = directory.resolve()
    has_home = _has(real, Path(environ.get("HOME") or "/"))
    for what, own in _own(environ).items():
        if _has(own, real) or (_has(real, own) and not has_home):
            problem = f"{directory} is shown to no sandbox: in {own} nddt keeps {what}"
            raise ConfigError(problem, "choose another directory")
    for file in _logins(settings):
        if os.path.lexists(file) and _has(real, file):
            problem = f"{directory} is shown to no sandbox: {file} is in it, which renews a login"
            raise ConfigError(problem, "choose a directory without it")


def program_in(directory: Path, environ: Mapping[str, str]) -> Path | None:
    """Find what of nddt's own program is, is in, or has in it a directory; None for nothing.

    Whoever can change that is nddt the next time. In the home directory, and in what is above, all
    of which may be agreed to, it is one of many such.
    """
    real = directory.resolve()
    has_home = _has(real, Path(environ.get("HOME") or "/"))
    for own in (naming.ROOT, Path(sys.prefix).resolve()):
        if _has(own, real) or (_has(real, own) and not has_home):
            return own
    return None


def _has(directory: Path, path: Path) -> bool:
    """Tell whether a path, or a link on its way, is in a directory, or is that directory."""
    is_it = identity(path.absolute()) == identity(directory)
    return is_it or way_through(path.absolute(), (directory,)) is not None


def _own(environ: Mapping[str, str]) -> Mapping[str, Path]:
    return {
        "settings and keys": user_directory(environ),
        "what you have agreed to and what was said": state.state_directory(environ),
        "what it has looked up": state.cache_directory(environ),
        "keys and sockets of all sandboxes": state.runtime_path(environ),
    }


def _logins(settings: Settings) -> Iterator[Path]:
    for name in agents.NAMES:
        yield from agents.get(name).login_files(settings)
