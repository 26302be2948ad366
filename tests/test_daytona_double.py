"""The double of the Daytona platform keeps to what is known of the platform."""

from __future__ import annotations

import shlex
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import daytona as daytona_sdk
import pytest
from daytona.common.errors import (
    DaytonaAuthenticationError,
    DaytonaBadRequestError,
    DaytonaConflictError,
    DaytonaError,
    DaytonaForbiddenError,
    DaytonaNotFoundError,
    DaytonaRateLimitError,
    DaytonaServiceUnavailableError,
    DaytonaTimeoutError,
)

from tests.daytona_double import FAULTS, DaytonaDouble, Fault, Row, fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daytona import Daytona, Sandbox

# Polling by flag is the SDK's fastest way to see a state; it calls that deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

DOCKERFILE = """\
FROM debian:trixie-slim
RUN useradd --create-home me && mkdir /desk && chown me /desk
WORKDIR /desk
USER me
"""
SNAPSHOT = "small:1"


def client_of(double: DaytonaDouble, **config: Any) -> Daytona:  # noqa: ANN401  # the SDK's own
    """Make the SDK's client of a double."""
    known = {"api_key": double.api_key, "api_url": double.url, "use_deprecated_polling": True}
    return daytona_sdk.Daytona(daytona_sdk.DaytonaConfig(**{**known, **config}))


def build(client: Daytona, path: Path, name: str = SNAPSHOT, text: str = DOCKERFILE) -> list[str]:
    """Build a snapshot and give what its builder printed."""
    dockerfile = path / "Dockerfile"
    dockerfile.write_text(text, encoding="utf-8")
    lines: list[str] = []
    wish = daytona_sdk.CreateSnapshotParams(
        name=name,
        image=daytona_sdk.Image.from_dockerfile(dockerfile),
        resources=daytona_sdk.Resources(cpu=2, memory=4, disk=8),
    )
    client.snapshot.create(wish, on_logs=lines.append)
    return lines


def create(client: Daytona, name: str, **wish: Any) -> Sandbox:  # noqa: ANN401  # the SDK's own
    """Create a sandbox from the small snapshot."""
    known = {"name": name, "snapshot": SNAPSHOT, "auto_stop_interval": 0}
    return client.create(daytona_sdk.CreateSandboxFromSnapshotParams(**{**known, **wish}))


@contextmanager
def refused(kind: type[DaytonaError], text: str) -> Iterator[None]:
    """Expect the SDK to raise exactly this, with this text."""
    with pytest.raises(kind) as caught:
        yield
    assert type(caught.value) is kind
    assert text in str(caught.value)


def wait_for(is_true: Callable[[], bool], timeout_s: float = 5) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def double() -> Iterator[DaytonaDouble]:
    """A double whose minutes last 0.6 s and whose cron runs every 0.1 s."""
    with DaytonaDouble(minute_s=0.6, label="test-double") as running:
        yield running


@pytest.fixture(autouse=True)
def whole(double: DaytonaDouble) -> Iterator[None]:
    """Nothing goes wrong, and nothing is in the log, at the start of a test."""
    double.forget_requests()
    yield
    double.heal()


@pytest.fixture(scope="module")
def client(double: DaytonaDouble, tmp_path_factory: pytest.TempPathFactory) -> Daytona:
    """A client, with the small snapshot built."""
    client = client_of(double)
    build(client, tmp_path_factory.mktemp("image"))
    return client


@pytest.fixture(scope="module")
def sandbox(client: Daytona) -> Sandbox:
    """A sandbox that is started."""
    return create(client, "kept", env_vars={"GREETING": "hello world"}, labels={"owner": "ann"})


