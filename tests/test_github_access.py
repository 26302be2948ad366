"""A token of GitHub's that stays here: which repositories it is used for, and for what of them."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts import github_access
from scripts.holdings import Holding, Place
from scripts.reverse_proxy import Asked
from scripts.ssh import Socket, SocketPort

if TYPE_CHECKING:
    from tests.conftest import Project

TOKEN = "gho_0123456789abcdefghij"
PLACE = Place(directory=Path("/run/x"), name="one", secret="s")
MINE = frozenset({"me/mine", "me/my.lib"})


def routed(method: str, target: str, web: str = "github.com") -> str | None:
    """Tell where a request goes."""
    return github_access.route(web, MINE, Asked(method=method, target=target, headers=()))


def held(project: Project, name: str = "GH_TOKEN", **environ: str) -> Holding:
    """Hold a token."""
    project.environ.update(environ)
    found = github_access.hold(project.load_for_provider(), {name: TOKEN, "OTHER": "1"}, PLACE)
    assert found
    return found


def remote(project: Project, name: str, url: str) -> None:
    """Have a remote in the project's directory."""
    directory = str(project.directory)
    subprocess.run(("git", "init", "-q", directory), check=True)
    subprocess.run(("git", "-C", directory, "remote", "add", name, url), check=True)


# -- where requests go ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/me/mine.git/info/refs?service=git-upload-pack"),
        ("GET", "/me/mine/info/refs?service=git-receive-pack"),
        ("GET", "/Me/My.Lib.git/info/refs"),
        ("POST", "/me/mine.git/git-upload-pack"),
        ("POST", "/me/mine.git/git-receive-pack"),
        ("POST", "/me/mine.git/info/lfs/objects/batch"),
    ],
)
def test_git_reaches_a_known_repository(method: str, target: str) -> None:
    """Whatever it is called, with all of the query."""
    assert routed(method, target) == f"https://github.com{target}"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/repos/me/mine/actions/runs/1/pending_deployments"),
        ("POST", "/repos/me/mine/actions/runs/1/rerun"),
        ("POST", "/repos/me/mine/pulls"),
        ("GET", "/repos/me/mine/pulls/1/files?per_page=1"),
        ("PUT", "/repos/me/mine/contents/a%2Fb.txt"),
        ("PATCH", "/repos/ME/mine/issues/1"),
        ("GET", "/repos/me/my.lib/branches/main/protection"),
        ("POST", "/repos/me/mine/actions/workflows/ci.yml/dispatches"),
    ],
)
def test_the_api_of_a_known_repository(method: str, target: str) -> None:
    """At the host that has it."""
    assert routed(method, target) == f"https://api.github.com{target}"
    assert routed(method, f"/api/v3{target}", "git.test") == f"https://git.test/api/v3{target}"
    assert routed(method, target, "a.ghe.com") == f"https://api.a.ghe.com{target}"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/you/mine.git/info/refs"),
        ("GET", "/me/mine2.git/info/refs"),
        ("POST", "/me/mine.git/info/refs"),
        ("GET", "/me/mine.git/git-upload-pack"),
        ("GET", "/me/mine/../other.git/info/refs"),
        ("GET", "/me/mine/%2e%2e/other.git/info/refs"),
        ("GET", "/me/mine/settings"),
        ("GET", "/me/mine"),
        ("GET", "/repos/you/mine"),
        ("GET", "/repos/me/mine/contents/../../../other/contents/a"),
        ("GET", "/repos/me/mine/contents/%2e%2e/%2E%2e/other"),
        ("GET", "/repos/me/mine/contents/%252e%252e/x"),
        ("GET", "/repos/me/mine"),
        ("GET", "/repos/me/mine/"),
        ("POST", "/repos/me/mine/actions/runs/1/pending_deployments"),
        ("POST", "/repos/me/mine/actions/runs/1/approve"),
        ("DELETE", "/repos/me/mine"),
        ("PATCH", "/repos/me/mine"),
        ("POST", "/repos/me/mine/keys"),
        ("GET", "/repos/me/mine/keys"),
        ("POST", "/repos/me/mine/hooks"),
        ("PUT", "/repos/me/mine/collaborators/you"),
        ("PUT", "/repos/me/mine/actions/secrets/A"),
        ("GET", "/repos/me/mine/actions/secrets"),
        ("PUT", "/repos/me/mine/branches/main/protection"),
        ("POST", "/repos/me/mine/transfer"),
        ("POST", "/repos/me/mine/forks"),
        ("POST", "/graphql"),
        ("POST", "/api/graphql"),
        ("GET", "/user"),
        ("GET", "/"),
        ("GET", "https://github.com/me/mine.git/info/refs"),
        ("CONNECT", "github.com:443"),
    ],
)
def test_all_else_goes_nowhere(method: str, target: str) -> None:
    """Other repositories, what is about the account, and who may do what."""
    assert routed(method, target) is None
    assert routed(method, f"/api/v3{target}") is None


