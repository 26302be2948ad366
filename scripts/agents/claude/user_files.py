"""The user's configuration of Claude Code, as a copy that fits a sandbox.

It is read where Claude Code reads it: ~/.claude and ~/.claude.json, or both of them in
`$CLAUDE_CONFIG_DIR`. What only works on this machine stays here, and so do credentials, the
history and all caches, because only what is named below comes along.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import naming
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
USELESS = {
    *("apiKeyHelper", "awsAuthRefresh", "awsCredentialExport", "gcpAuthRefresh"),
    *("otelHeadersHelper", "proxyAuthHelper"),  # programs of this machine
    *("enabledPlugins", "extraKnownMarketplaces"),  # their files stay here
    *("forceLoginMethod", "forceLoginOrgUUID"),  # nobody logs in there
}
"""Settings that make no sense in a sandbox."""
LOCAL_VARIABLES = re.compile(
    "PATH|HOME|SHELL|USER|PWD|TMPDIR|LD_.*|DYLD_.*|XDG_.*|NODE_EXTRA_CA_CERTS|NODE_OPTIONS|"
    "SSL_CERT_.*|.*_PROXY|.*_proxy|CLAUDE_CONFIG_DIR|NDDT_.*"
)
"""Variables that tell of this machine."""
PROJECT_KEYS = ("enabledMcpjsonServers", "disabledMcpjsonServers", "allowedTools")
"""What the user has answered about the directory's own servers and tools."""
SYSTEM = ("/bin/", "/usr/bin/", "/usr/local/bin/", "/usr/sbin/", "/sbin/")
"""Where a program of this machine is likely to be one of the sandbox, too."""

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


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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


# -- settings and servers -------------------------------------------------------------------


