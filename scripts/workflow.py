"""The order of steps, and tidying up on every way out."""

from __future__ import annotations

import logging
import secrets
import shutil
import signal
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from scripts import console, image, inside, process, state
from scripts.errors import (
    CannotCreateError,
    EndedBySignalError,
    TimeLimitError,
    TransportLostError,
    UnavailableError,
)
from scripts.ssh import Connection, Lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scripts.plan import Plan
    from scripts.providers import Provider, Sandbox
    from scripts.settings import Settings
    from scripts.ssh import Forward

log = logging.getLogger("nddt")

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every step needs."""

    provider: Provider
    settings: Settings
    yes: bool = False
    """Questions are agreed to beforehand."""
    as_it_is: bool = False
    """An existing sandbox is good, whatever it was made from."""

    @property
    def environ(self) -> Any:  # noqa: ANN401
        """Our own environment."""
        return self.settings.process_environment


@contextmanager
def _handling(handler: Any, signals: tuple[signal.Signals, ...]) -> Iterator[None]:  # noqa: ANN401
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, handler) for one in signals}
    try:
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)


def _end(signum: int, _frame: object) -> None:
    raise EndedBySignalError(signum)


# -- images ---------------------------------------------------------------------------------


def agent_version(work: Work, plan: Plan) -> str:
    """Give the agent's version; the registry is asked once a day, if at all."""

    def look_up(package: str) -> str:
        log.info("looking up %s", package)
        work.provider.prepare(work.settings, yes=work.yes)
        _build(work, plan, "")
        return work.provider.look_up(work.settings, plan.recipe, package)

    memory = state.cache_directory(work.environ) / "versions.json"
    return image.version(plan.version, plan.recipe.package, memory, look_up)


def _build(work: Work, plan: Plan, version: str) -> None:
    """Build an image unless it is there; of several processes one builds."""
    name = plan.recipe.name(version) if version else plan.recipe.tools_name
    if work.provider.has_image(work.settings, name):
        return
    with state.lock(state.runtime_directory(work.environ) / "l-build"):
        if not work.provider.has_image(work.settings, name):
            work.provider.build(work.settings, plan.recipe, version, yes=work.yes)


def build_image(work: Work, plan: Plan) -> str:
    """Build the plan's image, if it is not there, and give its name."""
    work.provider.prepare(work.settings, yes=work.yes)
    version = agent_version(work, plan)
    _build(work, plan, version)
    return plan.recipe.name(version)


# -- sandboxes ------------------------------------------------------------------------------


def check_owner(work: Work, found: Sandbox) -> Sandbox:
    """Refuse to touch what belongs to somebody else.

    Raises:
        CannotCreateError: The sandbox is another owner's.
    """
    if found.owner != work.settings.owner:
        raise CannotCreateError(
            f"the name {found.name} belongs to a sandbox of {found.owner}",
            "choose another with --name",
        )
    return found


def existing(work: Work, name: str) -> Sandbox:
    """Look up one of our sandboxes.

    Raises:
        UnavailableError: There is none of that name.
    """
    found = work.provider.find(work.settings, name)
    if found is None:
        raise UnavailableError(f"there is no sandbox {name}", "make one: inv docker.create-sandbox")
    return check_owner(work, found)


def create_sandbox(work: Work, plan: Plan) -> str:
    """Make sure that the plan's persistent sandbox runs, and give its name."""
    with state.lock(state.sandbox_directory(work.environ, plan.sandbox.name)):
        _create_or_start(work, plan, agent_version(work, plan))
    return plan.sandbox.name


def _create_or_start(work: Work, plan: Plan, version: str) -> str:
    """Make sure that the sandbox runs, and give the fingerprint that it has."""
    want, image_wanted = plan.sandbox, plan.recipe.name(version)
    work.provider.prepare(work.settings, yes=work.yes)
    found = work.provider.find(work.settings, want.name)
    if found is not None and _is_replaced(work, plan, check_owner(work, found), image_wanted):
        forget(work, want.name)
        work.provider.remove(work.settings, want.name)
        found = None
    if found is None:
        _build(work, plan, version)
        log.info("creating sandbox %s", want.name)
        work.provider.create(work.settings, want, image_wanted)
        return want.fingerprint(image_wanted)
    if found.state != "running":
        log.info("starting sandbox %s", want.name)
        work.provider.start(work.settings, want.name)
    else:
        log.info("using existing sandbox %s", want.name)
    return found.fingerprint


