"""The user's configuration of Claude Code, as a copy that fits a sandbox.

It is read where Claude Code reads it: ~/.claude and ~/.claude.json, or both of them in
`$CLAUDE_CONFIG_DIR`. What only works on this machine stays here, and so do credentials, the
history and all caches, because only what is named below comes along.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.agents.claude.translation import Translation, as_object
from scripts.provisions import File, Provision

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from scripts.settings import Settings

log = logging.getLogger("nddt")

LIMIT = 5 << 20
"""Bytes of files that come along at most."""
MOST_FILES = 5000
"""How many files are looked at, at most: a link may lead to all of a disk."""
DIRECTORIES = ("agents", "commands", "skills", "output-styles", "rules", "hooks", "themes")
FILES = ("keybindings.json",)
PASSED_OVER = {".git", "node_modules", ".venv", "__pycache__", ".DS_Store"}
"""What is in such directories and can be made anew."""
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
    """Give the directory of the configuration on this machine."""
    environ = settings.process_environment
    chosen = environ.get("CLAUDE_CONFIG_DIR")
    return Path(chosen) if chosen else Path(environ.get("HOME", "/"), ".claude")


def _state_file(settings: Settings) -> Path:
    chosen = settings.process_environment.get("CLAUDE_CONFIG_DIR")
    home = settings.process_environment.get("HOME", "/")
    return Path(chosen or home, ".claude.json")


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is none, which is Claude Code's own to complain of."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# -- files ----------------------------------------------------------------------------------


@dataclass
class _Luggage:
    """Files, as many as may come along."""

    files: dict[str, File] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, path: Path, name: str) -> None:
        """Take a regular file, or what a link leads to."""
        if name in self.files:
            return
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                return
            if self.size + found.st_size > LIMIT or len(self.files) >= MOST_FILES:
                self.skipped.append(name)
                return
            content = path.read_bytes()
        except OSError:  # a link to nowhere, or what is not ours to read
            return
        self.size += len(content)
        mode = 0o700 if found.st_mode & 0o100 else 0o600
        self.files[name] = File(content=content, mode=mode)


def _tree(top: Path) -> Iterator[Path]:
    """Give the files of a directory, also through links, and each directory once."""
    seen = set()
    count = 0
    for where, directories, names in os.walk(top, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            directories.clear()
            continue
        seen.add(real)
        directories[:] = sorted(set(directories) - PASSED_OVER)
        for name in sorted(set(names) - PASSED_OVER):
            yield Path(where, name)
            count += 1
            if count > MOST_FILES:
                return


def _pack(top: Path, more: set[str]) -> _Luggage:
    """Collect the files of a configuration.

    Args:
        top: Its directory.
        more: Files in it that its settings refer to.
    """
    found = _Luggage()
    for name in FILES:
        found.add(top / name, name)
    for path in sorted(top.glob("*.md")):
        found.add(path, path.name)
    for name in sorted(more):
        found.add(top / name, name)
    for name in DIRECTORIES:
        for path in _tree(top / name):
            found.add(path, str(path.relative_to(top)))
    return found


# -- all of it ------------------------------------------------------------------------------


def _loopback_urls(servers: Mapping[str, Any]) -> dict[str, str]:
    """Give the addresses of servers that may be on this machine."""
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
    """Give what of this machine is in the sandbox, and where."""
    tops = [str(directory(settings)), f"{home}/.claude"]
    tops += ["~/.claude", "$HOME/.claude", "${HOME}/.claude"]
    places = {str(one.source): one.target for one in settings.mounts}
    places |= dict.fromkeys(tops, inside)
    if settings.workspace != "none":
        places[str(settings.directory)] = "/workspace"
    return places


def read(settings: Settings, sandbox_home: str) -> tuple[Provision, dict[str, str]]:
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
    kept = translation.settings(read_object(top / "settings.json"))
    state = read_object(_state_file(settings))
    user_servers = translation.servers(state.get("mcpServers"))
    project: dict[str, Any] = {}
    if settings.workspace != "none":
        project = as_object(as_object(state.get("projects")).get(str(settings.directory)))
    project_servers = translation.servers(project.get("mcpServers"))
    answers = {key: project[key] for key in PROJECT_KEYS if project.get(key)}
    luggage = _pack(top, translation.referred)
    _warn_of(top, luggage.skipped)
    files = {f".claude/{name}": file for name, file in luggage.files.items()}
    variables = translation.variables
    brings = Provision(variables=variables, secret=frozenset(variables))
    if files or kept or user_servers or project_servers or answers or settings.persistent:
        brings += Provision(
            files={**files, **_values(kept, user_servers, project_servers, answers, luggage.files)},
            before=(_BEFORE.format(merge=_MERGE.strip()).strip(),),
            shown=_shown(top, luggage, translation.left_out),
        )
    return brings, _loopback_urls({**user_servers, **project_servers})


def _values(
    settings: Mapping[str, Any],
    user_servers: Mapping[str, Any],
    project_servers: Mapping[str, Any],
    answers: Mapping[str, Any],
    files: Iterable[str],
) -> dict[str, File]:
    """Give the values as whole files for a new sandbox, and one by one for any other."""
    there = {**answers, **({"mcpServers": project_servers} if project_servers else {})}
    place = ["projects", "/workspace"]
    state = {
        **({"mcpServers": user_servers} if user_servers else {}),
        **({"projects": {"/workspace": there}} if there else {}),
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


def _warn_of(top: Path, skipped: list[str]) -> None:
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        log.warning(
            "the configuration in %s is over %d MB: %s%s stay here",
            top,
            LIMIT >> 20,
            ", ".join(skipped[:3]),
            more,
        )


def _shown(top: Path, luggage: _Luggage, left_out: list[str]) -> tuple[tuple[str, str], ...]:
    size = -(-luggage.size // 1024)
    lines = [("brings", f"{top}: settings and {len(luggage.files)} files, {size} KiB")]
    lines += [("stays here", ", ".join(dict.fromkeys(left_out)))] if left_out else []
    return tuple(lines)
