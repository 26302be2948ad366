"""The user's configuration of Claude Code, as a copy that fits a sandbox.

It is read where Claude Code reads it: ~/.claude and ~/.claude.json, or both of them in
`$CLAUDE_CONFIG_DIR`. What only works on this machine stays here, and so do credentials, the
history and all caches, because only what is named below comes along.
"""

from __future__ import annotations

import errno
import json
import logging
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.agents.claude.translation import Translation, as_object
from scripts.contracts.provisions import File, Provision
from scripts.machine import foreign_json, shown_places
from scripts.machine.own_files import OwnFiles
from scripts.sandbox_places import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")

SETTINGS = 32 << 20
"""Bytes of a file of Claude Code's own, which has a line for each project."""
LIMIT = 5 << 20
"""Bytes of files that come along at most."""
MOST_FILES = 5000
"""How many files are looked at, at most: a link may lead to all of a disk."""
DIRECTORIES = ("agents", "commands", "skills", "output-styles", "rules", "hooks", "themes")
FILES = ("keybindings.json",)
LOGIN = ".credentials.json"
"""What renews a login: it never comes along, whoever names it."""
PASSED_OVER = {".git", "node_modules", ".venv", "__pycache__", ".DS_Store"}
"""What is in such directories and can be made anew."""
NOWHERE = Path("/nonexistent")
"""A configuration without anything in it."""
PROJECT_KEYS = ("enabledMcpjsonServers", "disabledMcpjsonServers", "allowedTools")
"""What the user has answered about the directory's own servers and tools."""
_MERGE = """
def apply($old; $new):
  reduce ($old // [])[] as [$p, $v] (. // {}; if getpath($p) == $v then delpaths([$p]) else . end)
  | reduce ($new // [])[] as [$p, $v] (.; setpath($p; $v));
apply($old[0][$which]; $new[0][$which])
"""
_BEFORE = """
(
umask 077; mkdir -p ~/.claude; cd "$NDDT_SESSION/claude"; old=~/.claude/.nddt.json
exec 9>~/.claude/.nddt.lock; flock 9 2>/dev/null
if [ ! -e $old ] && [ ! -s ~/.claude.json ] && [ ! -s ~/.claude/settings.json ]; then
  cp .claude.json ~/; cp settings.json ~/.claude/; cp brought $old
elif ! cmp -s brought $old; then
  [ -e $old ] || echo '{{}}' >$old
  for which in .claude.json .claude/settings.json; do
    f=~/$which; [ -s $f ] || echo '{{}}' >$f
    jq --arg which $which --slurpfile old $old --slurpfile new brought '{merge}' $f >$f.nddt &&
      mv $f.nddt $f
  done
  jq -r --slurpfile new brought '((.files // []) - $new[0].files)[]' $old |
    while read -r f; do rm -f ~/.claude/"$f"; done
  cp brought $old
fi
)
"""
"""Puts each value in its place, and takes away what an earlier session has brought and this
one does not, unless it has been changed in the sandbox."""


def directory(settings: Settings) -> Path:
    """Name the directory of the configuration on this machine."""
    environ = settings.process_environment
    chosen = environ.get("CLAUDE_CONFIG_DIR")
    return Path(chosen) if chosen else Path(environ.get("HOME", "/"), ".claude")


def _state_file(settings: Settings) -> Path:
    chosen = settings.process_environment.get("CLAUDE_CONFIG_DIR")
    home = settings.process_environment.get("HOME", "/")
    return Path(chosen or home, ".claude.json")


