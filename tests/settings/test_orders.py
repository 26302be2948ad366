"""What a project's .env may do without consent: never give more than the user does."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from scripts import agents, providers
from scripts.configuration import reading, withheld
from scripts.configuration.declared import declared
from scripts.configuration.declared import value as value_of
from scripts.errors import ConfigError
from scripts.providers.daytona.settings import SIZE
from scripts.settings import fields, orders, parsing
from scripts.settings.profiles import PROFILES
from tests.configuration.test_reading import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Project

ROOT = Path(__file__).parents[2]
DECLARED = {item["variable"]: item for item in declared()}

# -- how much a value gives, said a second time and in another way ----------------------------

_LOOSENESS = ("airgap", "strict", "standard", "open")
_SHOWN = {"none": {"none"}, "sync": {"sync"}, "": {"sync", ""}, "mount": {"sync", "", "mount"}}


def number(value: int, _loaded: fields.Settings) -> float:
    """Give the number; 0 is no limit."""
    return value or inf


def size(where: dict[str, int]) -> Callable[[int, fields.Settings], float]:
    """Give the number; 0 is what the provider gives."""
    return lambda value, loaded: value or where.get(loaded.provider, inf)


def steps(*names: str) -> Callable[[str, fields.Settings], int]:
    """Give how far a name is from the first."""
    return lambda value, _: names.index(value)


def own(value: object, _loaded: fields.Settings) -> frozenset[object]:
    """Give the value itself: it compares with nothing else."""
    return frozenset((value,))


def access(value: tuple[parsing.Mount, ...], _loaded: fields.Settings) -> frozenset[object]:
    """Give all that can be done with directories."""
    read = {(one.source, one.target, "read") for one in value}
    return frozenset(read | {(o.source, o.target, "write") for o in value if not o.readonly})


COUNT = st.integers(0, 9).map(str)
SWITCH = st.sampled_from(("true", "false"))


def listed(*words: str, least: int = 0) -> st.SearchStrategy[str]:
    """Make lists of some of these words; a comma alone is an empty one."""
    some = st.lists(st.sampled_from(words), unique=True, min_size=least)
    return some.map(lambda found: ",".join(found) or ",")


GIVES: dict[str, tuple[st.SearchStrategy[str], Any]] = {
    "NDDT_PROFILE": (st.sampled_from(_LOOSENESS), steps(*_LOOSENESS)),
    "NDDT_PROVIDER": (st.sampled_from(providers.NAMES), own),
    "NDDT_AGENT": (st.sampled_from(agents.NAMES), own),
    "NDDT_COMMAND": (st.sampled_from(("a", "b")), own),
    "NDDT_ENV_VARS": (listed("A", "B"), own),
    "NDDT_PERSISTENT": (SWITCH, lambda value, _: value),
    "NDDT_NAME": (st.sampled_from(("a1", "b1")), own),
    "NDDT_WORKSPACE": (
        st.sampled_from(("none", "sync", "mount")),
        lambda value, _: _SHOWN[value],
    ),
    "NDDT_WORKSPACE_READONLY": (SWITCH, lambda value, _: not value),
    "NDDT_MOUNTS": (listed("/a:/x", "/b:/y:ro"), access),
    "NDDT_NETWORK": (
        st.sampled_from(("none", "allowlist", "open")),
        steps("none", "allowlist", "open"),
    ),
    "NDDT_ALLOW_HOSTS": (listed("a.org", "b.org", "*.b.org"), lambda value, _: frozenset(value)),
    "NDDT_PORTS": (listed("80", "81", "82"), lambda value, _: frozenset(value)),
    "NDDT_PORT_RANGE_START": (st.sampled_from(("1", "2")), own),
    "NDDT_SSH_FORWARD": (st.sampled_from(("agent", "keys")), own),
    "NDDT_SSH_KEYS": (
        listed("a", "b", "c"),
        lambda value, _: frozenset(value or ("a", "b", "c", "all else")),
    ),
    "NDDT_GPG_KEYS": (
        listed("a", "b", "c"),
        lambda value, _: frozenset(value or ("a", "b", "c", "all else")),
    ),
    "NDDT_GPG_FORWARD": (SWITCH, lambda value, _: value),
    "NDDT_DOCKER_FORWARD": (
        st.sampled_from(("isolated", "host")),
        steps("", "isolated", "host"),
    ),
    "NDDT_GIT_CONFIG": (SWITCH, lambda value, _: value),
    "NDDT_CLAUDE_CONFIG": (SWITCH, own),
    "NDDT_PERMISSIONS": (
        st.sampled_from(("ask", "edit", "all")),
        steps("ask", "edit", "all"),
    ),
    "NDDT_MODEL_ACCESS": (st.sampled_from(("tunnel", "env")), steps("tunnel", "env")),
    "NDDT_GITHUB_REPOS": (
        listed("a/a", "b/b"),
        lambda value, _: frozenset(value or ("the directory's own",)),
    ),
    "NDDT_TIMEOUT": (COUNT, number),
    "NDDT_KEEP_CONNECTION": (COUNT, lambda value, _: value or 1),
    "NDDT_CPUS": (COUNT, size({"daytona": SIZE[0]})),
    "NDDT_MEMORY": (COUNT, size({"daytona": SIZE[1]})),
    "NDDT_PIDS": (COUNT, number),
    "NDDT_READONLY_ROOT": (SWITCH, lambda value, _: not value),
    "NDDT_SUDO": (SWITCH, lambda value, _: value),
    "NDDT_DISK_RESERVE": (COUNT, lambda value, _: -value),
    "NDDT_DISK": (COUNT, lambda value, _: value or SIZE[2]),
    "NDDT_IDLE_MINUTES": (COUNT, number),
    "NDDT_DELETE_AFTER_HOURS": (COUNT, own),
    "NDDT_DAYTONA_SNAPSHOT": (st.sampled_from(("a", "b")), own),
    "DAYTONA_API_KEY": (st.sampled_from(("a", "b")), own),
    "DAYTONA_API_URL": (st.sampled_from(("https://a", "https://b")), own),
    "DAYTONA_REGION": (st.sampled_from(("eu", "us")), own),
    "DAYTONA_ORGANIZATION_ID": (st.sampled_from(("a", "b")), own),
    "NDDT_BASE_IMAGE": (st.sampled_from(("a", "b")), own),
    "NDDT_NODE_VERSION": (st.sampled_from(("18", "22")), own),
    "NDDT_CLAUDE_VERSION": (st.sampled_from(("2.1.0", "latest")), own),
    "NDDT_CA_CERTS": (st.sampled_from(("/a", "/b")), own),
    "NDDT_LOG": (st.sampled_from(("/a", "/b")), own),
    "NDDT_ENV_FILE": (st.sampled_from((".env", "b")), own),
}
"""Variable → values as they are written, and what compares by `<=` with how much one gives."""

_files = st.fixed_dictionaries({}, optional={name: how for name, (how, _) in GIVES.items()})


def wider(loaded: fields.Settings, users: fields.Settings) -> list[str]:
    """Name the settings that give more than the user does."""
    return [
        name
        for name, (_, gives) in GIVES.items()
        if not gives(value_of(loaded, DECLARED[name]), loaded)
        <= gives(value_of(users, DECLARED[name]), users)
    ]


@pytest.mark.parametrize("variable", DECLARED)
def test_each_setting_has_an_order(variable: str) -> None:
    """With its reason, and with what it means for a project's file in the explanation."""
    order = DECLARED[variable]["order"]

    assert isinstance(order, orders.Order)
    assert order.why
    assert DECLARED[variable]["text"].endswith(f" {order.says}")
    assert variable in GIVES


