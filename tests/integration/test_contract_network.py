"""What a sandbox reaches with NDDT_NETWORK=allowlist and none: each way out is tried.

The scripts run in the sandbox. The hosts that it may reach here are those of its package tools.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.configuration import reading
from scripts.errors import NoImageError
from scripts.providers import docker
from tests.integration.conftest import ON_DOCKER
from tests.integration.contract import (
    KEY,
    REPOSITORY,
    Caller,
    Terminal,
    end,
    ended,
    eventually,
    keeper_of,
)
from tests.own_ports import own_port
from tests.scripted_model import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.integration.contract import Outside
    from tests.scripted_model import ScriptedModel

INDEX = "https://$(pip_host)/simple/six/"
LIBRARY = r"""
pip_host() {
    python3 -c 'from pip._internal.models.index import PyPI
from urllib.parse import urlsplit
import configparser
conf = configparser.ConfigParser()
conf.read("/etc/pip.conf")
print(urlsplit(conf.get("global", "index-url", fallback=PyPI.simple_url)).netloc)'
}
apt_url() { apt-get update --print-uris | sed -n "s/'\([^']*\).*/\1/p" | head -n1; }
fetched() { curl -sS -m 20 -o /dev/null -w '%{http_connect} %{http_code}\n' "$@" 2>/dev/null || :; }
connects() {
    python3 -c 'import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)' "$@" 2>/dev/null && echo REACHED
}
"""
"""Words for the scripts: what curl heard from the proxy and from the server; a connection."""


@pytest.fixture
def fenced(nddt: Caller) -> Caller:
    """Somebody whose sandboxes reach what is allowed."""
    return nddt.having(NDDT_NETWORK="allowlist")


def tried(caller: Caller, script: str, *words: str) -> list[str]:
    """Run a script in a sandbox in which what is allowed works, and give what it prints."""
    control = f'fetched "{INDEX}"'
    command = f"{LIBRARY}\n{control}\n{script}\n{control}\n"
    done = caller("shell", *words, "--command", command)
    assert done.code == 0, done.said
    assert done.lines[0] == done.lines[-1] == "200 200", done.lines
    return done.lines[1:-1]


@contextmanager
def listening(host: str) -> Iterator[tuple[int, list[bytes]]]:
    """Listen on this machine; gives the port, and what comes."""
    came: list[bytes] = []
    with socket.create_server((host, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                came.append(b"somebody")
                peer.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], came
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


HOSTILE = Path(__file__).with_name("hostile_network.py")


def attacked(caller: Caller, *places: str) -> list[str]:
    """Have a hostile program try everything; gives what it has achieved."""
    words = shlex.join(("python3", "/tmp/hostile.py", *places))
    command = f"cat >/tmp/hostile.py; {words}"
    done = caller("shell", "--command", command, stdin=HOSTILE.read_bytes())
    assert done.code == 0, done.said
    assert done.lines[-1] == "21", done.said
    return done.lines[:-1]


def own_addresses() -> list[str]:
    """Give the addresses of this machine, among which each sandbox has its gateway."""
    lines = subprocess.run(("ip", "-4", "-o", "addr"), check=True, capture_output=True, text=True)
    return re.findall(r" inet ([0-9.]+)", lines.stdout)


@pytest.mark.parametrize("setting", ["none", "allowlist"])
def test_no_way_leads_out(nddt: Caller, setting: str) -> None:
    """Whatever a hostile program tries, the same at each provider."""
    with listening("0.0.0.0") as (port, came):  # noqa: S104  (what gateways are)
        places = [f"{one}:{port}" for one in own_addresses() if not one.startswith("127.")]

        found = attacked(nddt.having(NDDT_NETWORK=setting), *places)

    assert places
    assert (found, came) == ([], [])


# -- what works, and what does not: tried in one sandbox, one after the other --------------------

TOOLS = {
    "pip": "pip download --quiet --no-deps --dest /tmp/p six && ls /tmp/p | grep -o six",
    "npm": "npm view six name --loglevel=error",
    # As whoever may not write where it usually does.
    "apt": (
        "mkdir -p /tmp/l/partial /tmp/c && apt-get -qq -o Dir::State::lists=/tmp/l "
        "-o Dir::Cache=/tmp/c -o APT::Sandbox::User= update && ls /tmp/l | grep -c Packages "
        "| sed 's/.*/six/'"
    ),
    "node": f"""node -e 'fetch("'{INDEX}'").then(got => got.ok && console.log("six"))'""",
    "python": (
        "python3 -c 'import sys, urllib.request; "
        f"""print(urllib.request.urlopen(sys.argv[1]).status == 200 and "six")' "{INDEX}\""""
    ),
    "wget": f'wget -qO- "{INDEX}" | grep -om1 six',
    "git": 'git ls-remote "https://$(pip_host)/six" 2>&1 | grep -om1 "six.*not found" | cut -c1-3',
}
"""Each prints `six` if it has found its way."""
REDIRECT = """
from http.server import *
class Away(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302)
        self.send_header("Location", "http://example.com/")
        self.end_headers()
HTTPServer(("127.0.0.1", 8765), Away).handle_request()
"""
DATAGRAM = """
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.settimeout(2)
one.sendto(bytes.fromhex("000101000001000000000000016103636f6d0000010001"), ("8.8.8.8", 53))
print(one.recv(9))
"""
PIPELINED = (
    r"GET http://$(pip_host)/ HTTP/1.1\r\nHost: x\r\n\r\n"
    r"GET http://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n"
)
NUMBER = r"CONNECT 2130706433:443 HTTP/1.1\r\nHost: x\r\n\r\n"
WAYS_OUT = {
    "https": ("fetched https://example.com/", ["403 000"]),
    "http": ("fetched http://example.com/", ["000 403"]),
    "no proxy, a name": ("fetched --noproxy '*' https://example.com/", ["000 000"]),
    "no proxy, an allowed name": (f'fetched --noproxy "*" "{INDEX}"', ["000 000"]),
    "an allowed name, another port": ("fetched https://$(pip_host):22/", ["403 000"]),
    "a tunnel to port 80": ("fetched -p http://$(pip_host)/", ["403 000"]),
    "a look-up": ("getent hosts $(pip_host)", []),
    "a name server": (f"python3 -c '{DATAGRAM}' 2>/dev/null", []),
    "an address": ("fetched https://1.1.1.1/; connects 1.1.1.1 443", ["403 000"]),
    "an allowed name's address": (
        "fetched -k https://$ADDRESS/; connects $ADDRESS 443",
        ["403 000"],
    ),
    "an address as a number": (
        f'printf "{NUMBER}" | socat -t9 - TCP:${{HTTP_PROXY#http://}} | grep -ao "HTTP/1.1 ..."',
        ["HTTP/1.1 403"],
    ),
    "an address of IPv6": (
        "fetched https://[2606:4700:4700::1111]/; connects 2606:4700:4700::1111 443",
        ["403 000"],
    ),
    "a cloud's metadata": ("fetched http://169.254.169.254/latest/meta-data/", ["000 403"]),
    "a cloud's metadata, no proxy": (
        "fetched --noproxy '*' http://169.254.169.254/; connects 169.254.169.254 80",
        ["000 000"],
    ),
    "an allowed name in the header": (
        'fetched -H "Host: $(pip_host)" http://example.com/',
        ["000 403"],
    ),
    # The target is what counts: it comes to whom was asked for.
    "another name in the header": ('fetched -H "Host: example.com" "$(apt_url)"', ["000 200"]),
    "behind an allowed request": (
        f'printf "{PIPELINED}" | socat -t9 - TCP:${{HTTP_PROXY#http://}} | grep -ao "not allowed"',
        ["not allowed"],
    ),
    "a redirect": (
        f"python3 -c '{REDIRECT}' 2>/dev/null & sleep 3; fetched -L http://127.0.0.1:8765/",
        ["000 403"],
    ),
    "git by ssh": ("git ls-remote ssh://git@example.com/a/b 2>/dev/null", []),
    "another interface": ("ip -o link | grep -v ' lo: ' | grep -w UP", []),
}
"""What is tried, and what is to come of it."""