@dataclass
class _Translation:
    """Makes commands and values of this machine ones of a sandbox."""

    places: Mapping[str, str]
    """Directory of this machine → the same one in the sandbox."""
    home: str
    """The home directory of this machine."""
    inside: str
    """The configuration's directory in the sandbox."""
    environment: Mapping[str, str]
    referred: set[str] = field(default_factory=set)
    """Files of the configuration that commands refer to."""
    variables: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def fitting(self, text: str) -> str | None:
        """Give a text with its paths in the sandbox; None if one has no place there."""
        for here, there in self.places.items():
            # What goes on is another name, and what comes before makes it another path.
            pattern = rf"(?<![\w/.~-]){re.escape(here)}(?![\w.-])"
            text = re.sub(pattern, there.replace("\\", r"\\"), text)
        here = re.escape(self.inside)
        self.referred |= {
            os.path.normpath(name)
            for name in re.findall(rf"{here}/([^\s\"';|&()<>]+)", text)
            if ".." not in name.split("/")
        }
        rest = re.sub(rf"{here}\b", "", text)
        for there in self.places.values():
            rest = re.sub(rf"(?<![\w/.~-]){re.escape(there)}(?![\w.-])", "", rest)
        home = rf"(?<![\w/.~-])({re.escape(self.home)}|~|\$HOME|\$\{{HOME\}})/"
        return None if re.search(home, rest) else text

    def _is_there(self, program: str) -> bool:
        known = ("$", self.inside, *SYSTEM, *self.places.values())
        return "/" not in program or program.startswith(known)

    def command(self, text: str) -> str | None:
        """Give a shell command that works in a sandbox or does nothing there; None for none."""
        fitting = self.fitting(text)
        first = re.match(r"\s*[\"']?([^\s;|&()<>\"']+)", fitting or "")
        if fitting is None or first is None or not self._is_there(first[1]):
            return None
        if re.fullmatch(r"[\w.+-]+", first[1]):
            return f"command -v {first[1]} >/dev/null 2>&1 || exit 0; {fitting}"
        return fitting

    def hooks(self, found: object) -> dict[str, Any]:
        """Give the hooks whose programs can be there."""
        kept: dict[str, Any] = {}
        for event, matchers in _object(found).items():
            groups = []
            for group in matchers if isinstance(matchers, list) else []:
                inner = _object(group).get("hooks")
                hooks = [self._hook(event, one) for one in inner or [] if isinstance(one, dict)]
                hooks = [one for one in hooks if one]
                groups += [{**group, "hooks": hooks}] if hooks else []
            kept |= {event: groups} if groups else {}
        return kept

    def _hook(self, event: str, hook: dict[str, Any]) -> dict[str, Any] | None:
        if hook.get("type") != "command":
            return hook
        command = self.command(str(hook.get("command", "")))
        if command is None:
            self.left_out.append(f"a hook of {event}")
            return None
        return {**hook, "command": command}

    def settings(self, found: dict[str, Any]) -> dict[str, Any]:
        """Give the part of settings.json that makes sense in a sandbox."""
        self.left_out += sorted(USELESS & set(found))
        kept = {name: value for name, value in found.items() if name not in USELESS | {"env"}}
        for name, value in _object(found.get("env")).items():
            if not LOCAL_VARIABLES.fullmatch(name) and re.fullmatch(r"[A-Za-z_]\w*", name):
                self.variables[name] = str(value)
        if "hooks" in kept:
            kept["hooks"] = self.hooks(kept["hooks"])
        for name in ("statusLine", "subagentStatusLine", "fileSuggestion"):
            program = _object(kept.get(name)).get("command")
            if isinstance(program, str):
                command = self.command(program)
                if command is None:
                    self.left_out.append(name)
                    del kept[name]
                else:
                    kept[name] = {**kept[name], "command": command}
        if isinstance(kept.get("permissions"), dict):
            allowed = {k: v for k, v in kept["permissions"].items() if k != "additionalDirectories"}
            kept["permissions"] = allowed
        return kept

    def servers(self, found: object) -> dict[str, Any]:
        """Give the MCP servers that can work in a sandbox, without their secrets.

        Claude Code expands `${NAME}` in their definitions, so a secret is in a variable.
        """
        kept = {}
        for name, server in _object(found).items():
            one = {**server} if isinstance(server, dict) else {}
            if not self._can_start(one):
                self.left_out.append(f"the MCP server {name}")
                continue
            for part in ("env", "headers"):
                if isinstance(one.get(part), dict):
                    values = one[part].items()
                    one[part] = {k: self._secret(name, k, str(value)) for k, value in values}
            kept[name] = one
        return kept

    def _can_start(self, server: dict[str, Any]) -> bool:
        """Give a server's program and arguments their paths in the sandbox, if they have any."""
        if not isinstance(server.get("command"), str):
            return True
        arguments = server.get("args")
        words = [server["command"], *(arguments if isinstance(arguments, list) else ())]
        program, *others = (self.fitting(str(word)) for word in words)
        if program is None or not self._is_there(program) or None in others:
            return False
        server |= {"command": program, **({"args": others} if others else {})}
        return True

    def _secret(self, server: str, key: str, value: str) -> str:
        def known(match: re.Match[str]) -> str:
            return self.environment.get(match[1]) or (match[2] or "")[2:]

        variable = f"NDDT_MCP_{naming.digest((server, key), 10)}"
        self.variables[variable] = re.sub(r"\$\{(\w+)(:-[^}]*)?\}", known, value)
        return f"${{{variable}}}"


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
    home = settings.process_environment.get("HOME", "/").rstrip("/")
    inside = f"{sandbox_home}/.claude"
    places = _places(settings, home, inside)
    translation = _Translation(places, home, inside, settings.environment)
    kept = translation.settings(read_object(top / "settings.json"))
    state = read_object(_state_file(settings))
    user_servers = translation.servers(state.get("mcpServers"))
    project: dict[str, Any] = {}
    if settings.workspace != "none":
        project = _object(_object(state.get("projects")).get(str(settings.directory)))
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
