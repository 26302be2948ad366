"""Keys that stay on this machine: the sandbox uses them and cannot have them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.github_double import GitHub
from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import Caller, Terminal, end, ended, eventually, processes
from tests.integration.test_contract_terminal import say
from tests.scripted_model import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.contract import Daytona
    from tests.scripted_model import ScriptedModel

KEY = f"sk-ant-test-{os.urandom(16).hex()}"
"""Nobody else's, so that wherever it is found it comes from here."""
VARIABLES = {
    "ANTHROPIC_API_KEY": ("x-api-key", KEY),
    "ANTHROPIC_AUTH_TOKEN": ("authorization", f"Bearer {KEY}"),
    "CLAUDE_CODE_OAUTH_TOKEN": ("authorization", f"Bearer {KEY}"),
}
ASK = (
    'curl -sS -o /tmp/answer -w "%{http_code}\\n" -H "x-api-key: $ANTHROPIC_API_KEY" '
    '-d \'{"messages": []}\' "$ANTHROPIC_BASE_URL/v1/messages"'
)
"""Shell text that asks the model and prints the answer's status."""
HUNT = r"""
import json, os, sys
mine = os.environb.get(b"ANTHROPIC_API_KEY") or os.environb[b"GH_ENTERPRISE_TOKEN"]
words = {"key": sys.argv[1][::-1].encode(), "placeholder": mine}
found = {name: [] for name in words}
def look(where, data):
    for name, word in words.items():
        if word in data:
            found[name].append(where)
def read(path):
    if not os.path.isfile(path):  # at a pipe one would wait
        return
    try:
        with open(path, "rb") as file:
            look(path, file.read(1 << 26))
    except OSError:
        pass
def memory(pid):
    try:
        lines = open(f"/proc/{pid}/maps").read().splitlines()
        with open(f"/proc/{pid}/mem", "rb", 0) as file:
            for line in lines:
                start, end = (int(word, 16) for word in line.split()[0].split("-"))
                if line.split()[1][0] == "r" and end - start < 1 << 28:
                    try:
                        file.seek(start)
                        look(f"/proc/{pid}/mem", file.read(end - start))
                    except (OSError, OverflowError, ValueError):
                        pass
    except OSError:
        pass
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline"):
        read(f"/proc/{pid}/{name}")
    if int(pid) != os.getpid():
        memory(pid)
for top in ("/dev/shm", "/etc", "/home", "/opt", "/root", "/run", "/tmp", "/var", "/workspace"):
    for where, directories, names in os.walk(top):
        for name in names:
            read(os.path.join(where, name))
print(json.dumps(found))
"""
"""Looks for the key, which it is told backwards, and for what takes its place."""


@contextmanager
def echo() -> Iterator[str]:
    """Have a server that answers with all that it is sent, in the head and in the body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = f"{self.requestline}\n{self.headers}".encode()
            self.send_response(200)
            self.send_header("x-seen", f"{self.headers.get('x-api-key')}")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def keyless(caller: Caller, url: str, **variables: str) -> Caller:
    """Have a key that is to stay here."""
    known = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY, **variables}
    return caller.having(NDDT_MODEL_ACCESS="tunnel", **known)


def sshd_memory() -> Iterator[tuple[str, bytes]]:
    """Give all that the sandboxes' SSH servers have in their memory, as only root here can."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if not entry.name.isdigit() or not (entry / "comm").read_text().startswith("sshd"):
                continue
            lines = (entry / "maps").read_text().splitlines()
            with (entry / "mem").open("rb", 0) as memory:
                for line in lines:
                    begin, finish = (int(word, 16) for word in line.split()[0].split("-"))
                    with suppress(OSError, OverflowError, ValueError):
                        memory.seek(begin)
                        yield entry.name, memory.read(finish - begin)


