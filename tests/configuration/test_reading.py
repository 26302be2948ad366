"""Settings: where each value comes from, and what is said about a wrong one."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.configuration import reading
from scripts.configuration.declared import declared
from scripts.configuration.declared import value as value_of
from scripts.errors import ConfigError
from scripts.providers.daytona.settings import DaytonaSettings
from scripts.settings import env_file, parsing
from scripts.settings.allowlist import Rule
from scripts.settings.profiles import PROFILES

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.conftest import Project

VARIABLES = [item["variable"] for item in declared()]


USUAL = (
    *("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    *("CLAUDE_CODE_OAUTH_TOKEN", "GH_TOKEN"),
)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give the warnings so far."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_without_anything_all_is_default(project: Project) -> None:
    """The defaults are those of the declaration."""
    loaded = project.load()

    assert set(loaded.sources.values()) == {"default"}
    assert list(loaded.sources) == VARIABLES
    assert (loaded.provider, loaded.persistent, loaded.timeout_s) == ("docker", False, 0)
    assert loaded.env_vars[:2] == ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


@pytest.mark.parametrize(
    ("given_in", "value", "source"),
    [
        pytest.param("option environment project user", "1", "option", id="option"),
        pytest.param("environment project user", "2", "environment", id="environment"),
        pytest.param("project user", "3", "{project}, line 3", id="project"),
        pytest.param("user", "4", "{user}, line 2", id="user"),
        pytest.param("", "600", "default", id="default"),
    ],
)
def test_order_of_sources(project: Project, given_in: str, value: str, source: str) -> None:
    """The nearest source counts, and is named with its line."""
    if "environment" in given_in:
        project.environ["NDDT_KEEP_CONNECTION"] = "2"
    if "project" in given_in:
        project.write("# a comment\n\nNDDT_KEEP_CONNECTION=3\n")
    if "user" in given_in:
        project.write_user_file("OTHER=1\nNDDT_KEEP_CONNECTION=4\n")

    loaded = project.load(keep_connection_s="1" if "option" in given_in else None)

    assert loaded.keep_connection_s == int(value)
    assert loaded.sources["NDDT_KEEP_CONNECTION"] == source.format(
        project=project.env_file, user=project.user_file
    )


def test_option_that_is_false_is_not_given(project: Project) -> None:
    """A flag that is absent does not undo what a file says."""
    project.write_user_file("NDDT_PERSISTENT=yes\n")

    loaded = project.load(persistent=False)

    assert loaded.persistent
    assert loaded.sources["NDDT_PERSISTENT"] == f"{project.user_file}, line 1"


def test_empty_value_is_not_given(project: Project) -> None:
    """As with a compose file's `NAME=${NAME}`."""
    project.environ["NDDT_PROVIDER"] = ""
    project.write("NDDT_TIMEOUT=\n")

    loaded = project.load()

    assert (loaded.provider, loaded.timeout_s) == ("docker", 0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ()),
        ("FOO", ("FOO",)),
        ("+FOO, BAR_*", (*USUAL, "FOO", "BAR_*")),
        ("+", USUAL),
        ("+GH_TOKEN", USUAL),
    ],
)
@pytest.mark.parametrize("place", ["environment", "file"])
def test_which_variables(
    project: Project, place: str, value: str, expected: tuple[str, ...]
) -> None:
    """Those that are named, those beside the usual ones, or none."""
    if place == "file":
        project.user_file.parent.mkdir(parents=True, exist_ok=True)
        project.user_file.write_text(f"NDDT_ENV_VARS={value}\n")
    else:
        project.environ["NDDT_ENV_VARS"] = value

    assert project.load().env_vars == expected


@pytest.mark.parametrize("value", ["FOO,+BAR", "++FOO", "+A B"])
def test_variables_that_are_none(project: Project, value: str) -> None:
    """A plus stands before the first alone."""
    project.environ["NDDT_ENV_VARS"] = value

    with pytest.raises(ConfigError, match="names of variables separated by commas") as caught:
        project.load()
    assert "NDDT_ENV_VARS" in caught.value.message