def _is_replaced(work: Work, plan: Plan, found: Sandbox, image_wanted: str) -> bool:
    """Ask whether an out-of-date sandbox is to be made anew."""
    fits = work.as_it_is or found.fingerprint == plan.sandbox.fingerprint(image_wanted)
    if fits or found.mode != "persistent":
        return False
    changed = (
        f"its image is {found.image}, now it would be {image_wanted}"
        if found.image != image_wanted
        else f"it shows {found.workspace or 'nothing'}, now it would show "
        f"{plan.sandbox.workspace or 'nothing'}"
    )
    question = f"sandbox {found.name} is out of date: {changed}. Make it anew? All but the "
    question += "workspace is lost."
    if work.yes or console.ask(question):
        return True
    log.warning("%s is used as it is: %s — --yes makes it anew", found.name, changed)
    return False


def forget(work: Work, name: str) -> None:
    """Close the connection to a sandbox and remove its files."""
    directory = state.sandbox_directory(work.environ, name)
    Connection(directory).close()
    shutil.rmtree(directory, ignore_errors=True)


# -- connections ----------------------------------------------------------------------------


def _kept_connection(work: Work, plan: Plan) -> Connection:
    """Give the open connection to the plan's persistent sandbox.

    If it is open and nothing has changed, that costs no question to the provider.
    """
    connection = Connection(state.sandbox_directory(work.environ, plan.sandbox.name))
    note = connection.directory / "fingerprint"
    version = agent_version(work, plan)
    wanted = plan.sandbox.fingerprint(plan.recipe.name(version))

    def is_ready() -> bool:
        if not (note.exists() and connection.is_open()):
            return False
        return work.as_it_is or note.read_text() == wanted

    if is_ready():
        return connection
    with state.lock(state.sandbox_directory(work.environ, plan.sandbox.name)):
        if is_ready():
            return connection
        made_from = _create_or_start(work, plan, version)
        connection.directory.mkdir(mode=0o700, exist_ok=True)
        if not connection.is_open():
            server = inside.server(connection.public_key())
            pipe = work.provider.pipe(work.settings, plan.sandbox.name, server)
            environ = work.provider.pipe_environment(work.settings)
            connection.write(pipe, plan.sandbox.user, environ, kept=True)
            connection.keep_open(work.settings.keep_connection_s)
        note.write_text(made_from)
    return connection


@contextmanager
def _ephemeral_lease(
    work: Work, plan: Plan, session: str, meanwhile: Callable[[], None]
) -> Iterator[tuple[Connection, Lease]]:
    """Open the connection that is the plan's sandbox; both end together.

    Args:
        work: See there.
        plan: See there.
        session: Id of the session that the lease is for.
        meanwhile: What there is to do while the sandbox starts.
    """
    with state.own_directory(work.environ) as directory:
        connection = Connection(directory)
        version = agent_version(work, plan)
        name = plan.recipe.name(version)
        if not process.find("ssh-keygen"):
            work.provider.prepare(work.settings, yes=work.yes)
        server = inside.server(connection.public_key())
        pipe = work.provider.ephemeral_pipe(work.settings, plan.sandbox, name, server)
        environ = work.provider.pipe_environment(work.settings)
        connection.write(pipe, plan.sandbox.user, environ)
        try:
            lease = _handed_over(connection, plan, session, meanwhile, master=True)
        except TransportLostError as error:
            _remedy(work, plan, version, error)
            lease = _handed_over(connection, plan, session, lambda: None, master=True)
        with _let_go(lease, connection):
            yield connection, lease


def _remedy(work: Work, plan: Plan, version: str, error: TransportLostError) -> None:
    """Do what a first run lacks: the engine, the image; or say what else is wrong."""
    work.provider.prepare(work.settings, yes=work.yes)
    found = work.provider.find(work.settings, plan.sandbox.name)
    if found is not None:
        check_owner(work, found)
        raise CannotCreateError(
            f"the name {found.name} is in use", "choose another with --name, or add --persistent"
        )
    if work.provider.has_image(work.settings, plan.recipe.name(version)):
        raise CannotCreateError(
            "the sandbox could not be started", "see the lines above", detail=error.detail
        ) from error
    _build(work, plan, version)


