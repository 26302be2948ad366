"""A token of GitHub's that stays here: which repositories it is used for, and for what of them."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.keyless import github_access, remotes
from scripts.keyless.kept_keys import Holding, Place
from scripts.keyless.reverse_proxy import Asked
from scripts.machine import console
from scripts.run import background
from scripts.transport.forwards import Socket, SocketPort

if TYPE_CHECKING:
    from tests.conftest import Project

TOKEN = "gho_0123456789abcdefghij"
PLACE = Place(directory=Path("/run/x"), name="one", secret="s")
MINE = frozenset({"me/mine", "me/my.lib"})


def routed(method: str, target: str, web: str = "github.com") -> str | None:
    """Tell where a request goes."""
    way = github_access.route(web, MINE, Asked(method=method, target=target, headers=()))
    return way and "".join(way)


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


ENDS = (";", ";x", "#x", "%3b", "%3Bx", "%23", "%253b", "/", "//", "%00", "%20", "\\", "?#", ".x")
"""What some server or library cuts off a path, or takes for nothing."""

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
        ("GET", "/repos/me/my.lib/branches/feature/protection-of-x"),
        ("GET", "/repos/me/mine/compare/main...topic"),
        ("GET", "/repos/me/mine/compare/v1.0..v1.1"),
        ("GET", "/repos/me/mine/compare/main...you:mine:topic%2Fb"),
        ("GET", "/repos/me/mine/contents/a..b.txt"),
        ("PUT", "/repos/me/mine/contents/.github/...x"),
        ("POST", "/repos/me/mine/actions/workflows/ci.yml/dispatches"),
        ("GET", "/repos/me/mine/contents/C%23/100%25/%C3%A4%20b"),
        ("DELETE", "/repos/me/mine/issues/1/labels/area%2Fa%3A%20b"),
        ("PUT", "/repos/me/mine/pulls/1/merge"),
        ("POST", "/repos/me/mine/pulls/1/comments/2/replies"),
        ("PUT", "/repos/me/mine/pulls/1/reviews/2/dismissals"),
        ("GET", "/repos/me/mine/commits/a/b/check-runs?filter=latest"),
        ("GET", "/repos/me/mine/check-runs/1/annotations"),
        ("GET", "/repos/me/mine/actions/runs/1/attempts/2/jobs"),
        ("GET", "/repos/me/mine/actions/artifacts/1/zip"),
        ("GET", "/repos/me/mine/actions/jobs/1/logs"),
        ("GET", "/repos/me/mine/releases/latest"),
        ("DELETE", "/repos/me/mine/releases/assets/1"),
        ("DELETE", "/repos/me/mine/git/refs/heads/a/b"),
        ("GET", "/repos/me/mine/branches/protection"),
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
        ("GET", "/repos/me/mine/contents/a%2f..%5c../x"),
        ("GET", "/repos/me/mine/contents/./x"),
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


@pytest.mark.parametrize(
    "rest",
    [
        *("branches/main/protection", "branches/a/b/protection/required_signatures"),
        *("branches/main/protectio%6e", "branches/main%2fProtection", "branches/x/protection/"),
        *("tags/protection", "tags%2fprotection", "check-suites/preferences"),
        *("pulls/1/codespaces", "pulls/1/%63odespaces", "codespaces", "codespaces/secrets"),
        *("hooks", "hooks/1/deliveries", "keys", "keys/1", "collaborators", "invitations"),
        *("collaborators/me/permission", "teams", "environments", "environments/x/secrets"),
        *("actions/secrets", "actions/variables", "actions/permissions", "actions/runners"),
        *("actions/organization-secrets", "actions/cache/usage", "actions/oidc/customization/sub"),
        *("dependabot/secrets", "dependabot/alerts", "vulnerability-alerts", "rulesets"),
        *("secret-scanning/alerts", "code-scanning/alerts", "security-advisories", "autolinks"),
        *("traffic/views", "interaction-limits", "pages", "automated-security-fixes"),
        *("rules/branches/main", "private-vulnerability-reporting", "dispatches", "subscription"),
        *("properties/values", "deployments", "import", "attestations/x", "forks", "tarball/x"),
        *(f"branches/main/protection{end}" for end in ENDS),
        *(f"branches/main{end}/protection" for end in (";x", "%3b", "%5cx", "//", "%2f")),
        *(f"{one}{end}" for one in ("pulls/1/codespaces", "tags/protection") for end in ENDS),
        *(f"check-suites/preferences{end}" for end in ENDS),
        *("contents/x;/..;/../../keys", "contents/.;/a", "contents/%2e%2e;/a", "contents/a%00"),
        *("contents/%c0%ae%c0%ae/keys", "contents/%252e%252e/a", "contents/a%0d%0a", "contents/%"),
        *("pulls/x", "pulls/1/", "issues/1/unknown", "actions/workflows/..;/x", "actions/runs/1/x"),
    ],
)
def test_who_may_do_what_is_neither_read_nor_written(rest: str) -> None:
    """However a path is written."""
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        assert routed(method, f"/repos/me/mine/{rest}") is None, method


# -- what a session has ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GH_TOKEN", "GITHUB_TOKEN"])
def test_git_and_gh_have_a_way_and_no_token(project: Project, name: str) -> None:
    """Git by its variables, gh by a configuration of the session's."""
    found = held(project, name, NDDT_GITHUB_REPOS="me/mine,me/my.lib")

    to_port, to_socket = found.forwards
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