@pytest.mark.parametrize("value", ["", "/dev/null"])
def test_no_file_of_the_projects(project: Project, value: str) -> None:
    """Whatever is in it."""
    project.write("NDDT_TIMEOUT=5\n")
    assert project.load().timeout_s == 5
    project.environ["NDDT_ENV_FILE"] = value

    assert project.load().timeout_s == 0


def test_user_file_follows_xdg_config_home(project: Project, tmp_path: Path) -> None:
    """Where it is set."""
    project.environ["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    file = tmp_path / "xdg" / "nddt" / ".env"
    file.parent.mkdir(parents=True)
    file.write_text("NDDT_NAME=mine\n")

    assert project.load().sources["NDDT_NAME"] == f"{file}, line 1"


def test_variables_of_all_layers_can_be_forwarded(project: Project) -> None:
    """By the same order; our own programs see those of the process alone."""
    project.environ["A"] = "environment"
    project.write("A=project\nB=project\n")
    project.write_user_file("B=user\nC=user\n")

    loaded = project.load()

    assert {name: loaded.environment[name] for name in "ABC"} == {
        "A": "environment",
        "B": "project",
        "C": "user",
    }
    assert dict(loaded.process_environment) == project.environ
    assert "B" not in os.environ


@pytest.mark.parametrize(
    ("variable", "field", "text", "value"),
    [
        ("NDDT_ENV_VARS", "env_vars", " A , B_*,,_c ", ("A", "B_*", "_c")),
        ("NDDT_ENV_VARS", "env_vars", ",", ()),
        *(("NDDT_PERSISTENT", "persistent", word, True) for word in ("true", "1", "YES", "On")),
        *(("NDDT_PERSISTENT", "persistent", word, False) for word in ("false", "0", "NO", "Off")),
        ("NDDT_NAME", "name", "a" * 63, "a" * 63),
        ("NDDT_NAME", "name", "A1._-", "A1._-"),
        ("NDDT_WORKSPACE", "workspace", "none", "none"),
        ("NDDT_WORKSPACE", "workspace", "", ""),
        ("NDDT_PROVIDER", "provider", "daytona", "daytona"),
        ("NDDT_COMMAND", "command", "'/a b/c' -d \"it's\"", "'/a b/c' -d \"it's\""),
        ("NDDT_CPUS", "cpus", "", 0),
        ("NDDT_CPUS", "cpus", "0", 0),
        ("NDDT_CPUS", "cpus", "2", 2),
        ("NDDT_MEMORY", "memory_gib", " 8 ", 8),
        ("NDDT_DISK", "daytona_disk_gib", "10", 10),
        ("NDDT_IDLE_MINUTES", "daytona_idle_minutes", "0", 0),
        ("NDDT_DELETE_AFTER_HOURS", "daytona_delete_after_hours", "1", 1),
        ("NDDT_DAYTONA_SNAPSHOT", "daytona_snapshot", "team/nddt:1.0_a-b", "team/nddt:1.0_a-b"),
        ("DAYTONA_API_KEY", "daytona_api_key", "dtn_1", "dtn_1"),
        ("DAYTONA_API_URL", "daytona_api_url", "http://host:3000/api/", "http://host:3000/api"),
        ("DAYTONA_API_URL", "daytona_api_url", "https://host", "https://host"),
        ("DAYTONA_REGION", "daytona_region", "eu", "eu"),
        ("DAYTONA_ORGANIZATION_ID", "daytona_organization", "id", "id"),
        ("NDDT_WORKSPACE", "workspace", "sync", "sync"),
        ("NDDT_MOUNTS", "mounts", "", ()),
        (
            "NDDT_MOUNTS",
            "mounts",
            "/a b:/x/, /c:/y:ro",
            (parsing.Mount(Path("/a b"), "/x"), parsing.Mount(Path("/c"), "/y", readonly=True)),
        ),
        ("NDDT_MOUNTS", "mounts", "/a/../b:/./x//y:rw", (parsing.Mount(Path("/b"), "/x/y"),)),
        ("NDDT_MOUNTS", "mounts", "here:/x", (parsing.Mount(Path.cwd() / "here", "/x"),)),
        ("NDDT_MOUNTS", "mounts", "~/a:/x", (parsing.Mount(Path.home() / "a", "/x"),)),
        ("NDDT_NETWORK", "network", "allowlist", "allowlist"),
        (
            "NDDT_ALLOW_HOSTS",
            "allow_hosts",
            "A.org, *.b.org:8443,a.org",
            (Rule("a.org"), Rule("b.org", any_below=True, port=8443)),
        ),
        ("NDDT_PORTS", "ports", "3000, 8080,3000", (3000, 8080)),
        ("NDDT_PORT_RANGE_START", "port_range_start", "1", 1),
        ("NDDT_LOG", "log_file", "~/a b", str(Path.home() / "a b")),
        ("NDDT_SSH_FORWARD", "ssh_forward", "keys", "keys"),
        ("NDDT_PERMISSIONS", "permissions", "all", "all"),
        ("NDDT_MODEL_ACCESS", "model_access", "tunnel", "tunnel"),
        ("NDDT_GITHUB_REPOS", "github_repos", "", ()),
        ("NDDT_GITHUB_REPOS", "github_repos", " Me/a.b , you/c_d", ("Me/a.b", "you/c_d")),
        ("NDDT_SSH_KEYS", "ssh_keys", "me@here, SHA256:x", ("me@here", "SHA256:x")),
        ("NDDT_GPG_FORWARD", "gpg_forward", "true", True),
        (
            "NDDT_GPG_KEYS",
            "gpg_keys",
            "me@here.org, 0xF7B60485867F1589",
            ("me@here.org", "0xF7B60485867F1589"),
        ),
        ("NDDT_TIMEOUT", "timeout_s", " 90 ", 90),
        ("NDDT_NODE_VERSION", "node_version", "22.11.0", "22.11.0"),
        ("NDDT_CLAUDE_VERSION", "claude_version", "stable", "stable"),
        ("NDDT_CLAUDE_VERSION", "claude_version", "2.1.330", "2.1.330"),
    ],
)
def test_good_values(project: Project, variable: str, field: str, text: str, value: object) -> None:
    """Blanks around a value do not count."""
    project.environ[variable] = text

    item = next(one for one in declared() if one["variable"] == variable)
    assert item["field"] == field
    assert value_of(project.load(), item) == value


BAD_VALUES = [
    ("NDDT_PERSISTENT", "perhaps", "true or false"),
    ("NDDT_WORKSPACE", "copy", "mount or sync or none"),
    ("NDDT_PORTS", "3000;8080", "ports from 1 to 65535"),
    ("NDDT_PORTS", "0", "ports from 1 to 65535"),
    ("NDDT_TIMEOUT", "-1", "a whole number, 0 or more"),
    ("NDDT_TIMEOUT", "1.5", "a whole number"),
    ("NDDT_TIMEOUT", "9" * 10, "a whole number"),
    ("NDDT_KEEP_CONNECTION", "10m", "a whole number"),
    ("NDDT_CPUS", "0.5", "a whole number"),
    ("NDDT_CPUS", "two", "a whole number"),
    ("NDDT_MEMORY", "4096m", "a whole number"),
    ("NDDT_DISK", "-1", "a whole number"),
    ("NDDT_IDLE_MINUTES", "1h", "a whole number"),
]
bad_values = pytest.mark.parametrize(("variable", "value", "allowed"), BAD_VALUES)


@bad_values
def test_bad_value_in_a_file(project: Project, variable: str, value: str, allowed: str) -> None:
    """Says variable, value, file, line and what is allowed."""
    project.write(f"A=1\n\n{variable}='{value}'\n")

    with pytest.raises(ConfigError) as caught:
        project.load()

    assert caught.value.exit_code == 78
    assert caught.value.message == f"{variable} is {value!r} ({project.env_file}, line 3)"
    assert caught.value.next_step.startswith("allowed: ")
    assert allowed in caught.value.next_step


@bad_values
def test_bad_value_in_the_environment(
    project: Project, variable: str, value: str, allowed: str
) -> None:
    """Says so."""
    project.environ[variable] = value

    with pytest.raises(ConfigError) as caught:
        project.load()

    assert caught.value.message == f"{variable} is {value!r} (environment)"
    assert allowed in caught.value.next_step


def test_a_link_and_what_is_above_it(project: Project, tmp_path: Path) -> None:
    """That is above what the link leads to, for whoever asks and for whoever shows it."""
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "link").symlink_to("deep/er")

    (one,) = project.load(mounts=f"{tmp_path}/link/..:/x").mounts

    assert one.source == tmp_path / "deep"


