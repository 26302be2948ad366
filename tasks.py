"""All tasks: `inv --list`. What they do is in scripts/commands.py."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from invoke.collection import Collection

from scripts.cli import NddtTask, lazy, remainder, task

if TYPE_CHECKING:
    from invoke.context import Context

    from scripts import commands, development
    from scripts.commands import Common
else:
    commands = lazy("scripts.commands")
    development = lazy("scripts.development")

_HELP = {
    "all": "All that are yours, in any directory, running ones too.",
    "host": "Name, such as example.org, *.example.org, example.org:8443.",
    "all-owners": "Those of other users and machines, too.",
    "command": "Run this with bash in place of an interactive shell.",
    "demo": "Answer without a model: shows that all parts work, with no account.",
    "discard": "Lose what copies of the directory hold and nobody has fetched.",
    "images": "Remove old images, too; the newest 3 stay.",
    "json": "Print a JSON array.",
    "keyless": "Keep keys on this machine: NDDT_MODEL_ACCESS=tunnel.",
    "mount": "Directory to show, HERE:IN_SANDBOX or HERE:IN_SANDBOX:ro; repeatable (NDDT_MOUNTS).",
    "name": "Name of the sandbox; default: made up from the directory (NDDT_NAME).",
    "older-than": "Only what is older than this, such as 90s, 30m, 12h, 7d.",
    "persistent": "Keep one sandbox per directory and reuse it (NDDT_PERSISTENT).",
    "port": "Port of the sandbox, such as 3000.",
    "ports": "Ports of the sandbox to reach from here, such as 3000,8080 (NDDT_PORTS).",
    "profile": "Its walls: open, standard, strict or airgap (NDDT_PROFILE).",
    "provider": "Where sandboxes run: docker or daytona (NDDT_PROVIDER).",
    "timeout": "End the run after this many seconds; default 0, never (NDDT_TIMEOUT).",
    "verbose": "Show what is done, on stderr.",
    "yes": "Answer all questions with yes.",
}


def _help(*names: str, **own: str) -> dict[str, str]:
    return {name: _HELP[name] for name in names} | own


def _dry(c: Context) -> bool:
    return bool(c.config.run.dry)


def _several(values: list[str] | None) -> str | None:
    """Write an option that was given several times as its setting; None if it was not given."""
    return ",".join(values) if values else None


@task(
    iterable=["mount"],
    help=_help(
        "provider",
        "name",
        "persistent",
        "timeout",
        "ports",
        "mount",
        "profile",
        "keyless",
        "demo",
        "yes",
        "verbose",
        prompt="What the agent is to do.",
        **{
            "prompt-file": "File with the prompt; - for stdin.",
            "agent-args": "More arguments for the agent, quoted as in a shell; or after --.",
            "continue": "Go on with the directory's last conversation.",
            "output-format": "text, json or stream-json; default text.",
            "yolo": "Let the agent do all without asking for permission.",
        },
        model="Model, such as opus; default: the agent's.",
        resume="Id of the conversation to go on with.",
    ),
)
def run(
    c: Context,
    prompt: str | None = None,
    prompt_file: str | None = None,
    model: str | None = None,
    continue_: bool = False,
    resume: str | None = None,
    yolo: bool = False,
    output_format: str | None = None,
    agent_args: str | None = None,
    name: str | None = None,
    persistent: bool = False,
    provider: str | None = None,
    timeout: str | None = None,
    ports: str | None = None,
    mount: list[str] | None = None,
    profile: str | None = None,
    keyless: bool = False,
    demo: bool = False,
    yes: bool = False,
    verbose: bool = False,
) -> int:
    """Run the agent in a sandbox; --dry only shows the plan."""
    common = commands.Common(
        provider=provider,
        name=name,
        persistent=persistent,
        timeout=timeout,
        ports=ports,
        mounts=_several(mount),
        profile=profile,
        keyless=keyless,
        yes=yes,
        verbose=verbose,
        dry=_dry(c),
    )
    asked = commands.Asked(
        prompt=prompt,
        prompt_file=prompt_file,
        model=model,
        resume=resume,
        resume_last=continue_,
        yolo=yolo,
        output_format=output_format,
        agent_args=agent_args,
        arguments=remainder(sys.argv),
        demo=demo,
    )
    return commands.run(common, asked)


def _common(provider: str | None, c: Context, name: str | None, yes: bool, verbose: bool) -> Common:
    return commands.Common(provider=provider, name=name, yes=yes, verbose=verbose, dry=_dry(c))


def _life_cycle(provider: str | None) -> dict[str, NddtTask]:
    """Make the tasks that every provider has; None follows NDDT_PROVIDER."""
    common = partial(_common, provider)

    @task(help=_help("yes", "verbose"))
    def build_image(c: Context, yes: bool = False, verbose: bool = False) -> None:
        """Build the sandbox's image, if anything in it changed."""
        commands.build_image(common(c, None, yes, verbose))

    @task(iterable=["mount"], help=_help("name", "mount", "profile", "yes", "verbose"))
    def create_sandbox(
        c: Context,
        name: str | None = None,
        mount: list[str] | None = None,
        profile: str | None = None,
        yes: bool = False,
        verbose: bool = False,
    ) -> None:
        """Make this directory's sandbox, or start it."""
        one = common(c, name, yes, verbose)
        commands.create_sandbox(replace(one, mounts=_several(mount), profile=profile))

    @task(help=_help("name", "ports", "profile", "keyless", "demo", "yes", "verbose"))
    def attach(
        c: Context,
        name: str | None = None,
        ports: str | None = None,
        profile: str | None = None,
        keyless: bool = False,
        demo: bool = False,
        yes: bool = False,
        verbose: bool = False,
    ) -> int:
        """Come back to the agent in this directory's sandbox."""
        one = replace(common(c, name, yes, verbose), ports=ports, profile=profile, keyless=keyless)
        return commands.attach(one, demo=demo)

    @task(
        iterable=["mount"],
        help=_help("name", "command", "ports", "mount", "profile", "keyless", "yes", "verbose"),
    )
    def shell(
        c: Context,
        name: str | None = None,
        command: str | None = None,
        ports: str | None = None,
        mount: list[str] | None = None,
        profile: str | None = None,
        keyless: bool = False,
        yes: bool = False,
        verbose: bool = False,
    ) -> int:
        """Open a shell in the sandbox, or run one command."""
        one = replace(common(c, name, yes, verbose), ports=ports, mounts=_several(mount))
        one = replace(one, profile=profile, keyless=keyless)
        return commands.shell(one, command)

    @task(name="list", help=_help("all-owners", "json", "verbose"))
    def list_(
        c: Context, all_owners: bool = False, json: bool = False, verbose: bool = False
    ) -> None:
        """List your sandboxes."""
        commands.list_sandboxes(
            common(c, None, yes=False, verbose=verbose), all_owners=all_owners, as_json=json
        )

    @task(help=_help("name", "verbose"))
    def start(c: Context, name: str | None = None, verbose: bool = False) -> None:
        """Start this directory's stopped sandbox."""
        commands.start(common(c, name, yes=False, verbose=verbose))

    @task(help=_help("name", "verbose"))
    def stop(c: Context, name: str | None = None, verbose: bool = False) -> None:
        """Stop this directory's sandbox; it keeps its files."""
        commands.stop(common(c, name, yes=False, verbose=verbose))

    @task(help=_help("all", "name", "older-than", "images", "discard", "yes", "verbose"))
    def cleanup(
        c: Context,
        all: bool = False,  # noqa: A002  (the option's name)
        name: str | None = None,
        older_than: str | None = None,
        images: bool = False,
        discard: bool = False,
        yes: bool = False,
        verbose: bool = False,
    ) -> None:
        """Remove this directory's stopped and left-over sandboxes."""
        commands.clean_up(
            common(c, name, yes, verbose),
            everything=all,
            older_than=older_than,
            images=images,
            discard=discard,
        )

    made = (build_image, create_sandbox, attach, shell, list_, start, stop, cleanup)
    return {str(one.name): one for one in made}


