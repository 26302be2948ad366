"""The shell text that runs inside a sandbox; pure functions.

`$NDDT_RUN` is the sandbox's private directory, in memory where there is a /dev/shm. Of each
session it holds `ID.sh`, its script, until that has started, `ID.pid` while it runs, and
`ID.d`, a directory of its own that `$NDDT_SESSION` names. What must have a path that is known
outside, such as a forwarded socket, or must be executable, is in /tmp/nddt; see `place`.
"""

from __future__ import annotations

import base64
import shlex
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.sandbox_places import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import ModuleType

PLACES = "/tmp/nddt"  # noqa: S108  (a directory of the sandbox, which has one user)

PRIVATE = (PLACES, "/dev/shm/nddt")  # noqa: S108
"""Directories in which there is what nobody but the sandbox is to see."""

_SSHD = (
    "/usr/sbin/sshd -i -e -f /dev/null -o HostKey=$d/host -o AuthorizedKeysFile=$d/keys.$k "
    "-o SetEnv=NDDT_RUN=$d -o UsePAM=no -o StrictModes=no -o PidFile=none -o MaxSessions=200 "
    "-o PermitRootLogin=prohibit-password -o PasswordAuthentication=no "
    "-o KbdInteractiveAuthentication=no -o StreamLocalBindUnlink=yes -o PrintLastLog=no "
    "-o PrintMotd=no -o X11Forwarding=no -o LogLevel=ERROR"
)

_KEY = 'k=$(printf %s "$1" | cksum | tr -d " "); printf "%s\\n" "$1" >keys.$$; mv keys.$$ keys.$k; '

SERVER = (
    "u=$(umask); umask 077; d=/dev/shm; [ -w $d ] || d=/tmp; d=$d/nddt; "
    f"mkdir -p $d {PLACES}; cd $d; "
    "export -p >env.$$; mv env.$$ env; "
    "[ -e host ] || { ssh-keygen -q -t ed25519 -N '' -f host.$$ && mv host.$$ host; }; "
    f"{_KEY}"
    # A connection over a network may be dead without its server's knowing.
    'if [ -n "$2" ]; then p=$(cat served.$k 2>/dev/null); '
    'case $(cat "/proc/$p/comm" 2>/dev/null) in sshd*) kill $p ;; esac; echo $$ >served.$k; '
    'set -- -o "ClientAliveInterval=$2"; else set --; fi; cd /; umask $u; '
    f"exec {_SSHD} -o Subsystem='sftp internal-sftp' "
    '"$@"'
)
"""Serves one SSH connection on stdin and stdout; `$1` is the client's public key.

`$2` is how many seconds the client may be silent; then only the newest connection with its
key is served. It needs no privilege: sshd in inetd mode can always log its own user in
(sshd(8), -i).
"""

# sshd runs this in place of every command, and names the command or the subsystem in a variable.
# With the image's own environment, which a login shell would replace.
_AS_AT_HOME = (
    f'. "$NDDT_RUN/env"; cd {WORKSPACE} || cd; c=$SSH_ORIGINAL_COMMAND; '
    "unset SSH_ORIGINAL_COMMAND; case $c in sftp) exec /usr/lib/openssh/sftp-server ;; "
    '"") exec bash ;; *) exec bash -c "$c" ;; esac'
)

GUEST_SERVER = (
    f"u=$(umask); umask 077; d=$NDDT_RUN; cd $d; {_KEY}cd /; umask $u; "
    f"exec {_SSHD} -o Subsystem='sftp sftp' -o 'ForceCommand={_AS_AT_HOME}'"
)
"""Serves an SSH client of the user's own in a session of ours; `$1` is its public key.

Commands have the image's environment and begin in /workspace, and so does sftp.
"""

AGENT = "agent"
"""Name of the tmux session in which a persistent sandbox's agent lives."""