def test_bad_value_of_an_option(project: Project) -> None:
    """Says so, too."""
    with pytest.raises(ConfigError, match=r"NDDT_TIMEOUT is 'abc' \(option\)"):
        project.load(timeout_s="abc")


def test_each_setting_that_can_be_wrong_is_tried() -> None:
    """A new setting with a reader of its own needs a bad value above."""
    free = {"NDDT_BASE_IMAGE", "NDDT_CA_CERTS", "NDDT_ENV_FILE"}
    free |= {
        "NDDT_SSH_KEYS",
        "NDDT_GPG_KEYS",
        "DAYTONA_API_KEY",
        "DAYTONA_REGION",
        "DAYTONA_ORGANIZATION_ID",
    }
    tried = {variable for variable, _, _ in BAD_VALUES + BAD_VALUES_OF_THE_USERS_OWN}

    assert tried == set(VARIABLES) - free


# -- what a project has no say in -----------------------------------------------------------

HOW = "look at it and agree: nddt trust"
OWN = {
    item["variable"]: item
    for item in declared()
    if not item["order"].is_comparable and item["variable"] != "NDDT_ENV_FILE"
}
"""Settings that a project has no say in at all; of the others see test_orders.py."""
GOOD = {
    "NDDT_PROVIDER": "daytona",
    "NDDT_AGENT": "claude",
    "NDDT_ENV_VARS": "MINE_*",
    "NDDT_SSH_FORWARD": "agent",
    "NDDT_DELETE_AFTER_HOURS": "9",
    "NDDT_CLAUDE_CONFIG": "false",
    "NDDT_NODE_VERSION": "18",
    "NDDT_CLAUDE_VERSION": "2.1.330",
    "NDDT_PORT_RANGE_START": "40000",
    "NDDT_NAME": "mine",
    "NDDT_LOG": "/mine.example",
    "NDDT_DAYTONA_SNAPSHOT": "mine",
}
"""Values of those that do not take an address."""
BAD_VALUES_OF_THE_USERS_OWN = [
    ("NDDT_PROVIDER", "dokcer", "docker"),
    ("NDDT_PROVIDER", "../docker", "docker or daytona"),
    ("NDDT_AGENT", "../claude", "claude"),
    ("NDDT_DELETE_AFTER_HOURS", "7d", "a whole number"),
    ("NDDT_NODE_VERSION", "latest", "a version such as 22 or 22.11.0"),
    ("NDDT_NODE_VERSION", "22; id", "a version such as"),
    ("NDDT_NODE_VERSION", "२२", "a version such as"),
    ("NDDT_CLAUDE_VERSION", "2.1", "latest, stable, next or a version"),
    ("NDDT_CLAUDE_VERSION", "v2.1.330", "latest, stable, next or a version"),
    ("NDDT_CLAUDE_VERSION", "2.1.३", "latest, stable, next or a version"),
    ("NDDT_COMMAND", 'a "b', "quoted as in a shell"),
    ("NDDT_ENV_VARS", "A,B-C", "names of variables separated by commas"),
    ("NDDT_ENV_VARS", "*", "names of variables"),
    ("NDDT_ENV_VARS", "A=1", "names of variables"),
    ("NDDT_NAME", "-a", "2 to 63 letters, digits and _.-"),
    ("NDDT_NAME", "a/b", "letters, digits and _.-"),
    ("NDDT_NAME", "a", "2 to 63"),
    ("NDDT_NAME", "a" * 64, "2 to 63"),
    ("NDDT_WORKSPACE_READONLY", "ro", "true or false"),
    ("NDDT_PORT_RANGE_START", "70000", "a port from 1 to 65535"),
    ("NDDT_GIT_CONFIG", "some", "true or false"),
    ("NDDT_CLAUDE_CONFIG", "some", "true or false"),
    ("NDDT_DAYTONA_SNAPSHOT", "a b", "the name of a snapshot"),
    ("NDDT_DAYTONA_SNAPSHOT", "/a", "the name of a snapshot"),
    ("NDDT_DAYTONA_SNAPSHOT", "a/../b?c", "the name of a snapshot"),
    ("DAYTONA_API_URL", "app.daytona.io", "an address such as https://"),
    ("DAYTONA_API_URL", "file:///etc/passwd", "an address such as https://"),
    ("DAYTONA_API_URL", "https://user:pass@host/api", "an address such as https://"),
    ("DAYTONA_API_URL", "https://a b", "an address such as https://"),
    ("DAYTONA_API_URL", "https://", "an address such as https://"),
    ("NDDT_MOUNTS", "/a", "HERE:/IN/SANDBOX"),
    ("NDDT_MOUNTS", "/a:b", "HERE:/IN/SANDBOX"),
    ("NDDT_MOUNTS", "/a:/b:rx", "HERE:/IN/SANDBOX"),
    ("NDDT_MOUNTS", "/a:/b/../etc", "HERE:/IN/SANDBOX"),
    *(("NDDT_MOUNTS", f"/a:{place}", "other than / and") for place in ("/", "//.", "/workspace/")),
    ("NDDT_MOUNTS", "/a:/x,/b:/x/", "each place in the sandbox once"),
    ("NDDT_MOUNTS", "~nobody.example/a:/x", "directories that exist"),
    ("NDDT_SSH_FORWARD", "true", "agent or keys"),
    *(("NDDT_LOG", path, "begins with / or ~/") for path in ("log", "./log", "~nobody.example/a")),
    ("NDDT_GPG_FORWARD", "agent", "true or false"),
    ("NDDT_DOCKER_FORWARD", "true", "isolated or host"),
    ("NDDT_NETWORK", "closed", "open or allowlist or none"),
    ("NDDT_ALLOW_HOSTS", "10.0.0.1", "names of hosts such as example.org"),
    ("NDDT_ALLOW_HOSTS", "a.org,*", "names of hosts such as example.org"),
    ("NDDT_PERMISSIONS", "yes", "ask or edit or all"),
    ("NDDT_MODEL_ACCESS", "true", "env or tunnel"),
    ("NDDT_GITHUB_REPOS", "mine", "OWNER/NAME"),
    ("NDDT_GITHUB_REPOS", "mine/a,mine/..", "OWNER/NAME"),
    ("NDDT_GITHUB_REPOS", "https://github.com/a/b", "OWNER/NAME"),
    ("NDDT_PROFILE", "secure", "open or standard or strict or airgap"),
    ("NDDT_PIDS", "many", "a whole number"),
    ("NDDT_READONLY_ROOT", "root", "true or false"),
    ("NDDT_SUDO", "nopasswd", "true or false"),
    ("NDDT_DISK_RESERVE", "1.5", "a whole number"),
]