# -- the real agent -------------------------------------------------------------------------


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_agent_answers_without_a_key(
    nddt: Caller, model: Callable[..., ScriptedModel], variable: str
) -> None:
    """With a key, a token and a login's token; the model gets the real one in its header."""
    scripted = model(text("Hello from the script."))
    caller = nddt.having(**{"ANTHROPIC_BASE_URL": scripted.url, variable: KEY})

    done = caller("run", "--keyless", "--prompt", "Say hello")

    assert (done.code, done.stdout, done.stderr) == (0, b"Hello from the script.\n", b"")
    header, value = VARIABLES[variable]
    for request in scripted.requests:
        assert request.headers[header] == value
        assert "nddt-" not in str(request.headers)
    is_login = "oauth-" in scripted.conversation[0].headers.get("anthropic-beta", "")
    assert is_login == (variable == "CLAUDE_CODE_OAUTH_TOKEN")


@pytest.mark.same_everywhere
def test_the_demo_needs_no_key_either_way(nddt: Caller) -> None:
    """It shows the way that a key would stay away from."""
    done = nddt("run", "--demo", "--keyless", "--prompt", "Say hello")

    assert (done.code, done.said) == (0, "")
    assert "your prompt arrived as “Say hello”" in done.stdout.decode()


def test_a_first_conversation_asks_nothing(
    nddt: Caller, model: Callable[..., ScriptedModel]
) -> None:
    """A placeholder is a key that the agent knows, too."""
    scripted = model(text("Hello from the script."))

    with Terminal(keyless(nddt, scripted.url), "run", "--yolo") as terminal:
        assert terminal.shows("bypass permissions on"), terminal.text
        say(terminal, "Say hello")
        assert terminal.shows("Hello from the script."), terminal.text
        say(terminal, "/exit")
        assert terminal.code() == 0, terminal.text
    assert scripted.conversation[0].headers["x-api-key"] == KEY


# -- a hostile one --------------------------------------------------------------------------


@pytest.mark.parametrize("persistent", ["false", "true"])
def test_the_key_is_nowhere_inside(nddt: Caller, persistent: str) -> None:
    """Neither in a process nor in a file nor in an answer, after it has been used."""
    with echo() as url:
        caller = keyless(nddt, url, NDDT_PERSISTENT=persistent, NDDT_ENV_VARS="ANTHROPIC_*,COPY")
        hunt = f"{ASK}; cat /tmp/answer >&2; python3 -c '{HUNT}' \"$0\"; cat >/dev/null"
        words = ("bash", "-c", hunt, KEY[::-1])
        agent = caller.having(COPY=f"it is {KEY}", NDDT_COMMAND=shlex.join(words))
        with ended(agent.start("run", "--verbose", stdin=subprocess.PIPE)) as running:
            assert running.stdout
            assert running.stdin
            status = running.stdout.readline()
            found = json.loads(running.stdout.readline() or b"{}")
            servers = [(pid, KEY.encode() in data) for pid, data in sshd_memory()]
            running.stdin.close()
            running.stdin = None
            done = end(running)

    assert status == b"200\n", done.said
    assert found["key"] == []
    assert servers or os.getuid() != 0
    assert [pid for pid, has_it in servers if has_it] == []
    assert any(where.endswith("/environ") for where in found["placeholder"])
    assert any(where.endswith("/mem") for where in found["placeholder"])
    assert "*" * len(KEY) in done.said
    assert KEY not in done.said
    if persistent == "true":
        kept = nddt.having(NDDT_PERSISTENT="true")
        search = f"grep -rl {KEY[:20]} /dev/shm /etc /root /home /tmp /var /workspace 2>/dev/null"
        assert kept("shell", "--command", search).stdout == b""
        assert kept(kept.task("cleanup"), "--all", "--yes").code == 0