@pytest.fixture(scope="session")
def attempted(
    provider: str,
    outside: Outside,
    on_own_machine: tuple[str, ...],
    environ: Mapping[str, str],
    base: Path,
) -> Mapping[str, tuple[list[str], str]]:
    """Try all of it, and give what each has printed and said; after each, what works works."""
    directory = base / "w" / f"network-{provider}"
    directory.mkdir()
    known = {"NDDT_PROVIDER": provider, "NDDT_NETWORK": "allowlist", **outside.environ()}
    caller = Caller(
        provider=provider,
        launcher=(*on_own_machine, str(REPOSITORY / "nddt")),
        directory=directory,
        environ={**environ, **known},
    )
    host = caller("shell", "--command", f"{LIBRARY}\npip_host").lines[0]
    address = socket.getaddrinfo(host, 443, socket.AF_INET)[0][4][0]
    tried = TOOLS | {name: script for name, (script, _) in WAYS_OUT.items()}
    lines = [LIBRARY, f"ADDRESS={address}"]
    for script in tried.values():
        lines += [f"{{ {script}\n}} 2>/tmp/said", f'fetched "{INDEX}"']
        lines += ["echo == said", "cat /tmp/said", "echo == next"]
    done = caller("shell", "--command", "\n".join(lines), within_s=400)
    assert done.code == 0, done.said
    found = {}
    for name, part in zip(tried, done.stdout.decode().split("== next\n"), strict=False):
        printed, _, said = part.partition("== said\n")
        *own, control = printed.splitlines()
        assert control == "200 200", f"after {name} nothing works any more: {part}"
        found[name] = (own, said)
    return found


