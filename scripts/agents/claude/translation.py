"""What commands, settings and MCP servers of this machine become in a sandbox."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scripts import naming

if TYPE_CHECKING:
    from collections.abc import Mapping

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
SYSTEM = ("/bin/", "/usr/bin/", "/usr/local/bin/", "/usr/sbin/", "/sbin/")
"""Where a program of this machine is likely to be one of the sandbox, too."""


def as_object(value: object) -> dict[str, Any]:
    """Return what should be a JSON object; anything else is an empty one."""
    return value if isinstance(value, dict) else {}


@dataclass
class Translation:
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
    expanded: frozenset[str] | None = None
    """Variables that definitions of servers may name; None for all."""
    withheld: set[str] = field(default_factory=set)
    """Those that they do name, and may not."""

    def fitting(self, text: str) -> str | None:
        """Return a text with its paths in the sandbox; None if one has no place there."""
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
        """Return a shell command that works in a sandbox or does nothing there; None for none."""
        fitting = self.fitting(text)
        first = re.match(r"\s*[\"']?([^\s;|&()<>\"']+)", fitting or "")
        if fitting is None or first is None or not self._is_there(first[1]):
            return None
        if re.fullmatch(r"[\w.+/-]+", first[1]):
            return f"command -v {first[1]} >/dev/null 2>&1 || exit 0; {fitting}"
        return fitting

    def hooks(self, found: object) -> dict[str, Any]:
        """Return the hooks whose programs can be there."""
        kept: dict[str, Any] = {}
        for event, matchers in as_object(found).items():
            groups = []
            for group in matchers if isinstance(matchers, list) else []:
                inner = as_object(group).get("hooks")
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
        """Return the part of settings.json that makes sense in a sandbox."""
        self.left_out += sorted(USELESS & set(found))
        kept = {name: value for name, value in found.items() if name not in USELESS | {"env"}}
        for name, value in as_object(found.get("env")).items():
            if not LOCAL_VARIABLES.fullmatch(name) and re.fullmatch(r"[A-Za-z_]\w*", name):
                self.variables[name] = str(value)
        if "hooks" in kept:
            kept["hooks"] = self.hooks(kept["hooks"])
        for name in ("statusLine", "subagentStatusLine", "fileSuggestion"):
            program = as_object(kept.get(name)).get("command")
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
        """Return the MCP servers that can work in a sandbox, without their secrets.

        Claude Code expands `${NAME}` in their definitions, so a secret is in a variable.
        """
        kept = {}
        for name, server in as_object(found).items():
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
        """Translate a server's program and arguments to paths in the sandbox, if they have any."""
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
            if self.expanded is not None and match[1] not in self.expanded:
                self.withheld |= {match[1]} & self.environment.keys()
                return (match[2] or "")[2:]
            return self.environment.get(match[1]) or (match[2] or "")[2:]

        variable = f"NDDT_MCP_{naming.digest((server, key), 10)}"
        self.variables[variable] = re.sub(r"\$\{(\w+)(:-[^}]*)?\}", known, value)
        return f"${{{variable}}}"