AGENT_RUNS = f"tmux -L nddt-{AGENT} has-session 2>/dev/null"
"""Command that succeeds if an interactive agent runs."""

AGENT_PORTS = f"{AGENT_RUNS} && {{ tmux -L nddt-{AGENT} show-environment NDDT_PORT_MAP || :; }}"
"""The same, and prints the ports that it knows, if any, as a variable."""

DETACH = "bind -n C-\\\\ detach-client"

TMUX_CONF = (
    "set -g status off",
    # Every key but Ctrl-\ belongs to the agent.
    "set -g prefix None",
    # Keys that arrive together, as over a slow line, are no paste: Ctrl-\ would quit the agent.
    "set -g assume-paste-time 0",
    "set -g mouse on",
    "set -g history-limit 50000",
    "set -s escape-time 0",
    "set -g focus-events on",
    "set -g allow-passthrough on",
    "set -g default-terminal tmux-256color",
    "set -as terminal-features ',*:RGB:clipboard'",
    "set -g set-titles on",
)

# Takes so many bytes from stdin, and no more, as its program. One line, as --verbose shows it.
_PROGRAM = (
    "import os, sys; n = int(sys.argv[1]); s = b''; "
    "[s := s + (os.read(0, n - len(s)) or sys.exit(1)) for _ in iter(lambda: len(s) < n, False)]; "
    "exec(compile(s, sys.argv[2], 'exec')); main(sys.argv[3])"
)


# Of this sandbox, in version 2 of cgroups or in 1.
_OUT_OF_MEMORY = (
    "$(grep -hs '^oom_kill ' /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control)"
)
_SAY_OUT_OF_MEMORY = (
    f'[ "$code" != 137 ] || [ "$nddt_killed" = "{_OUT_OF_MEMORY}" ] || '
    "echo 'nddt: the sandbox ran out of memory — NDDT_MEMORY says how much it has' >&2"
)


def server(public_key: str, *, silent_s: int | None = None) -> tuple[str, ...]:
    """Build the arguments of `sh` that serve one connection.

    Args:
        public_key: The only one that is let in.
        silent_s: For a connection that may be dead without our knowing: after three times so
            many seconds of silence it is taken for that.
    """
    return ("-c", SERVER, "nddt-sshd", public_key, str(silent_s or ""))


def place(session: str, name: str) -> str:
    """Name the path of something of a session's, which goes with it."""
    return f"{PLACES}/{session}-{name}"


def without_places(session: str) -> str:
    """Build the command that removes what is at such paths."""
    return f"rm -rf -- {place(session, '*')}"


def guest_server(public_key: str) -> str:
    """Build the command that serves a client of the user's own, which has this key."""
    return "exec " + shlex.join(("sh", "-c", GUEST_SERVER, "nddt-sshd", public_key))


def attend(*, is_new: bool, idle_s: int) -> str:
    """Build the command that says `ready` and then lasts as long as the agent in tmux.

    It ends with its stdin, too, as every client's stdin does with the client.

    Args:
        is_new: Whether the agent is only about to start, for which it has a minute.
        idle_s: Seconds without output and without a terminal after which nobody uses it; 0 for
            never.
    """
    tmux, agent_exit = f"tmux -L nddt-{AGENT}", f'"$NDDT_RUN/{AGENT}.exit"'
    awaited = (
        f"i=0; until {AGENT_RUNS}; do "
        f"[ ! -e {agent_exit} ] && [ $i -lt 600 ] || exit 0; i=$((i + 1)); sleep 0.1; done; "
    )
    busy = (
        f'[ -n "$({tmux} list-clients)" ] || [ $(($(date +%s) - '
        f"$({tmux} display-message -p '#{{window_activity}}'))) -lt {idle_s} ]"
    )
    # A channel that nobody ever signals: the server's end is what is waited for.
    wait = f"{tmux} wait-for nddt-never 2>/dev/null"
    if idle_s:
        wait = f"while {AGENT_RUNS} && {{ {busy}; }}; do sleep 2; done"
    return (
        (f"{AGENT_RUNS} || rm -f {agent_exit}; " if is_new else "")
        + "exec 3<&0; echo ready; "
        + f"( {awaited if is_new else ''}{wait} ) 3<&- >/dev/null & w=$!; "
        + "(cat <&3 >/dev/null; kill $w) >/dev/null 2>&1 & c=$!; "
        + "wait $w; kill $c 2>/dev/null; exit 0"
    )