@pytest.mark.parametrize("name", TOOLS)
def test_tools_find_their_way(attempted: Mapping[str, tuple[list[str], str]], name: str) -> None:
    """Without any work of the user's, and without a word about it."""
    printed, said = attempted[name]

    assert printed == ["six"], said
    assert "Warning" not in said


@pytest.mark.parametrize("name", WAYS_OUT)
def test_ways_out(attempted: Mapping[str, tuple[list[str], str]], name: str) -> None:
    """Lead nowhere, in a sandbox in which what is allowed works."""
    assert attempted[name][0] == WAYS_OUT[name][1]


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104  (somebody may)
def test_services_of_this_machine(fenced: Caller, address: str) -> None:
    """Are not reached, by an address or by a name that is allowed and leads there."""
    with listening(address) as (port, came):
        names = ("localhost", socket.gethostname())
        caller = fenced.having(NDDT_ALLOW_HOSTS=",".join(f"{one}:{port}" for one in names))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            own = probe.getsockname()[0]
        hosts = (*names, "127.0.0.1", own, "172.17.0.1", "host.docker.internal")
        attempts = (
            f"fetched -p --noproxy '' http://{one}:{port}/; connects {one} {port}" for one in hosts
        )

        found = tried(caller, "\n".join(attempts))

        assert set(found) <= {"403 000", "502 000"}, found
        assert len(found) == len(hosts)
        assert came == []


def test_another_sessions_proxy(fenced: Caller, mine_name: str) -> None:
    """Leads nobody else anywhere: each has its own, for its own sandbox."""
    other = fenced.having(NDDT_ALLOW_HOSTS="example.com")
    words = ("shell", "--name", mine_name, "--command")
    with ended(other.start(*words, f"{LIBRARY}\nfetched https://example.com/; sleep 60")) as first:
        assert first.stdout
        assert first.stdout.readline() == b"502 000\n"  # it is let through, and not known here

        found = tried(
            fenced,
            "fetched https://example.com/; ss -Hltn | grep -c .; find / -path '/proc/*' -prune "
            "-o -type s -name proxy -print 2>/dev/null",
        )

        assert found == ["403 000", "1"]
        first.terminate()
        end(first)