@pytest.mark.parametrize(("variable", "value", "allowed"), BAD_VALUES_OF_THE_USERS_OWN)
def test_bad_value_of_the_users_own(
    project: Project, variable: str, value: str, allowed: str
) -> None:
    """Says the same, in the user's file and in the environment."""
    project.write_user_file(f"{variable}='{value}'\n")
    with pytest.raises(ConfigError, match=re.escape(f"({project.user_file}, line 1)")) as caught:
        project.load()
    assert allowed in caught.value.next_step
    project.environ[variable] = value

    with pytest.raises(ConfigError, match=re.escape(f"{variable} is {value!r} (environment)")):
        project.load()


def test_what_is_secret() -> None:
    """The key of the account."""
    assert {item["variable"] for item in declared() if item["secret"]} == {"DAYTONA_API_KEY"}


@pytest.mark.parametrize("chosen", [None, "team.env"])
@pytest.mark.parametrize("variable", OWN)
def test_project_cannot_set_the_users_own(
    project: Project, caplog: pytest.LogCaptureFixture, variable: str, chosen: str | None
) -> None:
    """Whatever its file is called; that is said, and the value is not."""
    file = project.directory / (chosen or ".env")
    file.write_text(f"A=1\n{variable}=https://hostile.example\n")
    if chosen:
        project.environ["NDDT_ENV_FILE"] = chosen

    loaded = project.load()

    assert "hostile" not in str(value_of(loaded, OWN[variable]))
    assert loaded.sources[variable] == "default"
    said = f"{file} is not agreed to, so not used: {variable} (line 2) — {HOW}"
    assert messages(caplog) == [said]