def _handed_over(
    connection: Connection,
    plan: Plan,
    session: str,
    meanwhile: Callable[[], None],
    *,
    master: bool,
) -> Lease:
    text = inside.script(
        plan.argv, plan.variables, directory="/workspace", before=plan.before, after=plan.after
    )
    lease = Lease(connection, session, text, plan.forwards, master=master)
    try:
        meanwhile()
        lease.hand_over()
    except BaseException:
        with _handling(signal.SIG_IGN, ENDING):
            lease.close()
        raise
    return lease


@contextmanager
def _let_go(
    lease: Lease, connection: Connection, forwards: tuple[Forward, ...] = ()
) -> Iterator[None]:
    """Let go of a lease in the end, and of forwards if the connection outlives it."""
    try:
        yield
    finally:
        # A second Ctrl-C must not leave half of it behind; closing has its own time limit.
        with _handling(signal.SIG_IGN, ENDING), connection.cancelling(forwards):
            lease.close()


# -- sessions -------------------------------------------------------------------------------


def run(
    work: Work,
    plan: Plan,
    *,
    stdin: int | IO[bytes] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> int:
    """Run the plan's session in its sandbox.

    Args:
        work: See there.
        plan: See there.
        stdin: What the program inside reads; None for our own stdin.
        meanwhile: What there is to do while the sandbox starts.

    Returns:
        The program's exit code.

    Raises:
        TimeLimitError: It took longer than the plan allows; it has been ended.
        TransportLostError: The connection broke.
        EndedBySignalError: We were asked to end; so was the program.
    """
    session = secrets.token_hex(6)
    with _handling(_end, (signal.SIGTERM, signal.SIGHUP)):
        if not plan.sandbox.persistent:
            with _ephemeral_lease(work, plan, session, meanwhile) as (connection, lease):
                return _attended(connection, lease, plan, session, stdin)
        connection = _kept_connection(work, plan)
        if plan.terminal:
            meanwhile()
            return _in_tmux(connection, plan, session)
        lease = _handed_over(connection, plan, session, meanwhile, master=False)
        with _let_go(lease, connection, plan.forwards):
            return _attended(connection, lease, plan, session, stdin)


def _attended(
    connection: Connection,
    lease: Lease,
    plan: Plan,
    session: str,
    stdin: int | IO[bytes] | None,
) -> int:
    """Run a stored script while its lease lasts."""
    terminal = "-t" if plan.terminal else "-T"
    argv = connection.session_argv(terminal, "nddt", inside.start(session))
    with console.kept_terminal() if plan.terminal else nullcontext():
        started = process.spawn(argv, stdin=stdin)
        try:
            code = process.wait(started, plan.timeout_s or None)
        finally:
            if started.poll() is None:
                started.terminate()
                started.wait()
    if code is None:
        raise TimeLimitError(f"the time limit of {plan.timeout_s} s is over", "raise --timeout")
    if code == 255 and lease.ends_within(1):
        raise TransportLostError("the connection to the sandbox broke", detail=lease.errors)
    return code


def come_back(work: Work, plan: Plan) -> int | None:
    """Come back to the agent that runs in the plan's sandbox.

    Returns:
        Its exit code, 0 if it goes on without the terminal; None if none runs.
    """
    with _handling(_end, (signal.SIGTERM, signal.SIGHUP)):
        connection = _kept_connection(work, plan)
        if not process.capture(connection.session_argv("-T", "nddt", inside.TMUX_RUNS)).ok:
            return None
        return _at_terminal(connection, secrets.token_hex(6))


def _in_tmux(connection: Connection, plan: Plan, session: str) -> int:
    """Run the plan's program in tmux, where a lost terminal does not end it."""
    text = inside.script(
        plan.argv, plan.variables, directory="/workspace", before=plan.before, after=plan.after
    )
    forwards = [word for forward in plan.forwards for word in forward.arguments]
    store = connection.session_argv(*forwards, "-T", "nddt", inside.store(session))
    stored = process.capture(store, stdin=text.encode("utf-8", "surrogateescape"))
    if not stored.ok:
        raise TransportLostError("the connection to the sandbox broke", detail=stored.stderr)
    return _at_terminal(connection, session)


def _at_terminal(connection: Connection, session: str) -> int:
    log.info("Ctrl-\\ leaves the agent running; inv attach comes back to it")
    argv = connection.session_argv("-t", "nddt", inside.start_in_tmux(session))
    with console.kept_terminal():
        code = process.wait(process.spawn(argv))
    if code == 255 and not connection.is_open():
        raise TransportLostError(
            "the connection to the sandbox broke; the agent goes on", "inv attach comes back to it"
        )
    return code or 0