class Login:
    """OpenSSH, with a token of its own."""

    def __init__(self, sandbox: Sandbox, directory: Path) -> None:
        self._known_hosts = directory / "known_hosts"
        self.command = sandbox.create_ssh_access(60).ssh_command

    def argv(self, *arguments: str) -> list[str]:
        """Give the command line, with these options and this remote command."""
        options = ("-F", "none", "-o", f"UserKnownHostsFile={self._known_hosts}")
        quiet = ("-o", "StrictHostKeyChecking=accept-new", "-o", "LogLevel=ERROR")
        return ["ssh", *options, *quiet, *shlex.split(self.command)[1:], *arguments]

    def run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run it to its end."""
        argv = self.argv(*arguments)
        return subprocess.run(argv, input=stdin, capture_output=True, check=False, timeout=20)


@pytest.fixture
def login(sandbox: Sandbox, tmp_path: Path) -> Login:
    """A login to the kept sandbox."""
    return Login(sandbox, tmp_path)


# -- the API ---------------------------------------------------------------------------------------


def test_a_sandbox_lives_through_the_sdk(client: Daytona, double: DaytonaDouble) -> None:
    """Create, get, stop, start, archive, delete: each is seen on its way at least once."""
    box = create(client, "life", env_vars={"A": "1"}, labels={"l": "v"})
    assert box.state == "started"
    assert client.get("life").env == {"A": "1"}
    assert (box.cpu, box.memory, box.disk) == (2, 4, 8)
    double.forget_requests()
    box.stop()
    assert sum(r.method == "GET" for r in double.requests()) >= 2
    assert any(r.is_poll for r in double.requests())
    box.start()
    box.start()
    box.stop()
    box.archive()
    wait_for(lambda: double.sandboxes()["life"].state == "archived")
    box.start()
    box.delete()
    with refused(DaytonaNotFoundError, "Sandbox with ID or name life not found"):
        client.get("life")
    assert client.get(box.id).state == "destroying"
    wait_for(lambda: box.id not in {s.id for s in double.sandboxes().values()})
    with refused(DaytonaNotFoundError, "not found"):
        client.get(box.id)


def test_what_a_sandbox_is_refused(
    client: Daytona, double: DaytonaDouble, sandbox: Sandbox
) -> None:
    """The platform's own words, with its own statuses."""
    with refused(DaytonaConflictError, "Sandbox with name kept already exists"):
        create(client, "kept")
    with refused(DaytonaBadRequestError, "Snapshot none not found. Did you add it"):
        create(client, "new", snapshot="none")
    with refused(DaytonaBadRequestError, f"{SNAPSHOT} is not available in region eu"):
        create(client_of(double, target="eu"), "new")
    with refused(DaytonaBadRequestError, "Sandbox is not stopped"):
        sandbox.archive()


def test_a_stop_keeps_the_disk_and_ends_processes(client: Daytona, double: DaytonaDouble) -> None:
    """Files survive, processes do not."""
    box = create(client, "disk")
    box.process.exec("echo kept > /desk/file; nohup sleep 1000 >/dev/null 2>&1 &")
    assert _runs(box, "sleep 1000")
    box.stop()
    with refused(DaytonaBadRequestError, "no IP address found. Is the Sandbox started?"):
        box.process.exec("true")
    box.start()
    assert box.process.exec("cat /desk/file").result == "kept\n"
    assert not _runs(box, "sleep 1000")
    double.remove_behind_back("disk")


def test_an_ephemeral_sandbox_is_destroyed_by_a_stop(
    client: Daytona, double: DaytonaDouble
) -> None:
    """Its name is free at once."""
    box = create(client, "short", ephemeral=True)
    with refused(DaytonaBadRequestError, "Ephemeral sandboxes cannot be archived"):
        box.archive()
    box.stop()
    again = create(client, "short", ephemeral=True)
    assert again.id != box.id
    double.remove_behind_back("short")


def test_idle_sandboxes_are_stopped_and_deleted(client: Daytona, double: DaytonaDouble) -> None:
    """Auto-stop after one minute without activity, auto-delete one minute after that."""
    box = create(client, "idle", auto_stop_interval=1, auto_delete_interval=1)
    began = time.monotonic()
    while time.monotonic() - began < 1:
        box.refresh_activity()
        time.sleep(0.1)
    assert double.sandboxes()["idle"].state == "started"
    wait_for(lambda: double.sandboxes()["idle"].state == "stopped")
    wait_for(lambda: "idle" not in double.sandboxes())