@pytest.mark.parametrize("where", ["environment", "user"])
@pytest.mark.parametrize("variable", OWN)
def test_project_cannot_replace_the_users_own(project: Project, variable: str, where: str) -> None:
    """Nor spoil it with a value that is not allowed."""
    project.write(f"{variable}=nonsense://hostile.example\n")
    value = GOOD.get(variable, "https://mine.example")
    if where == "environment":
        project.environ[variable] = value
    else:
        project.write_user_file(f"{variable}={value}\n")

    loaded = project.load()

    assert value_of(loaded, OWN[variable]) == OWN[variable]["parse"](value)
    expected = "environment" if where == "environment" else f"{project.user_file}, line 1"
    assert loaded.sources[variable] == expected


def test_the_users_file_as_the_projects_file(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """In ~/.config/nddt itself they are one file, which is the user's own all the same."""
    project.write_user_file("DAYTONA_API_KEY=mine\n")

    here = reading.load(project.user_file.parent, project.environ, {})
    project.environ["NDDT_ENV_FILE"] = str(project.user_file)

    keys = [one.of(DaytonaSettings).api_key for one in (here, project.load())]
    assert keys == ["mine", "mine"]
    assert messages(caplog) == []


def test_secret_setting_is_shown_to_nobody(project: Project) -> None:
    """Neither in the settings' repr."""
    project.environ["DAYTONA_API_KEY"] = "hidden"
    loaded = project.load()

    assert loaded.of(DaytonaSettings).api_key == "hidden"
    assert "hidden" not in repr(loaded)
    assert "hidden" not in str(loaded)


# -- the text of a .env file ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("A=1\nsecret words\n", 2, id="no-equals"),
        pytest.param("\n\n\nsecret words\n", 4, id="after-empty-lines"),
        pytest.param("A=1\n  \n\t\nsecret words\n", 4, id="after-blank-lines"),
        pytest.param("A=1\r\n\r\nsecret words\r\n", 3, id="dos-line-ends"),
        pytest.param('A=1\nB="secret\nC=2\n', 2, id="open-quote"),
        pytest.param("A='1\n2'\n=secret\n", 3, id="after-two-lines"),
        pytest.param("A='secret' secret\n", 1, id="after-the-quote"),
    ],
)
def test_malformed_file(project: Project, text: str, line: int) -> None:
    """Says file and line, but nothing of the line: it may be a secret."""
    project.env_file.write_bytes(text.encode())

    with pytest.raises(ConfigError) as caught:
        project.load()

    assert caught.value.message == f"{project.env_file}, line {line}: this is not NAME=value"
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("A=b c", "b c", id="plain"),
        pytest.param("A = b # comment", "b", id="comment"),
        pytest.param("A=b#c", "b#c", id="no-comment"),
        pytest.param("export A=b", "b", id="export"),
        pytest.param("A='b \"c\" # d'", 'b "c" # d', id="single-quotes"),
        pytest.param("A=\"b 'c' # d\"", "b 'c' # d", id="double-quotes"),
        pytest.param('A="b\\nc"', "b\nc", id="escape"),
        pytest.param("A='b\\nc'", "b\\nc", id="no-escape"),
        pytest.param('A="b\n\nc"', "b\n\nc", id="many-lines"),
        pytest.param("A=ü→€", "ü→€", id="unicode"),
        pytest.param("A=$B$(id)`id`", "$B$(id)`id`", id="no-shell"),
        pytest.param("A=", "", id="empty"),
        pytest.param("A=b\nA=c", "c", id="twice"),
        pytest.param("\ufeffA=b", "b", id="byte-order-mark"),
        pytest.param("A=b\r\nB=c\r\n", "b", id="dos-line-ends"),
    ],
)
def test_values_of_a_file(project: Project, text: str, value: str) -> None:
    """Quotes, export, comments and more lines than one."""
    project.env_file.write_bytes(text.encode())

    assert project.load().environment["A"] == value


