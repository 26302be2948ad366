"""What the tasks do, one function each: options → settings → plan → workflow."""

from __future__ import annotations

import logging
import os
import re
import shlex
import stat
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from scripts import (
    agents,
    audit,
    connections,
    consent,
    console,
    env_file,
    host,
    housekeeping,
    identity,
    lifecycle,
    naming,
    network,
    plan,
    ports,
    process,
    protected,
    settings,
    state,
    trust,
    workflow,
)
from scripts.errors import DataError, UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripts.connections import Line
    from scripts.lifecycle import Work
    from scripts.model_endpoint import Endpoint
    from scripts.providers import Sandbox

log = logging.getLogger("nddt")


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options that most tasks have; None means not given."""

    provider: str | None = None
    name: str | None = None
    persistent: bool = False
    timeout: str | None = None
    ports: str | None = None
    mounts: str | None = None
    profile: str | None = None
    keyless: bool = False
    yes: bool = False
    verbose: bool = False
    dry: bool = False

    def work(self) -> Work:
        """Load the settings and the provider."""
        console.set_up_logging(verbose=self.verbose)
        loaded = settings.from_here(
            provider=self.provider,
            name=self.name,
            persistent=self.persistent,
            timeout_s=self.timeout,
            ports=self.ports,
            mounts=self.mounts,
            profile=self.profile,
            model_access="tunnel" if self.keyless else None,
        )
        if not self.dry:
            audit.about(loaded)
        for tidy in (state.tidy, ports.tidy, connections.tidy):
            tidy(loaded.process_environment)
        return lifecycle.work_with(loaded, loaded.provider, yes=self.yes)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What `run` is asked; None means not given."""

    prompt: str | None = None
    prompt_file: str | None = None
    model: str | None = None
    resume: str | None = None
    resume_last: bool = False
    yolo: bool = False
    output_format: str | None = None
    agent_args: str | None = None
    arguments: tuple[str, ...] = ()
    """Everything after `--`."""
    demo: bool = False


