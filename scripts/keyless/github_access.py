"""A token of GitHub's that never enters: git and gh use it for some repositories alone.

git finds them at a port of the sandbox in place of https://github.com, and gh at a socket, which
it speaks plain HTTP at (`http_unix_socket` in its configuration). GraphQL is not let through:
what a query is about cannot be told from its head, and it leads from any repository to others.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import re
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote

from scripts import naming
from scripts.contracts.provisions import File, Provision
from scripts.keyless import remotes
from scripts.keyless.kept_keys import Gate, Holding
from scripts.machine import console, files, state
from scripts.settings.parsing import REPOSITORY
from scripts.transport import inside
from scripts.transport.forwards import Socket, SocketPort

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from scripts.keyless.kept_keys import Place
    from scripts.keyless.reverse_proxy import Asked
    from scripts.settings.fields import Settings

log = logging.getLogger("nddt")

PUBLIC = "github.com"
TOKENS = ("GH_TOKEN", "GITHUB_TOKEN")
ENTERPRISE_TOKENS = ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
"""Which of the variables gh uses depends on the host."""
_ALL_TOKENS = (*TOKENS, *ENTERPRISE_TOKENS)

_GIT = re.compile(
    rf"/({REPOSITORY}?)(?:\.git)?/(?:"
    r"(?P<GET>info/refs)|(?P<POST>git-(?:upload|receive)-pack|info/lfs/objects/batch))"
)
_API = re.compile(rf"(?:/api/v3)?(/repos/({REPOSITORY})/(.+))")
_ANY = re.compile(
    r"pulls(/\d+(/(files|commits|merge|comments(/\d+/replies)?|requested_reviewers|update-branch"
    r"|reviews(/\d+(/(comments|events|dismissals))?)?))?|/comments(/\d+(/reactions(/\d+)?)?)?)?"
    r"|issues(/\d+(/(events|timeline|lock|parent|sub_issue|sub_issues(/priority)?|comments"
    r"|dependencies/block(ing|ed_by)(/\d+)?|(labels|assignees)(/[^/]+)?|reactions(/\d+)?))?"
    r"|/comments(/\d+(/reactions(/\d+)?|/pin)?)?|/events(/\d+)?)?"
    r"|comments(/\d+(/reactions(/\d+)?)?)?"
    r"|check-runs(/\d+(/(annotations|rerequest))?)?|check-suites(/\d+(/(check-runs|rerequest))?)?"
    r"|commits(/.+)?|contents(/.*)?|git/(blobs|commits|matching-refs|refs?|tags|trees)(/.+)?"
    r"|labels(/[^/]+)?|milestones(/\d+(/labels)?)?|merges|statuses/[0-9a-fA-F]+"
    r"|releases(/\d+(/assets|/reactions(/\d+)?)?|/latest|/tags/.+|/generate-notes|/assets/\d+)?"
    r"|actions/(workflows/[^/]+/dispatches|jobs/\d+/rerun"
    r"|runs/\d+/(cancel|rerun|rerun-failed-jobs))",
    re.ASCII,
)
"""What of a repository may be read and written: the work in it, not who may do what.