def test_two_sessions_of_one_sandbox(fenced: Caller, kept: Caller) -> None:
    """Have a proxy each, and the end of one is not the other's."""
    caller = kept.having(NDDT_NETWORK=fenced.environ["NDDT_NETWORK"])
    name = caller.make_sandbox()
    words = ("shell", "--name", name, "--command")
    script = f'{LIBRARY}\nfetched "{INDEX}"; read -r; fetched "{INDEX}"; fetched https://a.test/'
    with ended(caller.start(*words, script, stdin=-1)) as first:
        assert first.stdout
        assert first.stdin
        assert first.stdout.readline() == b"200 200\n"
        assert tried(caller, "fetched https://a.test/") == ["403 000"]

        first.stdin.write(b"\n")
        first.stdin.flush()
        done = end(first)

    assert done.lines == ["200 200", "403 000"], done.said


def test_no_network_at_all(nddt: Caller) -> None:
    """Is what none means: no proxy, no name, no address."""
    caller = nddt.having(NDDT_NETWORK="none")
    script = (
        f'{LIBRARY}\nenv | grep -i _proxy=; fetched "{INDEX}"; getent hosts $(pip_host); '
        "connects 1.1.1.1 443; connects 127.0.0.1 3128; connects 172.17.0.1 22; "
        "ss -Hltn | grep -c ."
    )

    done = caller("shell", "--command", script)

    assert done.lines == ["000 000", "0"], done.said


# -- what goes on without a network ---------------------------------------------------------


@pytest.mark.parametrize("setting", ["allowlist", "none"])
def test_a_model_on_this_machine(
    nddt: Caller, model: Callable[..., ScriptedModel], setting: str
) -> None:
    """Is reached by the real agent, as before."""
    scripted = model(text("Hello from here."))
    caller = nddt.having(
        NDDT_NETWORK=setting, ANTHROPIC_BASE_URL=scripted.url, ANTHROPIC_API_KEY=KEY
    )

    done = caller("run", "--prompt", "Say hello")

    assert done.lines == ["Hello from here."], done.said


def test_files_and_ports(kept: Caller) -> None:
    """Do not need it: they come by ssh."""
    caller = kept.having(NDDT_NETWORK="none", NDDT_PORT_RANGE_START=str(own_port(110)))
    name = caller.make_sandbox()
    (caller.directory / "notes.txt").write_text("here")

    copied = caller("cp", "notes.txt", "sandbox:/tmp/notes.txt")
    opened = caller("ports", "--add", "3000")
    shown = caller("shell", "--name", name, "--command", "cat /tmp/notes.txt")

    assert (copied.code, opened.code) == (0, 0), copied.said + opened.said
    assert shown.lines == ["here"]


# -- what changes while a session runs ------------------------------------------------------


def test_allowing_a_host_at_once(fenced: Caller) -> None:
    """Takes effect in the session that was refused it, as `network` shows; and is taken back."""
    wait = (
        'until fetched https://example.com/ | tee /tmp/c | grep -v "^403"; do sleep 0.2; done; '
        'until fetched https://example.com/ | grep "^403"; do sleep 0.2; done'
    )
    with ended(fenced.start("shell", "--command", f"{LIBRARY}\n{wait}")) as running:
        assert running.stdout
        assert eventually(lambda: "example.com:443" in "".join(fenced("network").lines))
        allowed = fenced("network", "allow", "example.com")
        assert running.stdout.readline() == b"502 000\n"  # it is let through, and not known here
        denied = fenced("network.deny", "example.com")
        done = end(running)

    assert (allowed.lines, denied.lines) == (["example.com"], ["example.com"])
    assert done.lines == ["403 000"]
    assert "not allowed" in fenced("network").lines[1]