def _inside(provider: str | None) -> dict[str, NddtTask]:
    """Make the tasks that are about what is in a sandbox; None follows NDDT_PROVIDER."""
    common = partial(_common, provider)

    @task(
        name="ports",
        help=_help(
            "name",
            "verbose",
            add="Open this port of the sandbox, too, and print where.",
            remove="Close a port that --add has opened.",
            open="Open this port of the sandbox in the browser.",
        ),
    )
    def ports_(
        c: Context,
        add: str | None = None,
        remove: str | None = None,
        open: str | None = None,  # noqa: A002  (the option's name)
        name: str | None = None,
        verbose: bool = False,
    ) -> None:
        """Show which ports of the sandbox are open, or open one."""
        one = common(c, name, yes=False, verbose=verbose)
        commands.show_ports(one, add=add, remove=remove, browse=open)

    @task(
        help=_help(
            "name",
            "verbose",
            source="What is copied; sandbox:PATH if it is in the sandbox.",
            target="Where to; sandbox:PATH if that is in the sandbox.",
        )
    )
    def cp(
        c: Context, source: str, target: str, name: str | None = None, verbose: bool = False
    ) -> None:
        """Copy files into the sandbox, or out of it."""
        commands.copy(common(c, name, yes=False, verbose=verbose), source, target)

    @task(help=_help("name", "yes", "verbose"))
    def push(c: Context, name: str | None = None, yes: bool = False, verbose: bool = False) -> int:
        """Send what has changed here to the sandbox's copy."""
        return commands.push(common(c, name, yes, verbose))

    @task(help=_help("name", "yes", "verbose"))
    def pull(c: Context, name: str | None = None, yes: bool = False, verbose: bool = False) -> int:
        """Bring back what has changed in the sandbox's copy."""
        return commands.pull(common(c, name, yes, verbose))

    @task(help=_help("name", "yes", "verbose"))
    def diff(c: Context, name: str | None = None, yes: bool = False, verbose: bool = False) -> None:
        """Show what pull would bring."""
        commands.diff(common(c, name, yes, verbose))

    return {str(one.name): one for one in (ports_, cp, push, pull, diff)}