def test_an_ssh_channel_keeps_a_sandbox_awake(
    client: Daytona, double: DaytonaDouble, tmp_path: Path
) -> None:
    """As long as it is open."""
    box = create(client, "awake", auto_stop_interval=1)
    assert Login(box, tmp_path).run("sleep 1.3").returncode == 0
    assert double.sandboxes()["awake"].state == "started"
    wait_for(lambda: double.sandboxes()["awake"].state == "stopped")
    double.remove_behind_back("awake")


def test_labels_are_replaced_as_a_whole(client: Daytona, double: DaytonaDouble) -> None:
    """The SDK's own label goes too."""
    double.add_sandboxes(
        [Row(name="labelled", labels={"a": "1", "code-toolbox-language": "python"})]
    )
    client.get("labelled").set_labels({"b": "2"})
    assert double.sandboxes()["labelled"].labels == {"b": "2"}


def test_a_long_list_comes_in_pages(client: Daytona, double: DaytonaDouble) -> None:
    """All rows once, those of one owner by label, states and name prefixes as filters."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    double.add_sandboxes(
        Row(
            name=f"Row-{n}",
            labels={"owner": f"owner-{n % 3}", "all": "yes"},
            created=start + timedelta(seconds=n),
            state="destroying" if n == 7 else "stopped",
            is_stuck=n == 8,
        )
        for n in range(250)
    )
    double.forget_requests()
    found = list(client.list(daytona_sdk.ListSandboxesQuery(labels={"all": "yes"})))
    assert len({box.id for box in found}) == len(found) == 250
    assert len(double.requests()) == 3
    assert next(box.desired_state for box in found if box.name == "Row-7") == "destroyed"
    one = client.list(
        daytona_sdk.ListSandboxesQuery(labels={"owner": "owner-1", "all": "yes"}, limit=200)
    )
    assert sum(1 for _ in one) == 83
    assert len(list(client.list(daytona_sdk.ListSandboxesQuery(name="row-24")))) == 11
    assert all(
        b.name == "Row-7"
        for b in client.list(
            daytona_sdk.ListSandboxesQuery(states=[daytona_sdk.SandboxState.DESTROYING])
        )
    )
    with refused(DaytonaConflictError, "Sandbox state change in progress"):
        client.get("Row-8").delete()


def test_a_list_lags_behind(client: Daytona, double: DaytonaDouble) -> None:
    """What is new is not in it yet, what is gone still is; a get tells the truth."""
    query = daytona_sdk.ListSandboxesQuery(labels={"lag": "yes"})
    double.options.list_lag_s = 0.5
    try:
        double.add_sandboxes([Row(name="late", labels={"lag": "yes"})])
        assert client.get("late").name == "late"
        assert not list(client.list(query))
        wait_for(lambda: bool(list(client.list(query))))
        double.remove_behind_back("late")
        assert [box.name for box in client.list(query)] == ["late"]
        wait_for(lambda: not list(client.list(query)))
    finally:
        double.options.list_lag_s = 0


def test_a_key_may_lack_a_scope(client: Daytona, double: DaytonaDouble) -> None:
    """Reading needs none; a wrong key opens nothing."""
    double.add_sandboxes([Row(name="scoped")])
    double.options.scopes = frozenset({"write:sandboxes"})
    try:
        box = client.get("scoped")
        box.set_labels({})
        with refused(DaytonaForbiddenError, "Access denied"):
            box.delete()
    finally:
        double.options.scopes = None
    with refused(DaytonaAuthenticationError, "Invalid credentials"):
        client_of(double, api_key="wrong").get("scoped")


def test_snapshots_are_built_and_keep_their_names(
    client: Daytona, double: DaytonaDouble, tmp_path: Path
) -> None:
    """Also while they are removed, and when the build failed."""
    with pytest.raises(DaytonaError, match="Failed to create snapshot bad, reason"):
        build(client, tmp_path, "bad", "FROM debian:trixie-slim\nRUN exit 9\n")
    assert double.snapshots()["bad"].state == "build_failed"
    with refused(DaytonaConflictError, 'Snapshot with name "bad" already exists for this org'):
        build(client, tmp_path, "bad")
    client.snapshot.delete("bad")
    assert client.snapshot.get("bad").state == "removing"
    with refused(DaytonaBadRequestError, "Snapshot bad is removing"):
        create(client, "new", snapshot="bad")
    wait_for(lambda: "bad" not in double.snapshots())
    with refused(DaytonaNotFoundError, "Snapshot with name bad not found"):
        client.snapshot.get("bad")


def test_a_build_log_can_be_followed(
    client: Daytona, double: DaytonaDouble, tmp_path: Path
) -> None:
    """The builder's lines reach `on_logs`, with the reason of a failure among them."""
    double.options.build_delay_s = 1.2
    double.fail(fault("build failed", at="POST /snapshots"))
    lines: list[str] = []
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(DOCKERFILE, encoding="utf-8")
    wish = daytona_sdk.CreateSnapshotParams(
        name="logged", image=daytona_sdk.Image.from_dockerfile(dockerfile)
    )
    try:
        with pytest.raises(DaytonaError, match="Unable to locate package"):
            client.snapshot.create(wish, on_logs=lines.append)
    finally:
        double.options.build_delay_s = 0.15
    assert any("E: Unable to locate package no-such" in line for line in lines)
    client.snapshot.delete("logged")