@hypothesis_settings(max_examples=300)
@given(users=_files, theirs=_files, is_told_now=st.booleans())
def test_a_project_never_gives_more_than_the_user(
    tmp_path_factory: pytest.TempPathFactory,
    users: dict[str, str],
    theirs: dict[str, str],
    *,
    is_told_now: bool,
) -> None:
    """Whatever both say, together with profiles and defaults, in a file or in the environment."""
    home = tmp_path_factory.getbasetemp()
    (home / ".config/nddt").mkdir(parents=True, exist_ok=True)
    users.pop("NDDT_ENV_FILE", None)
    environ = {"HOME": str(home), **(users if is_told_now else {})}
    lines = [f"{name}={value}\n" for name, value in (() if is_told_now else users.items())]
    (home / ".config/nddt/.env").write_text("".join(lines))
    (home / ".env").unlink(missing_ok=True)
    before = reading.load(home, environ, {})

    (home / ".env").write_text("".join(f"{name}={value}\n" for name, value in theirs.items()))
    after = reading.load(home, environ, {})

    assert wider(after, before) == []
    if is_told_now:
        changed = {name for name in users if after.sources[name] != "environment"}
        assert changed == set()


LIFTED = {
    "NDDT_MEMORY": ("1", "0"),
    "NDDT_CPUS": ("1", "0"),
    "NDDT_TIMEOUT": ("60", "0"),
    "NDDT_WORKSPACE": ("none", "mount"),
    "NDDT_PROVIDER": ("docker", "daytona"),
    "NDDT_IDLE_MINUTES": ("5", "0"),
    "NDDT_DELETE_AFTER_HOURS": ("1", "0"),
    "NDDT_DISK": ("1", "100"),
    "NDDT_PERSISTENT": ("false", "true"),
    "NDDT_KEEP_CONNECTION": ("1", "99999"),
    "NDDT_PORTS": ("80", "80,8080"),
    "NDDT_PROFILE": ("airgap", "strict"),
    "NDDT_CLAUDE_VERSION": ("latest", "1.0.0"),
    "NDDT_NODE_VERSION": ("22", "18"),
}
"""What the user has, and what a project would rather have."""


