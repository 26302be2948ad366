"""What a session brings along from this machine, all of it collected here.

First it is decided which keys stay here. Only then is anything collected, and whatever is has
placeholders in the places of these keys; what uses them here is added last.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from scripts.brings import conversations, docker_inside, environment, identity
from scripts.contracts.provisions import Provision
from scripts.keyless.kept_keys import KeptKeys
from scripts.network import fence, offline
from scripts.run import images

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from scripts.brings.environment import Wanted
    from scripts.plan import Plan
    from scripts.run.work import Work
    from scripts.settings.allowlist import Rule


def collect(
    work: Work,
    plan: Plan,
    *,
    demo_url: str | None = None,
    has_begun: bool = False,
    dry: bool = False,
) -> Plan:
    """Add to a plan what its session brings along.

    Args:
        work: The provider and the settings.
        plan: The session, without anything yet.
        demo_url: Address of the demo's model, if that is the model.
        has_begun: Whether the agent runs already, with the credential that it began with.
        dry: Whether nothing is to happen, so that nothing is asked either.

    Raises:
        CredentialsError: The agent has no credential.
        ConfigError: A setting makes no sense, or a key cannot stay here that was to.
        UnavailableError: An agent for keys that is to be forwarded does not run.
    """
    starts_agent = plan.is_agent and not has_begun
    chosen = environment.wanted(
        work.settings,
        plan.agent,
        plan.network,
        plan.sandbox.home,
        demo_url,
        runs_agent=starts_agent,
    )
    kept = KeptKeys()
    if work.settings.model_access != "env":
        kept = _kept_here(work, plan, chosen.variables, dry=dry)
    brings = Provision()
    for one in _parts(work, plan, chosen, kept.variables, starts_agent=starts_agent):
        brings += kept.hidden(one)
    return replace(plan, brings=brings + kept.brings)


def _kept_here(work: Work, plan: Plan, variables: Mapping[str, str], *, dry: bool) -> KeptKeys:
    """Decide which keys stay here, of the variables that the session would have."""
    from scripts.keyless import github_access, model_access  # noqa: PLC0415  (not needed by most)

    if not dry:
        github_access.ask_about_remotes(work.settings, variables, yes=work.yes)
    exposed = model_access.Exposed(
        variables=variables,
        session=plan.session,
        sandbox=plan.sandbox,
        is_agent=plan.is_agent,
        is_copied=partial(_is_copied, work.settings.directory, work.settings.env_file),
    )
    return model_access.kept_here(work.settings, exposed)


def _parts(
    work: Work, plan: Plan, chosen: Wanted, instead: Mapping[str, str], *, starts_agent: bool
) -> Iterator[Provision]:
    """Collect one part after another; of two files or variables of one name, the later counts.

    Args:
        work: The provider and the settings.
        plan: The session.
        chosen: Its environment where every key enters the sandbox.
        instead: Variables in place of some of these.
        starts_agent: Whether the agent is about to start.
    """
    settings = work.settings
    if plan.sandbox.is_offline:
        routes = work.provider.HAS_ROUTES
        guard = offline.guard(may_have_routes=routes, setting=settings.network)
        yield Provision(before=(guard,))
    yield environment.bring_environment(chosen, instead)
    # Where a port leads from is known when the session begins.
    where = f"at the first free port of 127.0.0.1 from {settings.port_range_start} on"
    yield Provision(plan_lines=tuple(("port", f"{one} {where}") for one in settings.ports))
    yield docker_inside.bring_docker(plan.sandbox, plan.network)
    if starts_agent:
        yield conversations.bring_conversations(
            plan.conversations, plan.agent.recalls(plan.request)
        )
    names = frozenset(chosen.variables)
    yield identity.bring_identity(settings, plan.session, names)
    rules = partial(_package_rules, work, plan)
    yield fence.bring_network(settings, plan.session, names, rules)


def _package_rules(work: Work, plan: Plan) -> tuple[Rule, ...]:
    """Look up where the tools of a session's image take packages from."""
    image = plan.image(images.agent_version(work, plan))
    return fence.package_rules(work.settings, image, work.provider.ask)


def _is_copied(directory: Path, settings_file: str, file: Path) -> bool:
    from scripts.workspace.copies import ignore_rules  # noqa: PLC0415  (only where a key was found)

    return ignore_rules.is_copied(directory, settings_file, file)