@ON_DOCKER  # that shows it the directory in which we are
def test_a_crash_leaves_no_key_behind(nddt: Caller) -> None:
    """No image of our memory, or of ssh's, where the sandbox sees it."""
    with echo() as url:
        caller = keyless(nddt, url)
        unlimited = replace(caller, launcher=("prlimit", "--core=unlimited", *caller.launcher))
        with ended(unlimited.start("shell", "--command", "echo up; sleep 60")) as running:
            assert running.stdout
            assert running.stdout.readline() == b"up\n"
            for pid in processes(caller.runtime.parent):
                os.kill(pid, signal.SIGABRT)
            end(running)

    assert list(nddt.directory.iterdir()) == []
    assert nddt("list").code == 0  # which tidies up


def test_only_the_model_gets_it(nddt: Caller) -> None:
    """Other paths, methods, hosts and placeholders are refused, in whatever form they come."""
    say = "curl -sS --path-as-is -w 'got %{http_code}\n' -o /dev/null"
    mine = '-H "x-api-key: $ANTHROPIC_API_KEY"'
    url = "$ANTHROPIC_BASE_URL"
    with echo() as upstream:
        attempts = (
            f"{say} {mine} -d x {url}/v1/messages?beta=true",  # the one that is right
            f"{say} -d x {url}/v1/messages",
            f'{say} -H "x-api-key: nddt-{"0" * 40}" -d x {url}/v1/messages',
            f'{say} {mine} -H "authorization: Bearer my-own" -d x {url}/v1/messages',
            f'{say} {mine} -H "x-api-key: my-own" -d x {url}/v1/messages',
            f'{say} -H "authorization: Bearer $ANTHROPIC_API_KEY" -d x {url}/v1/messages',
            f"{say} {mine} -X GET {url}/v1/messages",
            f"{say} {mine} {url}/v1/files",
            f"{say} {mine} -d x {url}/v1/messages/batches",
            f"{say} {mine} {url}/v1/models/../organizations",
            f"{say} {mine} {url}/v1/models/%2e%2e/organizations",
            f"{say} {mine} -d x {url}//v1/messages",
            f"{say} {mine} -d x --request-target {upstream}/v1/messages {url}",
            f"{say} {mine} -d x --request-target {upstream} {url}",
            f"{say} {mine} -p -x {url} {upstream}/v1/messages || echo got no tunnel",
        )
        script = "; ".join(("unset http_proxy HTTP_PROXY", *attempts))
        done = keyless(nddt, upstream)("shell", "--command", script)

    expected = ["200", *["401"] * 5, *["403"] * 8]
    got = re.findall(r"^got (\d+|no tunnel)", done.stdout.decode(), re.MULTILINE)
    assert expected == got[:14], done.said
    assert "no tunnel" in got
    assert KEY.encode() not in done.stdout + done.stderr


def test_a_placeholder_is_good_in_its_session_alone(kept: Caller) -> None:
    """Not at another session's proxy, also in the same sandbox, and not after the end."""
    with echo() as url:
        caller = keyless(kept, url)
        caller.make_sandbox()
        first = "echo $ANTHROPIC_BASE_URL $ANTHROPIC_API_KEY; cat >/dev/null"
        words = ("shell", "--command", first)
        with ended(caller.start(*words, stdin=subprocess.PIPE)) as running:
            assert running.stdout
            assert running.stdin
            address, placeholder = running.stdout.readline().decode().split()
            theirs = f"export ANTHROPIC_API_KEY={placeholder}; {ASK}"
            there = f"export ANTHROPIC_BASE_URL={address}; {theirs}"
            both = caller("shell", "--command", f"{ASK}; ({theirs}); ({there}); [ $(id -u) ]")
            running.stdin.close()
            running.stdin = None
            assert end(running).code == 0
        after = caller("shell", "--command", f"({there}); {theirs}")

    assert both.lines == ["200", "401", "200"], both.said
    assert after.lines == ["000", "401"], after.said


def test_two_at_once_in_one_sandbox(kept: Caller, model: Callable[..., ScriptedModel]) -> None:
    """Each has its own proxy, and one's end is not the other's."""
    scripted = model(text("ok"))
    caller = keyless(kept, scripted.url)
    caller.make_sandbox()

    started = [caller.start("run", "--prompt", f"I am {n}") for n in range(2)]

    assert [end(one, 60).stdout for one in started] == [b"ok\n"] * 2
    assert {KEY} == {one.headers["x-api-key"] for one in scripted.conversation}