@pytest.mark.parametrize("variable", LIFTED)
def test_a_limit_of_the_users_stays(
    project: Project, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    """That is said, and with consent it is as the project wants it."""
    users, theirs = LIFTED[variable]
    item = DECLARED[variable]
    project.write_user_file(f"{variable}={users}\n")
    mine = value_of(project.load(), item)
    project.write(f"{variable}={theirs}\n")

    assert value_of(project.load(), item) == mine
    assert f"not used: {variable} (line 1)" in messages(caplog)[-1]
    project.agree()
    assert value_of(project.load(), item) == item["parse"](theirs)


@pytest.mark.parametrize(
    ("variable", "users", "theirs"),
    [
        ("NDDT_MEMORY", "0", "4"),
        ("NDDT_CPUS", "8", "1"),
        ("NDDT_TIMEOUT", "0", "60"),
        ("NDDT_NETWORK", "open", "allowlist"),
        ("NDDT_NETWORK", "allowlist", "none"),
        ("NDDT_WORKSPACE", "mount", "sync"),
        ("NDDT_PORTS", "80,81", "81"),
        ("NDDT_ALLOW_HOSTS", "a.org,b.org", "b.org"),
        ("NDDT_MOUNTS", "/a:/x,/b:/y", "/a:/x:ro"),
        ("NDDT_SSH_KEYS", "", "me@here"),
        ("NDDT_DISK_RESERVE", "2", "20"),
        ("NDDT_PROFILE", "open", "strict"),
        ("NDDT_DOCKER_FORWARD", "host", "isolated"),
    ],
)
def test_less_than_the_users_counts(
    project: Project, caplog: pytest.LogCaptureFixture, variable: str, users: str, theirs: str
) -> None:
    """Without consent, and without a word."""
    project.write_user_file(f"{variable}={users}\n")
    project.write(f"{variable}={theirs}\n")

    loaded = project.load()

    assert value_of(loaded, DECLARED[variable]) == DECLARED[variable]["parse"](theirs)
    assert loaded.sources[variable] == f"{project.env_file}, line 1"
    assert messages(caplog) == []


def test_a_projects_profile_counts_setting_by_setting(project: Project) -> None:
    """Beside what the user has set, and never in place of a narrower one."""
    project.write("NDDT_PROFILE=strict\n")
    project.write_user_file("NDDT_NETWORK=none\n")
    beside = project.load()
    project.write_user_file("NDDT_PROFILE=airgap\n")
    instead = project.load()

    assert (beside.network, beside.readonly_root, beside.profile) == ("none", True, "strict")
    assert (instead.network, instead.profile) == ("none", "airgap")
    assert beside.sources["NDDT_READONLY_ROOT"] == "profile strict"


def test_the_providers_own_size_is_the_limit(project: Project) -> None:
    """Where nobody has set one: more would cost."""
    project.write("NDDT_CPUS=8\nNDDT_MEMORY=3\n")

    docker, cloud = project.load(), project.load(provider="daytona")

    assert (docker.cpus, docker.memory_gib) == (8, 3)
    assert (cloud.cpus, cloud.memory_gib) == (0, 3)


def test_a_value_that_is_not_allowed(project: Project) -> None:
    """Is an error where it might take something away: nobody may think that it does."""
    project.write("NDDT_NETWORK=nothing\n")

    with pytest.raises(ConfigError, match="NDDT_NETWORK is 'nothing'"):
        project.load()


def test_profiles_are_in_the_order_that_is_tried_here() -> None:
    """A new one needs its place."""
    assert set(PROFILES) == set(_LOOSENESS)


def test_the_settings_page_says_what_a_project_may_not_set() -> None:
    """In its last column: all of it, or what gives more."""
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}

    for name, item in DECLARED.items():
        last = rows[name].rstrip(" |").rpartition("| ")[2]
        assert item["order"].says.startswith((f"A project's .env {last}", last)), name
        assert (last == "sets it") != (item["order"].is_comparable or name == "NDDT_ENV_FILE"), name