def _is_piped() -> bool:
    """Tell whether our stdin is something that holds a prompt: a pipe, a socket, a file."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


def _agent_arguments(asked: Asked) -> tuple[str, ...]:
    try:
        return (*shlex.split(asked.agent_args or ""), *asked.arguments)
    except ValueError as error:
        raise UsageError(f"--agent-args cannot be read: {error}", "quote it as in a shell") from (
            error
        )


def _request(asked: Asked, agent: agents.Agent) -> agents.Request:
    """Decide between one answer and a conversation.

    Raises:
        UsageError: There is neither a prompt nor a terminal.
    """
    arguments = _agent_arguments(asked)
    if asked.prompt is not None and asked.prompt_file is not None:
        raise UsageError("--prompt and --prompt-file exclude each other", "give one of them")
    given = asked.prompt is not None or asked.prompt_file is not None
    headless = given or agent.asks_nothing(arguments) or _is_piped()
    if asked.prompt is not None and not asked.prompt.strip() and not _is_piped():
        raise UsageError("the prompt is empty", "say what is to be done")
    if not headless and not (console.is_terminal(0) and console.is_terminal(1)):
        raise UsageError(
            "there is no prompt, and no terminal for a conversation",
            'give --prompt "…" or --prompt-file PATH, or pipe a prompt in',
        )
    return agents.Request(
        prompt=asked.prompt,
        headless=headless,
        model=asked.model,
        resume=asked.resume,
        resume_last=asked.resume_last,
        skip_permissions=asked.yolo,
        output_format=asked.output_format,
        arguments=arguments,
    )


def _open_prompt(path: str) -> IO[bytes]:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise UsageError(
            f"the prompt file {path} cannot be read: {error.strerror}", "correct --prompt-file"
        ) from error


def _make_plan(
    work: Work,
    request: agents.Request,
    *,
    terminal: bool = False,
    demo_url: str | None = None,
    command: tuple[str, ...] = (),
) -> plan.Plan:
    if work.settings.workspace == "mount" or work.settings.mounts:
        work.provider.check_mount(work.settings)
    if work.settings.docker_forward:
        work.provider.docker_risk(work.settings)
    work.provider.check_limits(work.settings)
    return plan.make(
        work.settings,
        request,
        provider=work.provider,
        terminal=terminal,
        pid=os.getpid(),
        demo_url=demo_url,
        command=command,
    )


def _with_identity(work: Work, made: plan.Plan, *, is_conversation: bool) -> plan.Plan:
    """Let a session bring along who the user is, what it may reach, and no key if so wanted."""
    brings = identity.provision(work.settings, made, is_conversation=is_conversation)
    brings += network.provision(work, made, is_conversation=is_conversation)
    made = replace(made, brings=made.brings + brings)
    if work.settings.model_access == "env":
        return made
    from scripts import model_access  # noqa: PLC0415  (not needed by most)

    return model_access.kept_here(work.settings, made, is_conversation=is_conversation)


def run(common: Common, asked: Asked) -> int:
    """Run the agent and give its exit code."""
    work = common.work()
    agent = agents.get(work.settings.agent)
    request = _request(asked, agent)
    with ExitStack() as stack:
        stdin: IO[bytes] | None = None
        if asked.prompt_file not in {None, "-"}:
            stdin = stack.enter_context(_open_prompt(str(asked.prompt_file)))
        elif request.headless and not _is_piped():
            # `ssh` would read a terminal that nobody means to be the agent's.
            stdin = stack.enter_context(Path(os.devnull).open("rb"))
        endpoint, meanwhile = None, _nothing
        lasts = work.settings.persistent and not request.headless
        if lasts:
            work = _as_begun(work)
        if asked.demo:
            note = _demo_note(work) if lasts else None
            endpoint = stack.enter_context(_demo_endpoint(note))
            meanwhile = partial(_start, endpoint, note)
        made = _make_plan(
            work,
            request,
            terminal=not request.headless,
            demo_url=endpoint.url if endpoint else None,
        )
        made = _with_identity(work, made, is_conversation=lasts)
        consent.agree(work)
        if common.dry:
            print(made.describe())
            return 0
        return workflow.run(work, made, stdin=stdin, meanwhile=meanwhile)


def _demo_note(work: Work) -> Path:
    """Give the file with the port of a demo whose agent lasts, in tmux."""
    key = work.key(housekeeping.this_name(work))
    return state.sandbox_directory(work.environ, key) / "demo-port"


def _keyless_note(work: Work) -> Path:
    """Give the file with the placeholder of an agent that lasts, in tmux, and has no key."""
    key = work.key(housekeeping.this_name(work))
    return state.sandbox_directory(work.environ, key) / state.PLACEHOLDER


def _as_begun(work: Work) -> Work:
    """Go on without keys in the sandbox, where a conversation without them may go on."""
    if not _keyless_note(work).exists():
        return work
    return replace(work, settings=replace(work.settings, model_access="tunnel"))


def _demo_endpoint(note: Path | None) -> Endpoint:
    """Make the endpoint of a demo; an agent that lasts finds the next one at the same port."""
    from scripts.messages_api import demo_reply  # noqa: PLC0415  (nobody else needs it)
    from scripts.model_endpoint import Endpoint  # noqa: PLC0415

    if note is None:
        return Endpoint(demo_reply)
    try:
        return Endpoint(demo_reply, ("127.0.0.1", int(note.read_text(encoding="ascii"))))
    except (OSError, ValueError):
        return Endpoint(demo_reply)


def _start(endpoint: Endpoint, note: Path | None) -> None:
    endpoint.start()
    if note is not None:
        note.write_text(endpoint.url.rpartition(":")[2], encoding="ascii")


def _nothing() -> None:
    pass


def attach(common: Common, *, demo: bool) -> int:
    """Come back to the agent of an existing sandbox, or start it there."""
    work = replace(common, persistent=True).work()
    if not (console.is_terminal(0) and console.is_terminal(1)):
        raise UsageError(
            "attach needs a terminal", 'without one: inv run --persistent --prompt "…"'
        )
    found = lifecycle.existing(work, housekeeping.this_name(work))
    if found.mode == "ephemeral":
        raise UsageError(
            f"the agent in {found.name} belongs to the terminal that started it",
            f"look inside with: inv shell --name {found.name}",
        )
    if not demo and not _demo_note(work).exists():
        work = _as_begun(work)
        is_keyless = work.settings.model_access == "tunnel"
        made = _make_plan(work, agents.Request(), command=() if is_keyless else ("true",))
        made = _with_identity(work, made, is_conversation=True)
        code = workflow.come_back(replace(work, as_it_is=True), made)
        if code is not None:
            return code
    again = replace(common, name=found.name, persistent=True)
    return run(again, Asked(demo=demo or _demo_note(work).exists()))


def shell(common: Common, command: str | None) -> int:
    """Run a shell, or one command, in the directory's sandbox or in one for this alone."""
    work = common.work()
    name = housekeeping.this_name(work)
    if common.name or not work.settings.persistent:
        found = work.provider.find(work.settings, name)
        if found is not None:
            lifecycle.check_owner(work, found)
            if common.mounts:
                raise UsageError(
                    f"sandbox {name} is there, and shows what it was made with",
                    f"leave out --mount, or remove it first: inv cleanup --name {name}",
                )
            chosen = replace(work.settings, name=name, persistent=True)
            work = replace(work, settings=chosen, as_it_is=True)
    terminal = console.is_terminal(0) and console.is_terminal(1)
    argv = ("bash", "-c", command) if command is not None else ("bash",)
    made = _make_plan(work, agents.Request(), terminal=terminal, command=argv)
    made = _with_identity(work, made, is_conversation=False)
    consent.agree(work)
    if common.dry:
        print(made.describe())
        return 0
    return workflow.run(work, made)