@pytest.mark.same_everywhere
def test_a_project_cannot_widen_it(fenced: Caller) -> None:
    """Its .env file names hosts, another model, and an open network, in vain."""
    (fenced.directory / ".env").write_text(
        "NDDT_NETWORK=open\nNDDT_ALLOW_HOSTS=example.com\nANTHROPIC_BASE_URL=https://example.org\n"
    )

    found = tried(fenced, "fetched https://example.com/; fetched https://example.org/")

    assert found == ["403 000", "403 000"]


def test_without_us_there_is_no_network(kept: Caller, outside: Outside) -> None:
    """A conversation that was left has what its keeper lets through, and without that nothing."""
    loop = f'while :; do fetched "{INDEX}" >/tmp/now.new; mv /tmp/now.new /tmp/now; sleep 0.2; done'
    caller = kept.having(NDDT_NETWORK="allowlist", ANTHROPIC_API_KEY=KEY).with_agent(
        f"{LIBRARY}\necho begun; {loop}"
    )

    def now() -> str:
        name = next(iter(outside.sandboxes()))
        command = "rm -f /tmp/now; until [ -e /tmp/now ]; do sleep 0.2; done; cat /tmp/now"
        words = ("shell", "--name", name, "--command", command)
        return "".join(caller.having(NDDT_NETWORK="none")(*words).lines)

    with Terminal(caller, "run") as terminal:
        assert terminal.shows("begun"), terminal.text
        assert now() == "200 200"
        with Terminal(caller, "attach") as other:
            assert other.shows("begun")
            for one in (terminal, other):
                one.type("\x1c")
                assert one.code() == 0
    assert now() == "200 200"
    pid = keeper_of(caller)
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: now() == "000 000")
    with Terminal(caller, "attach") as terminal:
        assert terminal.shows("begun")
        assert eventually(lambda: now() == "200 200")
        terminal.hang_up()


# -- sandboxes that were made with another setting -------------------------------------------


def test_a_sandbox_with_a_network_is_out_of_date(kept: Caller) -> None:
    """It is made anew if that is agreed to, and else not used."""
    assert kept("shell", "--command", "true").code == 0
    fenced = kept.having(NDDT_NETWORK="none")

    refused = fenced("shell", "--command", "echo ran")
    agreed = fenced("shell", "--yes", "--command", "ip -o link | grep -vc ' lo: '; echo ran")

    assert (refused.code, refused.stdout) == (69, b"")
    assert "allowed now: NDDT_NETWORK (environment) — --yes makes it anew" in refused.said
    assert agreed.lines[-1] == "ran", agreed.said


def test_a_named_sandbox_with_a_network(nddt: Caller, mine_name: str) -> None:
    """Is not used by who wants none."""
    words = ("shell", "--name", mine_name, "--command")
    with ended(nddt.start(*words, "echo here; sleep 60")) as running:
        assert running.stdout
        assert running.stdout.readline() == b"here\n"

        done = nddt.having(NDDT_NETWORK="none")(*words, "echo ran")

        running.terminate()
        end(running)
    assert (done.code, done.stdout) == (69, b"")
    assert "has more than is allowed now: NDDT_NETWORK (environment)" in done.said


@ON_DOCKER
def test_an_image_that_is_missing(nddt: Caller) -> None:
    """Cannot be asked where packages come from: it is built first, as for any run."""
    loaded = reading.load(nddt.directory, nddt.environ, {})

    with pytest.raises(NoImageError):
        docker.ask(loaded, "nddt:there-is-none", ("true",))


@pytest.mark.same_everywhere
def test_what_is_typed_wrong(nddt: Caller) -> None:
    """Is explained in a line."""
    setting = nddt.having(NDDT_NETWORK="closed")("config")
    hosts = nddt.having(NDDT_ALLOW_HOSTS="10.0.0.1")("config")
    allowed = nddt("network", "allow", "https://example.com")
    denied = nddt("network", "deny", "example.com")

    assert [one.code for one in (setting, hosts, allowed, denied)] == [78, 78, 64, 64]
    assert "open or allowlist or none" in setting.said
    assert "names of hosts such as example.org" in hosts.said
    assert "'https://example.com' is no host" in allowed.said
    assert "nddt network --allowed shows what is" in denied.said