What leads elsewhere is none of these, such as `pulls/1/codespaces`, a machine with a token. See
https://docs.github.com/en/rest.
"""
_READ = re.compile(
    r"actions/(runs(/\d+(/(artifacts|jobs|logs|timing|approvals|pending_deployments"
    r"|attempts/\d+(/(jobs|logs))?))?)?|workflows(/[^/]+(/(runs|timing))?)?|jobs/\d+(/logs)?"
    r"|artifacts(/\d+(/zip)?)?)"
    r"|assignees(/[^/]+)?|branches(/.+)?|compare/.+|contributors|languages|readme(/.+)?|tags|topics",
    re.ASCII,
)
"""What may be read; the repository itself is not there, since it may come with a token."""
_PLAIN = re.compile(r"(?:[\w.~!$&'()*+,=:@/-]|%[0-9a-fA-F]{2})+", re.ASCII)
"""What a path consists of (RFC 3986), without the `;` that some servers cut off."""
_ODD = re.compile(r"[\x00-\x1f\x7f\\;]|(?:^|/)\.{1,2}(?:/|$)")
"""What no path may come to when it is decoded: servers differ about what it means."""


def hold(settings: Settings, variables: Mapping[str, str], place: Place) -> Holding | None:
    """Hold the tokens, if there are any.

    Args:
        settings: All of them.
        variables: What the session would have.
        place: Of the session.
    """
    keys = {name: variables[name] for name in _ALL_TOKENS if variables.get(name)}
    if not keys:
        return None
    web = _web(settings)
    usable = [name for name in (TOKENS if _is_public(web) else ENTERPRISE_TOKENS) if name in keys]
    is_ours = _is_by_remotes(settings)
    known = _remotes(settings, web) if is_ours else settings.github_repos
    headers = {
        ("authorization", form): real
        for name in usable
        for form, real in zip(_forms(place.placeholder(name)), _forms(keys[name]), strict=True)
    }
    port, socket = place.port("github"), inside.place(place.name, "github")
    path = place.directory / "github"
    variables = {"GH_HOST": web, **({"GH_REPO": f"{web}/{known[0]}"} if known else {})}
    if usable:
        variables |= _git_variables(web, known, port, place.placeholder(usable[0]))
    shown = f"{', '.join(known) or 'no repository'} at {web}, by this machine, which keeps "
    return Holding(
        keys=keys,
        secrets=(*keys.values(), *(_basic(key) for key in keys.values())),
        path=path,
        gate=Gate(route=partial(route, web, frozenset(map(str.lower, known))), headers=headers),
        forwards=(SocketPort(port, str(path)), Socket(socket, str(path))),
        brings=Provision(
            variables=variables,
            files={"session/gh/config.yml": File(content=_gh_configuration(socket))},
            before=('export GH_CONFIG_DIR="$NDDT_SESSION/gh"',),
            after=(inside.without_places(place.name),),
            background_services=(partial(_told_once, settings, known, web),) if is_ours else (),
            system_prompt_lines=_told(known),
            plan_lines=(("github", shown + ", ".join(keys)),),
        ),
    )


def _is_public(web: str) -> bool:
    return web == PUBLIC or web.endswith(".ghe.com")


def _basic(key: str) -> str:
    return base64.b64encode(f"x-access-token:{key}".encode()).decode()


def _forms(key: str) -> tuple[str, ...]:
    """Build the forms in which git, gh and curl send a token."""
    return (f"Basic {_basic(key)}", f"token {key}", f"Bearer {key}")


def _git_variables(web: str, known: tuple[str, ...], port: int, placeholder: str) -> dict[str, str]:
    """Return what makes git ask us for the repositories; see GIT_CONFIG_COUNT in git-config(1)."""
    here = f"http://127.0.0.1:{port}/"
    entries = [(f"http.{here}.extraHeader", f"Authorization: Basic {_basic(placeholder)}")]
    entries += [(f"url.{here}{one}.insteadOf", f"https://{web}/{one}") for one in known]
    found = {"GIT_CONFIG_COUNT": str(len(entries))}
    for number, (name, value) in enumerate(entries):
        found |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return found


def _gh_configuration(socket: str) -> bytes:
    return f'version: "1"\nhttp_unix_socket: {socket}\n'.encode()


def _told(known: tuple[str, ...]) -> tuple[str, ...]:
    if not known:
        return ()
    told = (
        f"git over https and gh reach these repositories of GitHub's: {', '.join(known)}. Of gh, "
        "only what uses the REST API works, not GraphQL: for a pull request, use `gh api "
        "repos/OWNER/NAME/pulls -f title=… -f head=… -f base=… -f body=…`."
    )
    return (told,)


def route(web: str, known: frozenset[str], asked: Asked, /) -> tuple[str, str] | None:
    """Find the origin and the target that a request is for.

    Args:
        web: The host.
        known: The repositories, in lower case.
        asked: The request.

    Returns:
        None if it is not about the work in a known repository.
    """
    if not _PLAIN.fullmatch(asked.path):
        return None
    git = _GIT.fullmatch(asked.path)
    if git:
        is_known = git[1].lower() in known and git.groupdict().get(asked.method)
        return (f"https://{web}", asked.target) if is_known else None
    api = _API.fullmatch(asked.path)
    if not api or api[2].lower() not in known or not _is_work(asked.method, api[3]):
        return None
    target = api[1] + asked.target[len(asked.path) :]
    if _is_public(web):
        return f"https://api.{web}", target
    return f"https://{web}", f"/api/v3{target}"


def _is_work(method: str, path: str) -> bool:
    """Whether a path below a repository is about the work in it, also for who decodes it twice."""
    try:
        decoded = unquote(unquote(path, errors="strict"), errors="strict")
    except UnicodeDecodeError:
        return False
    if _ODD.search(decoded):
        return False
    if path.startswith("branches/"):  # names of branches have slashes, too
        words = re.split(r"[/#?]", decoded)[2:]
        if any(one.strip().lower().partition(".")[0] == "protection" for one in words):
            return False
    reads = method in {"GET", "HEAD"} and _READ.fullmatch(path)
    return bool(reads or _ANY.fullmatch(path))


# -- whose repositories ---------------------------------------------------------------------


def ask_about_remotes(settings: Settings, variables: Mapping[str, str], *, yes: bool) -> None:
    """Ask whether a token may be used for remotes that came after the directory's first use.

    Args:
        settings: See `hold`.
        variables: See `hold`.
        yes: Agreed to beforehand; one line says to what.
    """
    if not _is_by_remotes(settings) or not any(variables.get(one) for one in _ALL_TOKENS):
        return
    web, environ = _web(settings), settings.process_environment
    later = _at(web, remotes.sorted_out(environ, settings.directory)[1])
    if not later:
        return
    listed = ", ".join(later)
    question = (
        f"Use your token of {web} for {listed}, too? Remotes name this that were not here when "
        "nddt was first used in this directory."
    )
    if yes:
        log.warning("your token of %s is used here for %s, too, as --yes agrees to", web, listed)
    if yes or console.ask(question):
        remotes.agree_to_remotes(environ, settings.directory, (f"{web}/{one}" for one in later))


def _web(settings: Settings) -> str:
    return settings.own_environment.get("GH_HOST", "") or PUBLIC


def _is_by_remotes(settings: Settings) -> bool:
    return not settings.github_repos and settings.workspace != "none"


def _at(web: str, repositories: Iterable[str]) -> tuple[str, ...]:
    """Pick the repositories at a host, as OWNER/NAME."""
    start = f"{web.lower()}/"
    return tuple(one.removeprefix(start) for one in repositories if one.startswith(start))


def _remotes(settings: Settings, web: str) -> tuple[str, ...]:
    """Read the repositories that the directory's remotes name and that count."""
    known, later = remotes.sorted_out(settings.process_environment, settings.directory)
    if more := ", ".join(_at(web, later)):
        log.warning(
            "the directory has got other remotes, which no token is used for: %s — if they are "
            "yours, name all in NDDT_GITHUB_REPOS",
            more,
        )
    return _at(web, known)


@contextlib.contextmanager
def _told_once(settings: Settings, known: tuple[str, ...], web: str) -> Iterator[None]:
    """Say what the token is used for, the first time and when that has changed."""
    name = naming.persistent_name(settings.directory)
    note = state.state_directory(settings.process_environment) / "github" / name
    text = "".join(f"{one}\n" for one in known)
    before = None
    with contextlib.suppress(OSError):
        before = note.read_text(encoding="utf-8")
    if before != text:
        files.write(note, text)
        what = ", ".join(known) or "no repository, since the directory has no remote there"
        log.info("from now on your token of %s is used here for %s", web, what)
    yield