def _is_open_to_sandboxes(settings: Settings, top: Path) -> bool:
    """Tell whether a sandbox could have written the directory, which then is nobody's own.

    If that is a link of the user's, no further one is followed, and no variable looked up.
    """
    mounts = (one.source for one in settings.mounts if not one.readonly)
    more = (*shown_places.around(settings.directory), *mounts)
    suspect = shown_places.known(settings.process_environment, more)
    way = top.parent if top.is_symlink() else top
    return shown_places.leads_into(str(way), suspect)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is none, which is Claude Code's own to complain of."""
    try:
        found = foreign_json.read_json(path, most=SETTINGS)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _own_object(own: OwnFiles, name: str, unread: list[str]) -> dict[str, Any]:
    """Read a JSON object of the user's own that comes along; empty if there is none."""
    try:
        found = foreign_json.parse(own.read(name, SETTINGS)[0], what=name, most=SETTINGS)
    except OSError as error:
        unread += [] if error.errno == errno.ENOENT else [name]
        return {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# -- files ----------------------------------------------------------------------------------


@dataclass
class _Luggage:
    """Files, as many as may come along."""

    files: dict[str, File] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    """What there was no room for."""
    unread: list[str] = field(default_factory=list)
    """What is no file, or a link behind a link."""
    size: int = 0

    def add(self, own: OwnFiles, name: str) -> None:
        """Take a regular file."""
        if name in self.files:
            return
        if len(self.files) >= MOST_FILES:
            self.skipped.append(name)
            return
        try:
            content, mode = own.read(name, LIMIT - self.size)
        except OSError as error:
            if error.errno == errno.EFBIG:
                self.skipped.append(name)
            elif error.errno != errno.ENOENT:
                self.unread.append(name)
            return
        self.size += len(content)
        self.files[name] = File(content=content, mode=0o700 if mode & 0o100 else 0o600)


def _pack(top: Path, own: OwnFiles, more: set[str], unread: list[str]) -> _Luggage:
    """Collect the files of a configuration.

    Args:
        top: Its directory.
        own: The same.
        more: Files in it that its settings refer to.
        unread: What of it was not to be read before.
    """
    found = _Luggage(unread=unread)
    for name in FILES:
        found.add(own, name)
    for path in sorted(top.glob("*.md")):
        found.add(own, path.name)
    for name in sorted(more):
        found.add(own, name)
    for directory in DIRECTORIES:
        for name in islice(own.names(directory, PASSED_OVER), MOST_FILES):
            found.add(own, name)
    return found


# -- all of it ------------------------------------------------------------------------------


def _loopback_urls(servers: Mapping[str, Any]) -> dict[str, str]:
    """List the addresses of servers that may be on this machine."""
    from urllib.parse import urlsplit  # noqa: PLC0415  (few have any)

    found = {}
    for name, server in servers.items():
        url = str(server.get("url", ""))
        try:
            port = urlsplit(url).port or 0
        except ValueError:
            continue
        if port >= 1024:  # one below would need root, which the sandbox's server is not
            found[f"the MCP server {name}"] = url
    return found


def _places(settings: Settings, home: str, inside: str) -> dict[str, str]:
    """Return what of this machine is in the sandbox, and where."""
    tops = [str(directory(settings)), f"{home}/.claude"]
    tops += ["~/.claude", "$HOME/.claude", "${HOME}/.claude"]
    places = {str(one.source): one.target for one in settings.mounts}
    places |= {str(one.named): one.target for one in settings.mounts}
    places |= dict.fromkeys(tops, inside)
    if settings.workspace != "none":
        places[str(settings.directory)] = WORKSPACE
    return places


def read_configuration(settings: Settings, sandbox_home: str) -> tuple[Provision, dict[str, str]]:
    """Read the configuration.

    Args:
        settings: Where it is, and whose directory it is for.
        sandbox_home: The home directory in the sandbox.

    Returns:
        What comes along, and by name the addresses of MCP servers, which may be on this machine.
    """
    top = directory(settings)
    home = settings.process_environment.get("HOME", "").rstrip("/") or "/root"
    inside = f"{sandbox_home}/.claude"
    places = _places(settings, home, inside)
    translation = Translation(places, home, inside, settings.own_environment)
    file = _state_file(settings)
    if _is_open_to_sandboxes(settings, top):
        log.warning("%s stays here, since a sandbox may change it — move it elsewhere", top)
        top, file = NOWHERE, NOWHERE / file.name
    never, unread = (top / LOGIN,), list[str]()
    own = OwnFiles(top, Path(home), never)
    kept = translation.settings(_own_object(own, "settings.json", unread))
    beside = OwnFiles(file.parent, Path(home), never)
    state = _own_object(beside, file.name, unread)
    if beside.is_linked(file.name):  # to where a sandbox may have written it
        translation.expanded = frozenset(settings.env_vars)
    user_servers = translation.servers(state.get("mcpServers"))
    project: dict[str, Any] = {}
    if settings.workspace != "none":
        project = as_object(as_object(state.get("projects")).get(str(settings.directory)))
    project_servers = translation.servers(project.get("mcpServers"))
    answers = {key: project[key] for key in PROJECT_KEYS if project.get(key)}
    _warn_of_withheld(file, translation.withheld)
    luggage = _pack(top, own, translation.referred, unread)
    _warn_of(top, luggage)
    files = {f".claude/{name}": file for name, file in luggage.files.items()}
    variables = translation.variables
    brings = Provision(variables=variables, secret=frozenset(variables))
    if files or kept or user_servers or project_servers or answers or settings.persistent:
        brings += Provision(
            files={**files, **_values(kept, user_servers, project_servers, answers, luggage.files)},
            before=(_BEFORE.format(merge=_MERGE.strip()).strip(),),
            plan_lines=_shown(top, luggage, translation.left_out),
        )
    return brings, _loopback_urls({**user_servers, **project_servers})


def _values(
    settings: Mapping[str, Any],
    user_servers: Mapping[str, Any],
    project_servers: Mapping[str, Any],
    answers: Mapping[str, Any],
    files: Iterable[str],
) -> dict[str, File]:
    """Write the values as whole files for a new sandbox, and one by one for any other."""
    there = {**answers, **({"mcpServers": project_servers} if project_servers else {})}
    place = ["projects", WORKSPACE]
    state = {
        **({"mcpServers": user_servers} if user_servers else {}),
        **({"projects": {WORKSPACE: there}} if there else {}),
    }
    brought = {
        ".claude.json": [
            *((["mcpServers", name], one) for name, one in user_servers.items()),
            *(([*place, "mcpServers", name], one) for name, one in project_servers.items()),
            *(([*place, name], value) for name, value in answers.items()),
        ],
        ".claude/settings.json": [([name], value) for name, value in settings.items()],
        "files": sorted(files),
    }
    objects = {".claude.json": state, "settings.json": settings, "brought": brought}
    return {
        f"session/claude/{name}": File(content=json.dumps(one, sort_keys=True).encode())
        for name, one in objects.items()
    }


def _warn_of(top: Path, luggage: _Luggage) -> None:
    for names, why in (
        (luggage.skipped, f"is over {LIMIT >> 20} MB"),
        (luggage.unread, "has what is no file of its own, or a link behind a link"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            some = ", ".join(names[:3])
            log.warning("the configuration in %s %s: %s%s stay here", top, why, some, more)


def _warn_of_withheld(file: Path, names: set[str]) -> None:
    if names:
        some = ", ".join(sorted(names)[:5]) + (" …" if len(names) > 5 else "")
        hint = "name them in NDDT_ENV_VARS if they are to enter"
        log.warning("%s is a link, so its MCP servers get no %s — %s", file, some, hint)


def _shown(top: Path, luggage: _Luggage, left_out: list[str]) -> tuple[tuple[str, str], ...]:
    size = -(-luggage.size // 1024)
    lines = [("brings", f"{top}: settings and {len(luggage.files)} files, {size} KiB")]
    lines += [("stays here", ", ".join(dict.fromkeys(left_out)))] if left_out else []
    return tuple(lines)