@task(help=_help("name", "verbose"))
def archive(c: Context, name: str | None = None, verbose: bool = False) -> None:
    """Move this directory's sandbox to where it costs nothing."""
    commands.archive(commands.Common(provider="daytona", name=name, verbose=verbose, dry=_dry(c)))


@task(help=_help("port", "name", "verbose", minutes="How long it is good; default 60."))
def preview(
    c: Context,
    port: str | None = None,
    minutes: str = "60",
    name: str | None = None,
    verbose: bool = False,
) -> None:
    """Print Daytona's address of a port of the sandbox."""
    commands.preview(
        commands.Common(provider="daytona", name=name, verbose=verbose, dry=_dry(c)), port, minutes
    )


@task(
    help={
        "restore": "Bring back what was there before.",
        "accept": "Forget it: all is fine as it is.",
    }
)
def protected(c: Context, restore: bool = False, accept: bool = False) -> None:
    """Show changes to files that programs here act on."""
    commands.protected_files(restored=restore, accepted=accept)


@task(help=_help("yes", "verbose", install="Put the line into ~/.ssh/config."))
def ssh_config(c: Context, install: bool = False, yes: bool = False, verbose: bool = False) -> None:
    """Let your own ssh reach every sandbox by its name."""
    commands.ssh_config(installed=install, yes=yes, verbose=verbose)


@task(help=_help("yes", "verbose"))
def bootstrap_base(c: Context, yes: bool = False, verbose: bool = False) -> None:
    """Make the base image from a mirror, without a registry."""
    commands.bootstrap_base(
        commands.Common(provider="docker", yes=yes, verbose=verbose, dry=_dry(c))
    )


@task(help=_help("provider", "yes", "verbose"))
def setup(
    c: Context, provider: str | None = None, yes: bool = False, verbose: bool = False
) -> None:
    """Install what is missing here, and build the image."""
    commands.build_image(commands.Common(provider=provider, yes=yes, verbose=verbose, dry=_dry(c)))


@task(help=_help("verbose", allowed="Show what is allowed instead, but for package hosts."))
def network(c: Context, allowed: bool = False, verbose: bool = False) -> None:
    """Show which hosts this directory's sandboxes were refused."""
    commands.show_network(commands.Common(verbose=verbose), allowed=allowed)


@task(help=_help("host", "verbose"))
def allow(c: Context, host: str, verbose: bool = False) -> None:
    """Allow a host to this directory's sandboxes, at once."""
    commands.allow(commands.Common(verbose=verbose), host)


@task(help=_help("host", "verbose"))
def deny(c: Context, host: str, verbose: bool = False) -> None:
    """Take back what network.allow has allowed."""
    commands.deny(commands.Common(verbose=verbose), host)


@task(help=_help("yes", revoke="Take back what was agreed to."))
def trust(c: Context, revoke: bool = False, yes: bool = False) -> None:
    """Agree to what this project's .env would widen."""
    commands.trust_project(revoked=revoke, yes=yes, dry=_dry(c))


@task(help=_help("profile", security="Show what a sandbox may do, instead."))
def config(c: Context, profile: str | None = None, security: bool = False) -> None:
    """Show every setting, its value and where it comes from."""
    commands.show_settings(profile=profile, about_security=security)


@task(help=_help("yes", only="Run only tests whose names match, such as 'ssh and not slow'."))
def test(c: Context, only: str | None = None, yes: bool = False) -> int:
    """Run all checks and tests; they need a Docker engine."""
    return development.test(only=only, yes=yes)


@task(
    help={
        "latency": "Milliseconds before each answer; default 0.",
        "minute": "Seconds that a minute of the platform's lasts; default 60.",
    }
)
def daytona_double(c: Context, latency: str = "0", minute: str = "60") -> int:
    """Run a double of Daytona, and print what to export."""
    return development.daytona_double(latency=latency, minute=minute)


@task
def lint(c: Context) -> int:
    """Check style, types, import rules and the tasks."""
    return development.lint()


@task(help={"runs": "Measurements of each kind; default 10.", **_help("json", "yes")})
def bench(c: Context, runs: str = "10", json: bool = False, yes: bool = False) -> None:
    """Measure against docker and invoke by hand, side by side."""
    development.bench(runs=runs, as_json=json, yes=yes)


def _of(provider: str | None) -> dict[str, NddtTask]:
    return _life_cycle(provider) | _inside(provider)


def _namespace() -> Collection:
    root = Collection(run, protected, ssh_config, setup, trust, config, lint, bench)
    tests = Collection("test", daytona_double)
    tests.add_task(test, name="all", default=True)
    root.add_collection(tests)
    reach = Collection("network", allow, deny)
    reach.add_task(network, name="show", default=True)
    root.add_collection(reach)
    for name in (
        "attach",
        "shell",
        "ports",
        "cp",
        "push",
        "pull",
        "diff",
        "list",
        "stop",
        "cleanup",
    ):
        root.add_task(_of(None)[name])
    root.add_collection(Collection("docker", *_of("docker").values(), bootstrap_base))
    root.add_collection(Collection("daytona", *_of("daytona").values(), archive, preview))
    return root


ns = _namespace()