def test_a_conversation_goes_on(kept: Caller) -> None:
    """It finds the same port and placeholder after `attach`, also for a new key."""
    loop = f'while read -r w; do [ "$w" = end ] && exit 5; {ASK}; grep -c "$w" /tmp/answer; done'
    with echo() as url:
        caller = keyless(kept, url).with_agent(f"echo ready; {loop}")
        with Terminal(caller, "run") as terminal:
            assert terminal.shows("ready"), terminal.text
            terminal.type("messages\r")
            assert terminal.shows("200"), terminal.text
            with Terminal(caller, "attach") as other:
                assert other.shows("200"), other.text
                other.type("\x1c")
                assert other.code() == 0
            terminal.forget()
            terminal.type("HTTP\r")
            assert terminal.shows("200"), terminal.text
            terminal.type("\x1c")
            assert terminal.code() == 0
        (note,) = kept.runtime.glob("s-*/placeholder")
        assert KEY not in note.read_text()
        plain = caller.having(NDDT_MODEL_ACCESS="env", ANTHROPIC_API_KEY=f"{KEY}-renewed")
        with Terminal(plain, "attach") as terminal:
            assert terminal.shows("200"), terminal.text
            terminal.forget()
            terminal.type("user-agent\r")
            assert terminal.shows("200"), terminal.text
            terminal.type("end\r")
            assert terminal.code() == 5, terminal.text
        assert eventually(lambda: not note.exists())


def test_a_copy_of_the_directory_has_no_key(nddt: Caller) -> None:
    """Though the project's own file has it, which stays here."""
    git = ("git", "-C", str(nddt.directory))
    subprocess.run((*git, "init", "-q"), check=True)
    (nddt.directory / "seen").touch()
    (nddt.directory / ".env").write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    with echo() as url:
        caller = nddt.having(ANTHROPIC_BASE_URL=url, NDDT_WORKSPACE="sync")
        assert nddt("trust", "--yes").code == 0
        look = f"{ASK}; ls seen .env; grep -rls {KEY[:20]} /workspace; env | grep -c {KEY[:20]}; :"
        done = caller.with_agent(look)("run", "--keyless", "--prompt", "x")

    assert (done.code, done.lines) == (0, ["200", "seen", "0"]), done.said


@pytest.mark.parametrize("outside", ["daytona"], indirect=True)
@pytest.mark.parametrize("persistent", ["false", "true"])
def test_the_model_is_there_after_a_cut_connection(
    nddt: Caller, outside: Daytona, persistent: str
) -> None:
    """At the same place, over the new connection."""
    script = f"{ASK}; sleep 4; for i in 1 2 3 4 5; do {ASK} && exit; sleep 1; done"
    with echo() as url:
        caller = keyless(nddt, url, NDDT_PERSISTENT=persistent).with_agent(script)
        with ended(caller.start("run", "--prompt", "x")) as running:
            assert running.stdout
            assert running.stdout.readline() == b"200\n"
            outside.double.cut_connections()
            stdout, _ = running.communicate(timeout=60)

    assert stdout.decode().splitlines()[-1] == "200"
    if persistent == "true":
        assert nddt(nddt.task("cleanup"), "--all", "--yes").code == 0


@ON_DOCKER
def test_no_network_is_needed(kept: Caller, model: Callable[..., ScriptedModel]) -> None:
    """The model is reached by the way that everything takes."""
    caller = keyless(kept, model(text("Hello from the script.")).url)
    name = caller.make_sandbox()
    subprocess.run(("docker", "network", "disconnect", "bridge", name), check=True)

    done = caller("run", "--prompt", "Say hello")

    assert (done.code, done.stdout) == (0, b"Hello from the script.\n"), done.said


# -- GitHub ---------------------------------------------------------------------------------