def python(name: str, size: int, argument: str) -> str:
    """Build the command that runs `main(argument)` of a Python module that is sent to it.

    Args:
        name: What the module is called where it fails.
        size: Bytes of its text, the first thing on stdin.
        argument: What `main` is called with.
    """
    return "exec " + shlex.join(("python3", "-ESc", _PROGRAM, str(size), name, argument))


def bundle(main: ModuleType, needed: Iterable[ModuleType], *, packed: bool = True) -> bytes:
    """Write a text that is a Python module, for `python`, with others that it imports.

    Args:
        main: The module.
        needed: The others, each after those that it imports itself.
        packed: Make it a quarter as long; to unpack it takes some 10 ms longer there.
    """
    lines = ["import sys, types"]
    for one in needed:
        parts = one.__name__.split(".")
        above = [".".join(parts[:n]) for n in range(1, len(parts))]
        lines += [f"sys.modules.setdefault({name!r}, types.ModuleType({name!r}))" for name in above]
        lines += [
            f"m = sys.modules[{one.__name__!r}] = types.ModuleType({one.__name__!r})",
            f"setattr(sys.modules[{above[-1]!r}], {parts[-1]!r}, m)",
            f"exec(compile({_text(one)!r}, {one.__name__!r}, 'exec'), m.__dict__)",
        ]
    text = "\n".join((*lines, f"exec({_text(main)!r})\n")).encode()
    if not packed:
        return text
    tight = base64.b85encode(zlib.compress(text))
    return b"import base64, zlib; exec(zlib.decompress(base64.b85decode(%r)))" % tight