def snapshot_wish(
    name: str, image: str = "debian:trixie-slim", cpu: int = 1, region: str | None = None
) -> daytona_sdk.CreateSnapshotParams:
    """Ask for a snapshot of a pulled image."""
    return daytona_sdk.CreateSnapshotParams(
        name=name, image=image, resources=daytona_sdk.Resources(cpu=cpu), region_id=region
    )


def test_what_a_snapshot_is_refused(client: Daytona, double: DaytonaDouble) -> None:
    """Names, tags, sizes, regions; a general one cannot be deleted."""
    for wish, text in (
        (snapshot_wish("no spaces"), "name must be a valid snapshot name"),
        (snapshot_wish("new", "debian:latest"), 'Images with tag ":latest" are not allowed'),
        (snapshot_wish("new", "debian"), "Image name must include a tag"),
        (snapshot_wish("new", cpu=8), "CPU request 8 exceeds maximum allowed per sandbox (4)"),
    ):
        with refused(DaytonaBadRequestError, text):
            client.snapshot.create(wish)
    with refused(DaytonaNotFoundError, "Region not found"):
        client.snapshot.create(snapshot_wish("new", region="mars"))
    double.add_snapshot("daytona-small", is_general=True)
    with refused(DaytonaForbiddenError, "You cannot delete a general snapshot"):
        client.snapshot.delete("daytona-small")
    double.add_snapshot("old", "inactive", image="debian:trixie-slim")
    with refused(DaytonaBadRequestError, "Snapshot old is inactive"):
        create(client, "new", snapshot="old")
    client.snapshot.activate("old")
    wait_for(lambda: double.snapshots()["old"].state == "active")