def test_lines_after_a_value_of_many_lines(project: Project) -> None:
    """Count on."""
    project.write('A="1\n2\n3"\n\n  \nexport NDDT_TIMEOUT=5\n')

    assert project.load().sources["NDDT_TIMEOUT"] == f"{project.env_file}, line 6"


def test_name_without_a_value_is_not_set(project: Project) -> None:
    """A bare name has no value to forward."""
    project.write("A\n")

    assert "A" not in project.load().environment


def test_interpolation_stays_within_the_file(project: Project) -> None:
    """A hostile file cannot read the environment or the user's own file."""
    project.environ["TOKEN"] = "secret"
    project.write_user_file("USER_TOKEN=secret\n")
    project.write("B=b\nA=${B}-${TOKEN}-${USER_TOKEN}-${NONE:-default}\n")

    assert project.load().environment["A"] == "b---default"


@given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")))
def test_any_single_quoted_value_survives(
    tmp_path_factory: pytest.TempPathFactory, value: str
) -> None:
    """But for `${NAME}`, which is one."""
    file = tmp_path_factory.getbasetemp() / "any.env"
    quoted = re.sub(r"([\\'])", r"\\\1", value.replace("${", "$ {"))
    file.write_text(f"A='{quoted}'\n", encoding="utf-8")

    found = env_file.read_env_file(file)
    assert found
    assert found.parse()[0] == {"A": value.replace("${", "$ {")}