# -- variables ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", agents.NAMES)
def test_keys_and_addresses_of_every_agent_are_withheld(name: str) -> None:
    """Whichever runs; and what configures it, but for what it calls harmless."""
    agent = agents.get(name)

    for one in (agent.BASE_URL, *agent.CREDENTIALS, *agent.KEYS):
        assert not one or withheld.is_withheld(one)
    for one in agent.CONFIGURATION:
        plain = one.replace("*", "X")
        assert withheld.is_withheld(plain) or any(
            plain.startswith(pattern.partition("*")[0]) for pattern in agent.HARMLESS
        )


def test_a_new_agents_address_is_withheld(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By its own data alone."""

    class Other:
        NAME = "other"
        SETTINGS = None
        BASE_URL = "OTHER_MODEL_SERVER"
        CREDENTIALS = ("OTHER_PASS",)
        KEYS = ("OTHER_PASS",)
        CONFIGURATION = ("OTHER_MODEL_SERVER", "OTHER_SPEED")
        STEERING = ("OTHER_HELPER",)
        HARMLESS = ("OTHER_SPEED",)

    real = agents.get
    monkeypatch.setattr(agents, "NAMES", (*agents.NAMES, "other"))
    monkeypatch.setattr(agents, "get", lambda name: Other if name == "other" else real(name))
    withheld._patterns.cache_clear()
    try:
        project.environ["NDDT_ENV_VARS"] = "OTHER_*"
        names = ("OTHER_MODEL_SERVER", "OTHER_PASS", "OTHER_HELPER", "OTHER_SPEED")
        project.write("".join(f"{name}=theirs\n" for name in names))
        loaded = project.load()
    finally:
        monkeypatch.undo()
        withheld._patterns.cache_clear()

    assert [name for name in names if name in loaded.environment] == ["OTHER_SPEED"]
    assert "OTHER_MODEL_SERVER (line 1)" in messages(caplog)[0]


@pytest.mark.parametrize(
    "name",
    [
        *("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_CUSTOM_HEADERS"),
        *("ANTHROPIC_BEDROCK_BASE_URL", "ANTHROPIC_VERTEX_BASE_URL", "CLAUDE_CODE_USE_BEDROCK"),
        *("CLAUDE_CODE_DISABLE_COMMAND_INJECTION_CHECK", "CLAUDE_CODE_API_KEY_HELPER_TTL_MS"),
        *("CLAUDE_CONFIG_DIR", "AWS_ENDPOINT_URL", "AWS_PROFILE", "GOOGLE_CLOUD_PROJECT"),
        *("OPENAI_BASE_URL", "OPENAI_API_BASE", "OTEL_EXPORTER_OTLP_ENDPOINT", "VAULT_ADDR"),
        *("GH_TOKEN", "GITHUB_TOKEN", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "SSH_AUTH_SOCK"),
        *("NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV"),
        *("BASH_FUNC_ls%%", "npm_config_registry", "NPM_CONFIG_REGISTRY", "http_proxy"),
        *("ALL_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "LD_PRELOAD", "EDITOR", "ENV"),
        *("DOCKER_HOST", "DAYTONA_TARGET", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "HOME"),
    ],
)
def test_what_steers_is_withheld(project: Project, name: str) -> None:
    """Also where the user names it for the sandbox: then it is the user's that is meant."""
    project.environ["NDDT_ENV_VARS"] = f"{name[:3]}*"
    project.write(f"{name}=theirs\n" if name.isidentifier() else "")

    assert withheld.is_withheld(name)
    assert project.load().environment.get(name) != "theirs"


@pytest.mark.parametrize(
    "name", ["DATABASE_URL", "FROM_FILE", "ANTHROPIC_MODEL", "BASH_MAX_TIMEOUT_MS", "TZ", "PORT"]
)
def test_what_does_not_steer_counts(project: Project, name: str) -> None:
    """It is what a project's file is for."""
    project.write(f"{name}=theirs\n")

    assert project.load().environment[name] == "theirs"