def _port(text: str) -> int:
    try:
        return settings.port(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no port", f"it is {error}") from error


def show_ports(common: Common, *, add: str | None, remove: str | None, browse: str | None) -> None:
    """Print which ports of a sandbox are open and what listens, or open or close one."""
    wanted = [_port(text) for text in (add, remove, browse) if text is not None]
    if len(wanted) > 1:
        raise UsageError("--add, --remove and --open exclude each other", "give one of them")
    work = common.work()
    want = lifecycle.wanted(work)
    connection = connections.existing(work, want, start=False)
    if not wanted:
        openings = ports.of(work.environ, work.key(want.name))
        print(console.table(ports.table(openings, ports.listening(connection))))
        return
    act = ports.remove if remove is not None else ports.add
    one = act(work, connection, want.name, wanted[0])
    print(one.url)
    if browse is not None:
        import webbrowser  # noqa: PLC0415  (only for this)

        if not webbrowser.open(one.url):
            raise UnavailableError("there is no browser here", f"open {one.url} yourself")


def copy(common: Common, source: str, target: str) -> None:
    """Copy a file or a directory into a sandbox, or out of it."""
    from scripts import copying  # noqa: PLC0415  (only for this)

    copying.check(source, target)
    work = common.work()
    want = lifecycle.wanted(work)
    if common.dry:
        print(want.name)
        return
    connection = connections.existing(work, want)
    changed: tuple[Path, ...] = ()
    if source.startswith(copying.MARK):
        place = Path(target).absolute()
        changed = (place if place.is_dir() else place.parent,)
    with protected.watched(work.environ, work.settings.directory, changed):
        copying.copy(connection, source, target)


def show_network(common: Common, *, allowed: bool) -> None:
    """Print what the directory's sandboxes were refused, or what they may reach."""
    loaded = common.work().settings
    print(console.table(network.allowed(loaded) if allowed else network.blocked(loaded)))


def allow(common: Common, host: str) -> None:
    """Allow a host to the directory's sandboxes, also to those that run, and print it."""
    loaded = common.work().settings
    if loaded.network == "open":
        log.warning("NDDT_NETWORK is open: all hosts are reached anyway")
    audit.note(host=host)
    print(network.allow(loaded, host))


def deny(common: Common, host: str) -> None:
    """Take back what `allow` has allowed, and print it."""
    audit.note(host=host)
    print(network.deny(common.work().settings, host))


def _copy_of(common: Common) -> tuple[Work, Path, Line, Sandbox | None]:
    """Find a sandbox's copy of a directory.

    Returns:
        Also that directory, the way to the copy, and the sandbox if it had to be looked up.
    """
    work = replace(common, persistent=True).work()
    name = housekeeping.this_name(work)
    work = replace(work, settings=replace(work.settings, name=name))
    if known := connections.known_copy(work, lifecycle.wanted(work)):
        return work, *known, None
    found = lifecycle.existing(work, name)
    if not found.is_synced:
        raise UsageError(
            f"sandbox {found.name} has no copy of the directory",
            "NDDT_WORKSPACE=sync makes one that has",
        )
    line = connections.existing_line(work, lifecycle.wanted(work))
    return work, Path(found.workspace), line, found


def push(common: Common) -> int:
    """Send what has changed here to the sandbox's copy."""
    from scripts import workspace  # noqa: PLC0415  (only for copies)

    work, directory, line, _ = _copy_of(common)
    report = workspace.push(work, line, directory)
    return DataError.exit_code if report.conflicts or report.failed else 0


def pull(common: Common) -> int:
    """Bring back what has changed in the sandbox's copy."""
    from scripts import workspace  # noqa: PLC0415  (only for copies)

    work, directory, line, found = _copy_of(common)
    with protected.watched(work.environ, work.settings.directory, (directory,)):
        report = workspace.pull(work, line, directory)
    if found and housekeeping.is_orphaned(found):
        lifecycle.remove_passed(work, found)
    return DataError.exit_code if report.conflicts else 0


def diff(common: Common) -> None:
    """Show what `pull` would bring."""
    from scripts import workspace  # noqa: PLC0415  (only for copies)

    work, directory, line, _ = _copy_of(common)
    with workspace.compared(work, line, directory) as (place, paths):
        log.info("%d files and directories differ", len(paths))
        words = ("git", "diff", "--no-index", "--no-prefix", "here", "sandbox")
        process.wait(process.spawn(words, cwd=place))


def protected_files(*, restored: bool, accepted: bool) -> None:
    """Print how files that programs of this machine act on were changed; restore or accept it."""
    console.set_up_logging(verbose=False)
    if restored and accepted:
        raise UsageError("--restore and --accept exclude each other", "give one of them")
    loaded = settings.from_here()
    here = loaded.process_environment, loaded.directory
    if restored:
        log.info("%d files are as they were", protected.restore(*here))
    elif accepted:
        protected.accept(*here)
    else:
        for one in protected.recorded(*here):
            print("\n".join(protected.difference(one)))


def ssh_config(*, installed: bool, yes: bool, verbose: bool) -> None:
    """Write the file that leads the user's own ssh to every sandbox, and print its line."""
    from scripts import guests  # noqa: PLC0415  (only for this)

    console.set_up_logging(verbose=verbose)
    loaded = settings.from_here()
    audit.about(loaded)
    environ = loaded.process_environment
    line = guests.include(guests.write(environ, Path(__file__).parent.parent / "nddt"))
    print(line)
    if not installed:
        log.info("put this line first into ~/.ssh/config, or let --install do it")
        return
    console.confirm(
        "Make this line the first one of ~/.ssh/config?",
        yes=yes,
        otherwise="put it there yourself, or agree with --yes",
    )
    if not guests.install(line, Path(environ.get("HOME", "/"))):
        log.info("it is there already")


def preview(common: Common, port: str | None, minutes: str) -> None:
    """Print an address at Daytona of a port of a sandbox."""
    from scripts.providers import daytona  # noqa: PLC0415  (no other provider can)

    if port is None:
        raise UsageError("it is not said which port", "for example: --port 3000")
    number = _port(port)
    if not (minutes.isdecimal() and 1 <= int(minutes) <= 1440):
        raise UsageError(f"{minutes!r} minutes are not possible", "it is 1 to 1440, a day")
    work = common.work()
    found = lifecycle.existing(work, housekeeping.this_name(work))
    if found.state != "running":
        how = f"start it: inv daytona.start --name {found.name}"
        raise UnavailableError(f"sandbox {found.name} does not run ({found.state})", how)
    print(daytona.preview(work.settings, found, number, int(minutes)))


def build_image(common: Common) -> None:
    """Build the image, and print its name."""
    work = common.work()
    made = _make_plan(work, agents.Request(), command=("true",))
    print(made.image(made.version) if common.dry else lifecycle.build_image(work, made))


def create_sandbox(common: Common) -> None:
    """Make the directory's sandbox, running, and print its name."""
    work = replace(common, persistent=True).work()
    made = _make_plan(work, agents.Request(), command=("true",))
    consent.agree(work)
    print(made.describe() if common.dry else lifecycle.create_sandbox(work, made))


def list_sandboxes(common: Common, *, all_owners: bool, as_json: bool) -> None:
    """Print the sandboxes."""
    print(housekeeping.listing(common.work(), all_owners=all_owners, as_json=as_json))


def _with_one(common: Common, act: Callable[[Work, str], str]) -> None:
    work = common.work()
    name = housekeeping.this_name(work)
    print(name if common.dry else act(work, name))


def start(common: Common) -> None:
    """Start a sandbox, and print its name."""
    _with_one(common, housekeeping.start)


def stop(common: Common) -> None:
    """Stop a sandbox, and print its name."""
    _with_one(common, housekeeping.stop)


def archive(common: Common) -> None:
    """Archive a sandbox of Daytona's, and print its name."""
    _with_one(common, housekeeping.archive)


def clean_up(
    common: Common, *, everything: bool, older_than: str | None, images: bool, discard: bool
) -> None:
    """Remove sandboxes, and print the name of each."""
    limit_s = housekeeping.seconds(older_than) if older_than else 0
    work = common.work()
    chosen = housekeeping.chosen(
        work, everything=everything, name=common.name, older_than_s=limit_s
    )
    if common.dry:
        for one in chosen:
            print(one.name)
        return
    housekeeping.clean_up(work, chosen, images=images, discard=discard, report=print)


def bootstrap_base(common: Common) -> None:
    """Make the base image from the Debian mirror, and print its name."""
    from scripts import engine  # noqa: PLC0415

    work = common.work()
    image = work.settings.base_image
    if not common.dry:
        work.provider.prepare(work.settings, yes=work.yes)
        labels = naming.image_labels(work.settings.owner)
        environ = work.settings.process_environment
        engine.bootstrap_base(image, yes=work.yes, environ=environ, labels=labels)
    print(image)


def trust_project(*, revoked: bool, yes: bool, dry: bool) -> None:
    """Print what the project's .env file would widen, and let it after consent, or no longer."""
    console.set_up_logging(verbose=False)
    path, environ = settings.project_file_here()
    if revoked:
        if not dry and trust.revoke(environ, path):
            audit.note(file=str(path), consent="revoked")
            audit.about(settings.from_here())
        return
    file = env_file.read(path)
    if file is None:
        raise UsageError(f"there is no {path}", "cd to the project that has one")
    values, lines = file.parse()
    names = settings.widening(values)
    for name in names:
        print(f"{_shown(name, values[name])}  # line {lines[name]}")
    if trust.is_agreed(environ, file):
        log.info("%s is agreed to already", path)
        return
    for doubt in filter(None, (file.doubts(), path.is_symlink() and "is a link")):
        log.warning("%s %s", path, doubt)
    question = f"Let all of {path} count, as long as it stays exactly as it is?"
    if not dry:
        console.confirm(question, yes=yes, otherwise="agree with --yes")
        trust.agree(environ, file)
        audit.note(file=str(path), sha256=file.digest, consent="given")
        audit.about(settings.from_here())


def _shown(name: str, value: str) -> str:
    """Write a variable of somebody else's file for a terminal, without its secrets."""
    is_setting = {item["variable"]: not item["secret"] for item in settings.declared()}
    is_secret = re.search("KEY|TOKEN|SECRET|PASS|AUTH", name) is not None
    text = f"{name}={host.without_password(value)}"
    if not is_setting.get(name, not is_secret):
        text = f"{name}=***"
    return text if text.isprintable() else repr(text)


def show_settings(*, profile: str | None, about_security: bool) -> None:
    """Print every setting, its value and where it comes from, or what a sandbox may do."""
    console.set_up_logging(verbose=False)
    loaded = settings.from_here(profile=profile)
    if about_security:
        from scripts import posture  # noqa: PLC0415  (only for this)

        chosen = lifecycle.work_with(loaded, loaded.provider).settings
        print(console.table(posture.rows(chosen)))
        return
    for item in settings.declared():
        value = getattr(loaded, item["field"])
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if isinstance(value, bool):
            shown = shown.lower()
        if item["secret"] and value:
            shown = "***"
        line = f"{item['variable']}={shown}  # {loaded.sources[item['variable']]}"
        print(console.one_line(line))