# -- the file itself ------------------------------------------------------------------------


def test_env_file_is_relative_to_the_directory(project: Project) -> None:
    """As .env itself is."""
    (project.directory / "team.env").write_text("NDDT_TIMEOUT=1\n")
    project.write("NDDT_TIMEOUT=2\n")
    project.environ["NDDT_ENV_FILE"] = "team.env"

    loaded = project.load()

    assert loaded.timeout_s == 1
    assert loaded.sources["NDDT_TIMEOUT"] == f"{project.directory / 'team.env'}, line 1"
    assert (loaded.env_file, loaded.sources["NDDT_ENV_FILE"]) == ("team.env", "environment")


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_env_file_that_is_none(project: Project, kind: str) -> None:
    """Was asked for, so it is an error."""
    if kind == "directory":
        (project.directory / "team.env").mkdir()
    project.environ["NDDT_ENV_FILE"] = "team.env"

    with pytest.raises(ConfigError, match=r"NDDT_ENV_FILE names .*/team\.env") as caught:
        project.load()

    assert caught.value.exit_code == 78


def test_env_file_cannot_name_another(project: Project) -> None:
    """A value that has no effect must not look as if it had one."""
    project.write("NDDT_ENV_FILE=team.env\n")

    loaded = project.load()

    assert (loaded.env_file, loaded.sources["NDDT_ENV_FILE"]) == (".env", "default")


def test_file_that_is_not_utf_8(project: Project) -> None:
    """Is named."""
    project.env_file.write_bytes(b"A=\xff\n")

    with pytest.raises(ConfigError, match=re.escape(f"{project.env_file} cannot be read")):
        project.load()


def test_env_directory(project: Project) -> None:
    """Is named."""
    project.env_file.mkdir()

    with pytest.raises(ConfigError, match=re.escape(f"{project.env_file} cannot be read")):
        project.load()