def test_object_storage_is_not_there(
    client: Daytona, double: DaytonaDouble, tmp_path: Path
) -> None:
    """A Dockerfile that copies needs it; the request is in the log."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    text = "FROM debian:trixie-slim\nCOPY file /file\n"
    with refused(DaytonaServiceUnavailableError, "Object storage is not configured"):
        build(client, tmp_path, "copies", text)
    assert [r.path for r in double.requests()] == ["/object-storage/push-access"]


def test_the_toolbox_runs_commands_and_moves_files(sandbox: Sandbox) -> None:
    """Output is merged; directory and variables as asked; files as they were."""
    run = sandbox.process.exec(
        'echo "$GREETING $B"; pwd; echo err >&2; exit 3', cwd="/tmp", env={"B": "2"}
    )
    assert (run.exit_code, run.result) == (3, "hello world 2\n/tmp\nerr\n")
    with refused(DaytonaTimeoutError, "command execution timeout"):
        sandbox.process.exec("sleep 5", timeout=1)
    content = bytes(range(256)) * 100
    sandbox.fs.upload_file(content, "/tmp/new/dir/file")
    assert sandbox.fs.download_file("/tmp/new/dir/file") == content
    sandbox.fs.create_folder("/tmp/folder", "700")
    info = sandbox.fs.get_file_info("/tmp/folder")
    assert (info.is_dir, info.permissions, info.owner) == (True, "0700", "me")
    assert (sandbox.get_user_home_dir(), sandbox.get_work_dir()) == ("/home/me", "/desk")
    with pytest.raises(DaytonaError, match="Permission denied"):
        sandbox.fs.upload_file(b"", "/etc/not-mine")


# -- the gateway -----------------------------------------------------------------------------------


def test_ssh_runs_commands(login: Login, sandbox: Sandbox) -> None:
    """Exit code, separate stderr, the image's user and directory, the sandbox's environment."""
    run = login.run('echo "$GREETING"; id -un; pwd; echo $DAYTONA_SANDBOX_ID; echo e >&2; exit 7')
    assert run.returncode == 7
    assert run.stdout.decode() == f"hello world\nme\n/desk\n{sandbox.id}\n"
    assert run.stderr == b"e\n"
    assert login.run(stdin=b"echo from stdin; exit 4\n").stdout == b"from stdin\n"


def test_ssh_carries_bytes_both_ways(login: Login) -> None:
    """Unchanged, with the end of the input passed on while the output goes on."""
    content = bytes(range(256)) * 20_000
    assert login.run("cat", stdin=content).stdout == content
    assert login.run("wc -c; echo after", stdin=content).stdout == b"5120000\nafter\n"
    assert login.run("head -c 3", stdin=content).stdout == content[:3]


def test_what_ssh_does_not_get(login: Login) -> None:
    """No remote forwarding, no variables from the client, no terminal for a command."""
    strict = ("-o", "ExitOnForwardFailure=yes")
    assert login.run(*strict, "-R", "9999:localhost:22", "true").returncode == 255
    assert login.run("-o", "SetEnv=SENT=1", "echo [$SENT]").stdout == b"[]\n"
    assert login.run("-tt", "test -t 0 || echo no terminal").stdout == b"no terminal\n"
    assert login.run("-A", "echo alive").stdout == b"alive\n"


def test_a_terminal_always_ends_with_0(login: Login) -> None:
    """And it is one."""
    run = login.run("-tt", stdin=b"tty; exit 5\n")
    assert run.returncode == 0
    assert b"/dev/pts/" in run.stdout


def test_a_lost_terminal_hangs_up_its_shell(login: Login, sandbox: Sandbox) -> None:
    """What runs in it goes with it."""
    ssh = subprocess.Popen(
        login.argv("-tt"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    with ssh:
        assert ssh.stdin is not None
        ssh.stdin.write(b"exec sleep 777\n")
        wait_for(lambda: _runs(sandbox, "sleep 777"))
        ssh.kill()
    wait_for(lambda: not _runs(sandbox, "sleep 777"))


def _runs(sandbox: Sandbox, command: str) -> bool:
    pattern = f"[{command[0]}]{command[1:]}"
    script = f"cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q '{pattern}'"
    return sandbox.process.exec(script).exit_code == 0


def test_a_lost_command_runs_on(login: Login, double: DaytonaDouble, sandbox: Sandbox) -> None:
    """A cut connection ends with 255, and nothing in the sandbox ends."""
    with subprocess.Popen(login.argv("sleep 1.5; echo x >/desk/done")) as ssh:
        wait_for(lambda: _runs(sandbox, "sleep 1.5"))
        double.cut_connections()
        assert ssh.wait(5) == 255
    wait_for(lambda: sandbox.process.exec("test -e /desk/done").exit_code == 0)


def test_a_token_that_opens_nothing(
    login: Login,
    client: Daytona,
    double: DaytonaDouble,
    sandbox: Sandbox,
    tmp_path: Path,
) -> None:
    """A second token, its end, and a stopped sandbox close the door: always 255."""
    second = Login(sandbox, tmp_path)
    assert login.run("true").returncode == 255
    assert second.run("true").returncode == 0
    double.expire_tokens("kept")
    assert second.run("true").returncode == 255
    assert b"ermission" not in second.run("true").stderr
    double.add_sandboxes([Row(name="cold", state="stopped")])
    assert Login(client.get("cold"), tmp_path).run("true").returncode == 255


def test_ports_are_forwarded_into_the_sandbox(login: Login, sandbox: Sandbox) -> None:
    """`-W` reaches what listens there; where nothing listens, the channel just ends."""
    perl = (
        "use IO::Socket; $s = IO::Socket::INET->new(LocalPort => 4000, Listen => 1); "
        'while ($c = $s->accept) { $l = <$c>; print $c "got $l"; close $c }'
    )
    sandbox.process.exec(f"nohup perl -e {shlex.quote(perl)} >/dev/null 2>&1 &")
    wait_for(lambda: login.run("-W", "localhost:4000", stdin=b"it\n").stdout == b"got it\n")
    assert login.run("-W", "localhost:4001").stdout == b""


def test_many_logins_at_once(login: Login) -> None:
    """Twenty connections, each with its own answer."""
    started = [
        subprocess.Popen(login.argv(f"sleep 0.3; echo {n}"), stdout=subprocess.PIPE)
        for n in range(20)
    ]
    assert [p.communicate(timeout=20)[0] for p in started] == [b"%d\n" % n for n in range(20)]


def test_the_gateway_changes_and_rests(login: Login, double: DaytonaDouble) -> None:
    """Another host key is refused by a client that knew the first; so is a closed port."""
    assert login.run("true").returncode == 0
    double.pause_gateway()
    assert login.run("true").returncode == 255
    double.resume_gateway()
    assert login.run("true").returncode == 0
    double.change_host_key()
    changed = login.run("true")
    assert changed.returncode == 255
    assert b"REMOTE HOST IDENTIFICATION HAS CHANGED" in changed.stderr


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("401", DaytonaAuthenticationError),
        ("403 suspended", DaytonaForbiddenError),
        ("404", DaytonaNotFoundError),
        ("409 change", DaytonaConflictError),
        ("429 suffixed", DaytonaRateLimitError),
        ("400 cpu", DaytonaBadRequestError),
        ("503", DaytonaServiceUnavailableError),
        ("200 html", DaytonaError),
        ("cut json", DaytonaError),
    ],
)
def test_a_fault_meets_the_request_that_it_is_for(
    client: Daytona, double: DaytonaDouble, name: str, kind: type[DaytonaError]
) -> None:
    """The second one; the first and the third go well."""
    double.add_sandboxes([Row(name=f"fault {name}")])
    double.fail(fault(name, at=2))
    client.get(f"fault {name}")
    with refused(kind, ""):
        client.get(f"fault {name}")
    client.get(f"fault {name}")


def test_an_accepted_request_can_lose_its_answer(client: Daytona, double: DaytonaDouble) -> None:
    """The sandbox is there all the same; without `accept` it is not."""
    double.fail(fault("accept then drop", at="POST /sandbox"))
    with pytest.raises(DaytonaError):
        create(client, "unheard")
    assert "unheard" in double.sandboxes()
    double.fail(fault("drop", at="POST /sandbox"))
    with pytest.raises(DaytonaError):
        create(client, "not begun")
    assert "not begun" not in double.sandboxes()
    assert [r.status for r in double.requests() if r.line == "POST /sandbox"] == [None, None]


def test_a_slow_or_silent_platform(client: Daytona, double: DaytonaDouble) -> None:
    """The client's own deadline ends the wait."""
    double.add_sandboxes([Row(name="slow")])
    double.fail(Fault(kind="slow", match="GET /sandbox/slow", seconds=0.3))
    began = time.monotonic()
    client.get("slow")
    assert time.monotonic() - began >= 0.3
    double.fail(Fault(kind="hang", match="PUT *", seconds=0.2, times=None))
    with pytest.raises(DaytonaError):
        client.get("slow").set_labels({})