@pytest.fixture
def github(base: Path) -> Iterator[GitHub]:
    """A server with two repositories, of which the sandbox may use one."""
    directory = Path(tempfile.mkdtemp(prefix="github-", dir=base))
    double = GitHub(directory, KEY)
    for name in ("me/mine", "me/other"):
        double.repository(name)
    with double.serving():
        yield double


def with_token(caller: Caller, github: GitHub) -> Caller:
    """Have a token for that server, which is to stay here."""
    known = {"GH_HOST": github.host, "SSL_CERT_FILE": str(github.certificate)}
    known |= {"GH_ENTERPRISE_TOKEN": KEY, "NDDT_ENV_VARS": "ANTHROPIC_API_KEY,GH_ENTERPRISE_TOKEN"}
    return caller.having(NDDT_MODEL_ACCESS="tunnel", NDDT_GITHUB_REPOS="me/mine", **known)


@pytest.mark.parametrize("persistent", ["false", "true"])
def test_git_and_gh_work_without_a_token(nddt: Caller, github: GitHub, persistent: str) -> None:
    """Clone, push and the API, for the repository that is allowed; it sees no token."""
    who = "-c user.name=a -c user.email=a@b"
    script = (
        f"cd /tmp && git clone -q https://{github.host}/me/mine.git w && cd w && "
        "head -c 3000000 /dev/urandom >f && git add f && "
        f"git {who} commit -qm second && git push -q && git log --format=%s; "
        "gh api repos/{owner}/{repo}/pulls -f title=x --jq .path; "
        "gh api repos/me/mine/issues --jq .seen; env; "
        f"python3 -c '{HUNT}' {KEY[::-1]}"
    )
    caller = with_token(nddt, github).having(NDDT_PERSISTENT=persistent)

    done = caller("shell", "--command", script)

    assert done.code == 0, done.said
    assert done.lines[:3] == ["second", "first", "/api/v3/repos/me/mine/pulls"], done.said
    log = ("git", "-C", str(github.directory / "me/mine.git"), "log", "-1", "--format=%s")
    assert subprocess.run(log, check=True, capture_output=True).stdout == b"second\n"
    assert KEY not in done.stdout.decode() + done.said
    assert "*" * len(KEY) in done.stdout.decode()
    assert json.loads(done.lines[-1])["key"] == []
    if persistent == "true":
        plain = nddt.having(NDDT_PERSISTENT="true")
        assert plain("shell", "--command", "ls /tmp/nddt").stdout == b""
        assert caller(caller.task("cleanup"), "--all", "--yes").code == 0


def test_other_repositories_are_out_of_reach(nddt: Caller, github: GitHub) -> None:
    """By git, by gh, by hand, and with GraphQL; the server hears of none of it."""
    say = "curl -sS --path-as-is -o /dev/null -w 'got %{http_code}\\n'"
    mine = '-H "authorization: token $GH_ENTERPRISE_TOKEN"'
    script = (
        "here=${GIT_CONFIG_KEY_0#http.}; here=${here%.extraHeader}; socket=/tmp/nddt/*-github; "
        "git clone -q ${here}me/other.git /tmp/other 2>&1 | grep -o 403; "
        "gh api repos/me/other 2>&1 | grep -o 403; "
        "gh api user 2>&1 | grep -o 403; "
        "gh api graphql -f query='{viewer{login}}' 2>&1 | grep -o 403; "
        "gh api -X DELETE repos/me/mine 2>&1 | grep -o 403; "
        f"{say} {mine} ${{here}}repos/me/mine/../other; "
        f"{say} {mine} --unix-socket $socket http://x/me/other.git/info/refs; "
        f"{say} --unix-socket $socket http://x/repos/me/mine/pulls; "
        f'{say} -H "authorization: token my" --unix-socket $socket http://x/repos/me/mine/pulls; '
        f"{say} {mine} --unix-socket $socket http://x/repos/me/mine/pulls"
    )

    done = with_token(nddt, github)("shell", "--command", script)

    got = ["403"] * 5 + [f"got {code}" for code in (403, 403, 401, 401, 200)]
    assert done.lines == got, done.said
    assert github.requests == ["GET /api/v3/repos/me/mine/pulls"]