@pytest.mark.parametrize(
    ("which", "hidden"),
    [
        pytest.param("project", "file", id="project-file"),
        pytest.param("chosen", "file", id="chosen-file"),
        pytest.param("chosen", "directory", id="chosen-directory"),
        pytest.param("user", "file", id="user-file"),
        pytest.param("user", "directory", id="user-directory"),
    ],
)
def test_unreadable_file(
    runtime: Path,
    without_privilege: Callable[[], AbstractContextManager[None]],
    which: str,
    hidden: str,
) -> None:
    """Is an error of ours, not a traceback."""
    runtime.chmod(0o755)
    file = runtime / "nddt" / ".env"
    file.parent.mkdir()
    file.write_text("NDDT_NAME=name\n")
    environ = {
        "project": {},
        "chosen": {"NDDT_ENV_FILE": str(file)},
        "user": {"XDG_CONFIG_HOME": str(runtime)},
    }[which]
    closed = file if hidden == "file" else file.parent
    mode = closed.stat().st_mode
    closed.chmod(0)
    try:
        with without_privilege(), pytest.raises(ConfigError) as caught:
            reading.load(file.parent if which == "project" else Path("/"), environ, {})
    finally:
        closed.chmod(mode)

    assert str(file) in caught.value.message


# -- misspelt names, secrets ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("NDDT_PERSISTANT", "did you mean NDDT_PERSISTENT?"),
        ("NDDT_PROVIDR", "did you mean NDDT_PROVIDER?"),
        ("NDDT_ENVVARS", "did you mean NDDT_ENV_VARS?"),
        ("NDDT_QQQQQQQQQQQQ", "nddt config lists the known ones"),
    ],
)
def test_misspelt_variable(
    project: Project, caplog: pytest.LogCaptureFixture, name: str, hint: str
) -> None:
    """Is reported with its place and the nearest right one; the value is not shown."""
    project.write(f"\n{name}=secret\n")

    project.load()

    assert messages(caplog) == [f"{name} ({project.env_file}, line 2) is not a setting — {hint}"]


def test_right_and_foreign_variables_are_not_reported(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """Only what begins with NDDT_ is ours."""
    project.environ.update({"NDDT_NAME": "name", "NDDTX": "1", "MY_NDDT_X": "1"})

    project.load()

    assert messages(caplog) == []


def test_secrets_are_not_in_the_repr(project: Project) -> None:
    """Wherever they come from."""
    project.environ["GH_TOKEN"] = "hidden-1"
    project.write("ANTHROPIC_API_KEY=hidden-2\n")
    project.write_user_file("OTHER=hidden-3\n")

    assert "hidden" not in repr(project.load())


def test_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says what to do."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    with pytest.raises(ConfigError, match="no longer exists — cd to another one"):
        reading.from_here()


def test_from_here_reads_this_process(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory and its environment."""
    monkeypatch.chdir(project.directory)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(project.home))
    monkeypatch.setenv("NDDT_TIMEOUT", "5")
    project.write("NDDT_CPUS=3\n")

    loaded = reading.from_here(persistent=True)

    assert (loaded.directory, loaded.timeout_s, loaded.cpus) == (project.directory, 5, 3)
    assert loaded.sources["NDDT_PERSISTENT"] == "option"


# -- profiles -------------------------------------------------------------------------------


def test_profiles_set_what_is_not_set_one_by_one(project: Project) -> None:
    """Its source is the profile; a setting of the user's own wins."""
    airgap = project.load(profile="airgap")
    project.environ["NDDT_NETWORK"] = "open"
    project.environ["NDDT_PROFILE"] = "strict"
    strict = project.load()

    assert (airgap.network, airgap.model_access, airgap.readonly_root) == ("none", "tunnel", True)
    assert airgap.sources["NDDT_NETWORK"] == "profile airgap"
    assert (strict.network, strict.model_access) == ("open", "tunnel")
    assert strict.sources["NDDT_NETWORK"] == "environment"


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_are_made_of_settings(project: Project, name: str) -> None:
    """Each of their values is one that the setting allows."""
    loaded = project.load(profile=name)

    for item in declared():
        if item["variable"] in PROFILES[name]:
            wanted = item["parse"](PROFILES[name][item["variable"]])
            assert value_of(loaded, item) == wanted


def test_a_project_can_close_but_not_open(project: Project) -> None:
    """Its file may ask for a stricter profile, which the user's own choice still outdoes."""
    (project.directory / ".env").write_text("NDDT_PROFILE=airgap\n")
    assert project.load().network == "none"
    (project.directory / ".env").write_text("NDDT_PROFILE=open\n")
    assert project.load().profile == "standard"