@pytest.fixture
def clone(project: Project, tmp_path: Path) -> Project:
    """A directory with a remote, and a state of its own."""
    project.environ["XDG_STATE_HOME"] = str(tmp_path / "state")
    remote(project, "origin", "git@github.com:me/mine.git")
    return project


def shown(project: Project, **environ: str) -> str:
    """Read what a session would use the token for."""
    return dict(held(project, **environ).brings.plan_lines)["github"].partition(" at ")[0]


def use(project: Project) -> None:
    """Begin a session in any mode."""
    remotes.note_first_use(project.load_for_provider())


def test_a_clone_is_used_without_a_question(
    clone: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its remotes are the user's; what the token is used for is told once."""
    monkeypatch.setattr(console, "ask", lambda _: pytest.fail("asked"))
    remote(clone, "upstream", "https://github.com/you/mine")
    loaded = clone.load_for_provider()
    for expected in ("from now on your token of github.com is used here for me/mine", ""):
        caplog.clear()
        github_access.ask_about_remotes(loaded, {"GH_TOKEN": TOKEN}, yes=False)
        use(clone)
        services = held(clone).brings.background_services
        with caplog.at_level("INFO", logger="nddt"), background.running(services):
            assert expected in caplog.text
            assert bool(caplog.text) == bool(expected)
    assert shown(clone) == "me/mine, you/mine"


@pytest.mark.parametrize("answer", [True, False])
def test_a_remote_after_the_first_use_is_asked_about(
    clone: Project,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    answer: bool,  # noqa: FBT001
) -> None:
    """Though no token was there at that use; an agent may have added or changed one."""
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr(console, "ask", ask)
    use(clone)
    remote(clone, "more", "https://github.com/me/payroll.git")
    loaded = clone.load_for_provider()

    github_access.ask_about_remotes(loaded, {"OTHER": "x"}, yes=False)
    assert not asked
    github_access.ask_about_remotes(loaded, {"GH_TOKEN": TOKEN}, yes=False)

    assert "Use your token of github.com for me/payroll, too?" in asked[0]
    assert shown(clone) == ("me/mine, me/payroll" if answer else "me/mine")
    assert ("no token is used for: me/payroll" in caplog.text) is not answer
    github_access.ask_about_remotes(loaded, {"GH_TOKEN": TOKEN}, yes=False)
    assert len(asked) == (1 if answer else 2)


def test_nobody_there_to_ask(clone: Project, caplog: pytest.LogCaptureFixture) -> None:
    """Then it is withheld, and one line says what to do; --yes agrees, and says to what."""
    use(clone)
    subprocess.run(
        ("git", "-C", clone.directory, "remote", "set-url", "origin", "git@github.com:Me/Payroll"),
        check=True,
    )
    loaded = clone.load_for_provider()

    github_access.ask_about_remotes(loaded, {"GH_TOKEN": TOKEN}, yes=False)
    assert shown(clone) == "no repository"
    assert "no token is used for: Me/Payroll — if they are yours, name all in" in caplog.text
    assert shown(clone, NDDT_GITHUB_REPOS="me/payroll") == "me/payroll"
    clone.environ.pop("NDDT_GITHUB_REPOS")

    github_access.ask_about_remotes(loaded, {"GH_TOKEN": TOKEN}, yes=True)
    assert "your token of github.com is used here for Me/Payroll, too" in caplog.text
    assert shown(clone) == "Me/Payroll"


def test_without_a_workspace_there_is_no_repository(project: Project) -> None:
    """The directory stays out of sight, and so do its remotes."""
    remote(project, "origin", "https://github.com/me/mine")

    found = held(project, NDDT_WORKSPACE="none")

    assert found.brings.background_services == ()
    assert "GH_REPO" not in found.brings.variables
    assert "no repository" in dict(found.brings.plan_lines)["github"]