def test_what_fails_in_the_platform_itself(client: Daytona, double: DaytonaDouble) -> None:
    """A sandbox ends in error, a state is a word nobody knows, inactivity stops one."""
    double.fail(fault("sandbox error", at="POST /sandbox"))
    with pytest.raises(DaytonaError, match="the runner ran out of disk space"):
        create(client, "broken")
    assert double.sandboxes()["broken"].state == "error"
    with refused(DaytonaBadRequestError, "Sandbox is in an errored state"):
        client.get("broken").start()
    double.fail(fault("state unknown", at=f"GET /snapshots/{SNAPSHOT}"))
    assert "UNKNOWN" in str(client.snapshot.get(SNAPSHOT).state)
    box = create(client, "sleepy")
    double.fail(replace(FAULTS["auto-stop"], match="* /toolbox/*"))
    with refused(DaytonaBadRequestError, "Is the Sandbox started?"):
        box.process.exec("true")
    assert double.sandboxes()["sleepy"].state == "stopped"
    client.get("kept").start()


def test_a_create_that_blocks_tells_of_its_failure(client: Daytona, double: DaytonaDouble) -> None:
    """As a refusal that leaves a sandbox behind."""
    double.options.create_blocks = True
    try:
        double.fail(fault("sandbox error", at="POST /sandbox"))
        with refused(DaytonaBadRequestError, "Sandbox failed to start: the runner ran out"):
            create(client, "left behind")
    finally:
        double.options.create_blocks = False
    assert double.sandboxes()["left behind"].state == "error"