def _text(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")


def script(
    argv: Sequence[str],
    variables: Mapping[str, str],
    *,
    directory: str,
    before: str = ":",
    after: str = ":",
) -> str:
    """Write the script of a session, which runs one program.

    Args:
        argv: The program and its arguments; they reach it unchanged.
        variables: Its environment, on top of the sandbox's own.
        directory: Where it runs.
        before: Shell text that prepares the sandbox.
        after: Shell text that looks at what happened; `$code` is the program's exit code.

    Returns:
        A POSIX shell script that exits as the program did, with 128 + n for signal n.
    """
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    lines = [
        # It may hold secrets, so it goes before anything else can fail.
        'rm -f -- "$0"',
        # sshd starts a session with a bare environment; the image's own comes first.
        '. "$NDDT_RUN/env"',
        'export NDDT_SESSION="${0%.sh}.d"',
        *exports,
        # An unknown terminal would leave the agent without a screen.
        '[ -z "$TERM" ] || tput longname >/dev/null 2>&1 || export TERM=xterm-256color',
        f'cd -- {shlex.quote(directory)} || {{ rm -f -- "${{0%.sh}}.pid"; exit 69; }}',
        before,
        f"nddt_killed={_OUT_OF_MEMORY}",
        # Ctrl-C is for the program; with a trap this shell outlives it and reports its end.
        "trap : INT QUIT",
        'nddt_end="${0%.sh}.end"; [ -p "$nddt_end" ] || nddt_end=/dev/null',
        'exec 9<>"$nddt_end"',
        f"set -- {shlex.join(argv)}",
        # A shell comments on a child that a signal ended; the program would not have. Only in
        # a subshell is the comment's stderr not the program's.
        "exec 3>&2 2>/dev/null",
        '(exec "$@" 2>&3 3>&- 9>&-)',
        "code=$?",
        "exec 2>&3 3>&-",
        _SAY_OUT_OF_MEMORY,
        after,
        'rm -rf -- "${0%.sh}.pid" "${0%.sh}.end" "$NDDT_SESSION"',
        'echo "$code" >&9',
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def lease(session: str, size: int | None, *, durable: bool = False) -> str:
    """Build the command that stores a script, says `ready` and stands for the client's life.

    It says `ended CODE` when the program has ended, and `done` in the end: something that the
    program has left running can keep both its session and this one from telling by their own end.
    At the end of its stdin it ends the session's process group, if that still runs: first
    with SIGTERM, after 2 s with SIGKILL.

    Args:
        session: The session's id.
        size: Bytes of the script, the first thing on stdin; None if it is there already.
        durable: Whether the end of the connection is no reason to end the session: only the
            client's own end is one, of which its ssh tells a server that lives on.
    """
    store, tell = "", "w=; "
    if size is not None:
        store = f'head -c {size} >"$f.sh" && mkfifo "$f.end" || {{ rm -f "$f.sh"; exit 74; }}; '
        # Only a session's script writes to it; its end is the file's, too, if it was killed.
        tell = '{ read -r c <"$f.end"; echo "ended ${c:-137}"; } & w=$!; '
    spare = "sleep 0.3; kill -s 0 $PPID 2>/dev/null || exit 0; " if durable else ""
    return (
        f'f="$NDDT_RUN/{session}"; umask 077; {store}{tell}echo ready; cat >/dev/null; '
        f'[ -z "$w" ] || kill "$w" 2>/dev/null; trap "echo done" EXIT; {spare}'
        # Without its script, a session that starts only now ends at once.
        'rm -f "$f.sh" "$f.end"; '
        'p=$(cat "$f.pid" 2>/dev/null) || exit 0; '
        "kill -s TERM -- -$p 2>/dev/null; "
        "for i in 1 2 3 4 5 6 7 8; do sleep 0.25; kill -s 0 -- -$p 2>/dev/null || break; done; "
        "kill -s KILL -- -$p 2>/dev/null; "
        f'rm -rf "$f.pid" "$f.d"; {without_places(session)}'
    )


def run_stored(session: str) -> str:
    """Build the command that runs a stored script."""
    # The pid first: a lease that ends in between either sees it or takes the script away.
    return f'f="$NDDT_RUN/{session}"; echo $$ >"$f.pid"; exec sh "$f.sh"'


def store(session: str) -> str:
    """Build the command that stores the script on its stdin."""
    return f'umask 077; cat >"$NDDT_RUN/{session}.sh"'


def start_in_tmux(session: str, name: str) -> str:
    """Build the command that runs a stored script in tmux, or comes back to what runs there.

    It exits as the program did, with 0 if the terminal only detached.

    Args:
        session: The session's id; its script is there until it has been started.
        name: What tmux calls it: `AGENT`, which can be left running, or the session's id.
    """
    keys = (DETACH,) if name == AGENT else ()
    conf = shlex.join(("printf", "%s\\n", *TMUX_CONF, *keys))
    # A server of its own: what it was configured with when it started is all it knows.
    tmux = f'tmux -u -L nddt-{name} -f "$d/{name}.conf"'
    return (
        f'd=$NDDT_RUN; f=$d/{session}; e=$d/{name}.exit; {conf} >"$d/{name}.conf"; '
        f'if [ -e "$f.sh" ]; then rm -f "$e"; {tmux} new-session -A -s {name} '
        '"echo \\$\\$ >$f.pid; sh $f.sh; echo \\$? >$e.new; mv $e.new $e"; rm -f "$f.sh"; '
        f"else {tmux} attach-session; fi; "
        f'[ ! -e "$e" ] || exit "$(cat "$e")"; {tmux} has-session 2>/dev/null'
    )