def test_a_conversation_has_github_again(kept: Caller, github: GitHub) -> None:
    """Also while nobody is at it, and after `attach`, at the same place."""
    loop = 'while read -r w; do [ "$w" = end ] && exit 5; gh api repos/me/mine/$w --jq .path; done'
    caller = with_token(kept, github).having(ANTHROPIC_API_KEY=KEY)
    caller = caller.with_agent(f"echo ready; {loop}")
    with Terminal(caller, "run") as terminal:
        assert terminal.shows("ready"), terminal.text
        terminal.type("pulls\r")
        assert terminal.shows("/api/v3/repos/me/mine/pulls"), terminal.text
        terminal.type("\x1c")
        assert terminal.code() == 0
    ask = "curl -s --unix-socket /tmp/nddt/agent-github http://x/"
    assert b"no placeholder" in kept("shell", "--command", ask).stdout
    with Terminal(caller, "attach") as terminal:
        assert terminal.shows("pulls"), terminal.text
        terminal.type("issues\r")
        assert terminal.shows("/api/v3/repos/me/mine/issues"), terminal.text
        terminal.type("end\r")
        assert terminal.code() == 5, terminal.text


@ON_DOCKER
def test_the_directorys_own_repository_is_allowed(nddt: Caller, github: GitHub) -> None:
    """Without a setting, and a push from it arrives."""
    url = f"https://{github.host}/me/mine.git"
    git = ("git", "-C", str(nddt.directory))
    subprocess.run((*git, "init", "-q", "-b", "topic"), check=True)
    subprocess.run((*git, "remote", "add", "origin", url), check=True)
    caller = with_token(nddt, github).having(NDDT_GITHUB_REPOS="")
    who = "-c user.name=a -c user.email=a@b"

    done = caller(
        "shell",
        "--command",
        f"git {who} commit -q --allow-empty -m mine && git push -q origin topic && "
        "git fetch -q && git branch -r",
    )

    assert (done.code, done.said) == (0, "")
    assert done.lines == ["  origin/main", "  origin/topic"]


def test_a_remote_that_a_session_added_gets_no_token(nddt: Caller, github: GitHub) -> None:
    """Though the token is used here for the first time after it."""
    nddt = nddt.having(NDDT_WORKSPACE="mount" if nddt.provider == "docker" else "sync")
    git = ("git", "-C", str(nddt.directory))
    subprocess.run((*git, "init", "-q"), check=True)
    mine, other = (f"https://{github.host}/me/{name}.git" for name in ("mine", "other"))
    subprocess.run((*git, "remote", "add", "origin", mine), check=True)
    assert nddt("shell", "--command", f"git remote add more {other}; :").code == 0
    # What a sandbox with a copy has changed comes back; that is no matter here.
    subprocess.run((*git, "remote", "add", "more", other), check=False, capture_output=True)
    caller = with_token(nddt, github).having(NDDT_GITHUB_REPOS="")
    ask = "gh api repos/me/mine/pulls --jq .path; gh api repos/me/other/pulls 2>&1 | grep -o 403"

    withheld = caller("shell", "--command", ask)
    agreed = caller("shell", "--yes", "--command", ask)

    assert withheld.lines == ["/api/v3/repos/me/mine/pulls", "403"]
    assert "no token is used for: me/other" in withheld.said
    assert agreed.lines == ["/api/v3/repos/me/mine/pulls"]
    assert "is used here for me/other, too, as --yes agrees to" in agreed.said


# -- what is said ---------------------------------------------------------------------------


@pytest.mark.same_everywhere
def test_the_plan_says_where_the_key_is(nddt: Caller) -> None:
    """And not what it is."""
    caller = nddt.having(ANTHROPIC_API_KEY=KEY)

    done = caller("run", "--keyless", "--dry", "--prompt", "x")

    line = "model        https://api.anthropic.com, by this machine, which keeps ANTHROPIC_API_KEY"
    assert line in done.lines
    assert KEY not in done.stdout.decode()