def test_ssh_faults(login: Login, double: DaytonaDouble) -> None:
    """A token that has just expired, a connection that breaks in the middle, a new host key."""
    double.fail(fault("ssh expired"))
    assert login.run("true").returncode == 255
    double.fail(fault("ssh drop"))
    broken = login.run("yes | head -c 1000000")
    assert broken.returncode == 255
    assert len(broken.stdout) < 1_000_000
    double.fail(fault("ssh host key"))
    login.run("true")
    assert b"IDENTIFICATION HAS CHANGED" in login.run("true").stderr


def test_nothing_is_left() -> None:
    """A closed double has no containers, even of a create that was under way."""
    with DaytonaDouble(label="test-double-closed") as double:
        double.add_snapshot(SNAPSHOT, image="debian:trixie-slim")
        client = client_of(double)
        create(client, "open")
        double.fail(fault("accept then drop", at="POST /sandbox"))
        with pytest.raises(DaytonaError):
            create(client, "under way")
        wait_for(lambda: len(_containers("test-double-closed")) == 1)
    assert not _containers("test-double-closed")


def _containers(label: str) -> list[bytes]:
    argv = ["docker", "ps", "-aq", "--filter", f"label=daytona-double={label}"]
    return subprocess.run(argv, capture_output=True, check=True).stdout.split()


@pytest.mark.parametrize("gone", [True, False], ids=["a client has gone", "a client waits"])
def test_the_end_leaves_no_request_pending(gone: bool) -> None:  # noqa: FBT001
    """What hangs is ended with the server, and what happened to it is said by nobody."""
    source = f"""
        import socket, urllib.parse
        from tests.daytona_double import DaytonaDouble, Fault
        with DaytonaDouble() as double:
            double.fail(Fault(kind="hang", match="GET *", seconds=None, times=None))
            where = urllib.parse.urlsplit(double.url)
            client = socket.create_connection((where.hostname, where.port))
            client.sendall(b"GET /api/sandbox HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            while not double.requests():
                pass
            if {gone}:
                client.close()
                double.sandboxes()
        """
    words = (sys.executable, "-c", textwrap.dedent(source))
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "")