# -- what a session has ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GH_TOKEN", "GITHUB_TOKEN"])
def test_git_and_gh_have_a_way_and_no_token(project: Project, name: str) -> None:
    """Git by its variables, gh by a configuration of the session's."""
    found = held(project, name, NDDT_GITHUB_REPOS="me/mine,me/my.lib")

    to_port, to_socket = found.brings.forwards
    assert isinstance(to_port, SocketPort)
    assert to_socket == Socket("/tmp/nddt/one-github", "/run/x/github")
    variables = found.brings.variables
    settings = {
        variables[f"GIT_CONFIG_KEY_{n}"]: variables[f"GIT_CONFIG_VALUE_{n}"] for n in range(3)
    }
    here = f"http://127.0.0.1:{to_port.inside}/"
    basic = base64.b64encode(f"x-access-token:{PLACE.placeholder(name)}".encode()).decode()
    assert settings == {
        f"http.{here}.extraHeader": f"Authorization: Basic {basic}",
        f"url.{here}me/mine.insteadOf": "https://github.com/me/mine",
        f"url.{here}me/my.lib.insteadOf": "https://github.com/me/my.lib",
    }
    assert variables["GH_REPO"] == "github.com/me/mine"
    assert (
        b"http_unix_socket: /tmp/nddt/one-github"
        in found.brings.files["session/gh/config.yml"].content
    )
    assert set(found.keys) == {name}
    assert TOKEN not in repr(found)
    assert TOKEN not in str(variables)


def test_each_form_of_a_token_is_known(project: Project) -> None:
    """As git, gh and curl send it; none of them may come back."""
    found = held(project, NDDT_GITHUB_REPOS="me/mine")
    mark = PLACE.placeholder("GH_TOKEN")
    for form in (f"token {mark}", f"Bearer {mark}"):
        asked = Asked(
            method="GET", target="/repos/me/mine/pulls", headers=(("authorization", form),)
        )
        assert found.gate(asked).headers == {"authorization": form.replace(mark, TOKEN)}
    basic = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    assert set(found.secrets) == {TOKEN, basic}


def test_a_token_of_another_host_goes_nowhere(project: Project) -> None:
    """GH_HOST says which ones are meant; a project's file cannot say so."""
    known = {"NDDT_GITHUB_REPOS": "me/mine"}
    project.write("GH_HOST=hostile.example\n")
    assert held(project, "GH_ENTERPRISE_TOKEN", **known).gate.headers == {}
    assert "hostile" not in str(held(project, **known).brings)

    found = held(project, "GH_ENTERPRISE_TOKEN", GH_HOST="git.test", **known)
    assert len(found.gate.headers) == 3
    assert found.brings.variables["GH_HOST"] == "git.test"
    assert held(project, "GH_TOKEN").gate.headers == {}


def test_without_a_token_there_is_nothing(project: Project) -> None:
    """To hold."""
    assert github_access.hold(project.load_for_provider(), {"A": "b"}, PLACE) is None


# -- the directory's own --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://github.com/me/mine.git", "me/mine"),
        ("https://x:secret@github.com/me/mine", "me/mine"),
        ("https://github.com/me/my.lib/", "me/my.lib"),
        ("git@github.com:me/mine.git", "me/mine"),
        ("ssh://git@github.com/me/mine.git", "me/mine"),
        ("https://gitlab.com/me/mine.git", None),
        ("https://github.com.example/me/mine", None),
        ("https://example/github.com/me/mine", None),
        ("https://githubxcom/me/mine", None),
        ("https://github.com/me/..", None),
        ("/srv/me/mine.git", None),
    ],
)
def test_remote(url: str, expected: str | None) -> None:
    """Of the host, in any of its forms."""
    assert github_access.repository(url, "github.com") == expected


def test_the_remotes_are_those_of_the_first_time(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What an agent adds lets it into nothing, and is told to the user."""
    project.environ["XDG_STATE_HOME"] = str(tmp_path / "state")
    remote(project, "origin", "git@github.com:me/mine.git")
    remote(project, "upstream", "https://github.com/you/mine")
    first = held(project)
    with first.brings.served():
        pass
    remote(project, "more", "https://github.com/me/payroll.git")
    caplog.clear()

    again = held(project)

    shown = "me/mine, you/mine at github.com, by this machine, which keeps GH_TOKEN"
    assert dict(first.brings.shown)["github"] == dict(again.brings.shown)["github"] == shown
    assert "me/payroll" in caplog.text
    named = held(project, NDDT_GITHUB_REPOS="me/payroll")
    assert "me/payroll at" in dict(named.brings.shown)["github"]


def test_a_remote_after_the_first_time_counts_for_nothing(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where there was none."""
    project.environ["XDG_STATE_HOME"] = str(tmp_path / "state")
    with caplog.at_level("INFO", logger="nddt"), held(project).brings.served():
        assert "no repository" in caplog.text
    remote(project, "origin", "https://github.com/me/payroll")

    assert "no repository" in dict(held(project).brings.shown)["github"]


def test_without_a_workspace_there_is_no_repository(project: Project) -> None:
    """The directory stays out of sight, and so do its remotes."""
    remote(project, "origin", "https://github.com/me/mine")

    found = held(project, NDDT_WORKSPACE="none")

    assert found.brings.serving == ()
    assert "GH_REPO" not in found.brings.variables
    assert "no repository" in dict(found.brings.shown)["github"]