@pytest.mark.same_everywhere
def test_a_project_cannot_choose_who_gets_the_key(nddt: Caller) -> None:
    """Nor that it enters the sandbox."""
    (nddt.directory / ".env").write_text(
        "ANTHROPIC_BASE_URL=https://model.example\nNDDT_MODEL_ACCESS=env\n"
    )
    done = nddt.having(ANTHROPIC_API_KEY=KEY)("run", "--dry", "--keyless", "--prompt", "x")

    line = "model        https://api.anthropic.com, by this machine, which keeps ANTHROPIC_API_KEY"
    assert line in done.lines
    assert "not used: ANTHROPIC_BASE_URL (line 1)" in done.said


# -- the default ----------------------------------------------------------------------------


def test_the_key_stays_here_by_default(nddt: Caller, model: Callable[..., ScriptedModel]) -> None:
    """Nothing is asked for, nothing is said, and no key is anywhere inside."""
    scripted = model(text("Hello from the script."))
    known = {"ANTHROPIC_BASE_URL": scripted.url, "ANTHROPIC_API_KEY": KEY, "GH_TOKEN": KEY}
    caller = nddt.having(**known)

    done = caller("run", "--prompt", "Say hello")
    hunt = caller("shell", "--command", f"env; python3 -c '{HUNT}' {KEY[::-1]}")

    assert (done.code, done.stdout, done.stderr) == (0, b"Hello from the script.\n", b"")
    assert {one.headers["x-api-key"] for one in scripted.conversation} == {KEY}
    assert hunt.code == 0, hunt.said
    assert json.loads(hunt.lines[-1])["key"] == []
    assert KEY not in hunt.stdout.decode() + hunt.said


@pytest.mark.parametrize("bedrock", ["1", ""])
def test_what_cannot_stay_here_is_said(nddt: Caller, bedrock: str) -> None:
    """In one line, by default; who has asked for it is refused, but for a program of their own."""
    command = "sh -c 'printenv ANTHROPIC_API_KEY'"
    caller = nddt.having(
        NDDT_COMMAND=command, ANTHROPIC_API_KEY=KEY, CLAUDE_CODE_USE_BEDROCK=bedrock
    )

    done = caller("run", "--prompt", "x")
    refused = caller("run", "--keyless", "--dry", "--prompt", "x")
    chosen = caller.having(NDDT_MODEL_ACCESS="env")("run", "--prompt", "x")

    assert (done.code, done.stdout) == (0, f"{KEY}\n".encode()), done.said
    assert len(done.said.splitlines()) == 1
    assert "the keys for the model enter the sandbox: " in done.said
    assert ("CLAUDE_CODE_USE_BEDROCK" if bedrock else "NDDT_COMMAND") in done.said
    assert refused.code == (78 if bedrock else 0), refused.said
    assert (chosen.stdout, chosen.said) == (done.stdout, "")


@ON_DOCKER
@pytest.mark.parametrize("name", [".env", ".envrc"])
def test_a_key_in_the_directory_is_told_of(
    nddt: Caller, model: Callable[..., ScriptedModel], name: str
) -> None:
    """By default that is no reason not to run, and nothing can hide it."""
    scripted = model(text("Hello from the script."))
    file = nddt.directory / name
    file.write_text(f"# {KEY}\n")
    caller = nddt.having(ANTHROPIC_BASE_URL=scripted.url, ANTHROPIC_API_KEY=KEY)

    done = caller("run", "--prompt", "Say hello")

    assert (done.code, done.stdout) == (0, b"Hello from the script.\n")
    assert f"ANTHROPIC_API_KEY stands in {file}, which the sandbox sees" in done.said
    assert len(done.said.splitlines()) == 1
    assert caller("run", "--keyless", "--prompt", "x").code == 78
