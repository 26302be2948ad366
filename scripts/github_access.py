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

from scripts import inside, naming, process, state
from scripts.holdings import Gate, Holding
from scripts.provisions import File, Provision
from scripts.settings import REPOSITORY
from scripts.ssh import Socket, SocketPort

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from scripts.holdings import Place
    from scripts.reverse_proxy import Asked
    from scripts.settings import Settings

log = logging.getLogger("nddt")

PUBLIC = "github.com"
TOKENS = ("GH_TOKEN", "GITHUB_TOKEN")
ENTERPRISE_TOKENS = ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
"""Which of the variables gh uses depends on the host."""

_GIT = re.compile(
    rf"/({REPOSITORY}?)(?:\.git)?/(?:"
    r"(?P<GET>info/refs)|(?P<POST>git-(?:upload|receive)-pack|info/lfs/objects/batch))"
)
_API = re.compile(rf"(?:/api/v3)?(/repos/({REPOSITORY})/(.+))")
_ANY = re.compile(
    r"(pulls|issues|commits|comments|contents|git|releases|labels|milestones|statuses"
    r"|check-runs|check-suites|merges)(/.*)?|actions/workflows/[^/]+/dispatches"
    r"|actions/(runs/\d+/(cancel|rerun|rerun-failed-jobs)|jobs/\d+/rerun)"
)
"""What of a repository may be read and written: the work in it, not who may do what."""
_READ = re.compile(
    r"(actions/(runs|workflows|jobs|artifacts)|assignees|branches|compare|contributors"
    r"|languages|readme|tags|topics)(/.*)?"
)
"""What may be read; the repository itself is not there, since it may come with a token."""


def hold(settings: Settings, variables: Mapping[str, str], place: Place) -> Holding | None:
    """Hold the tokens, if there are any.

    Args:
        settings: See there.
        variables: What the session would have.
        place: Of the session.
    """
    names = (*TOKENS, *ENTERPRISE_TOKENS)
    keys = {name: variables[name] for name in names if variables.get(name)}
    if not keys:
        return None
    web = settings.own_environment.get("GH_HOST", "") or PUBLIC
    usable = [name for name in (TOKENS if _is_public(web) else ENTERPRISE_TOKENS) if name in keys]
    note = _note(settings)
    is_ours = not settings.github_repos and settings.workspace != "none"
    known = _remotes(settings, web, note) if is_ours else settings.github_repos
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
        brings=Provision(
            forwards=(SocketPort(port, str(path)), Socket(socket, str(path))),
            variables=variables,
            files={"session/gh/config.yml": File(content=_gh_configuration(socket))},
            before=('export GH_CONFIG_DIR="$NDDT_SESSION/gh"',),
            after=(inside.without_places(place.name),),
            serving=(partial(_noted, note, known, web),) if is_ours else (),
            told=_told(known),
            shown=(("github", shown + ", ".join(keys)),),
        ),
    )


def _is_public(web: str) -> bool:
    return web == PUBLIC or web.endswith(".ghe.com")


def _basic(key: str) -> str:
    return base64.b64encode(f"x-access-token:{key}".encode()).decode()


def _forms(key: str) -> tuple[str, ...]:
    """Give the forms in which git, gh and curl send a token."""
    return (f"Basic {_basic(key)}", f"token {key}", f"Bearer {key}")


def _git_variables(web: str, known: tuple[str, ...], port: int, placeholder: str) -> dict[str, str]:
    """Give what makes git ask us for the repositories; see GIT_CONFIG_COUNT in git-config(1)."""
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


def route(web: str, known: frozenset[str], asked: Asked, /) -> str | None:
    """Give the address that a request is for; None if it is not about a known repository.

    Args:
        web: The host.
        known: The repositories, in lower case.
        asked: The request.
    """
    if ".." in unquote(unquote(asked.path)):
        return None
    query = asked.target[len(asked.path) :]
    git = _GIT.fullmatch(asked.path)
    if git:
        is_known = git[1].lower() in known and git.groupdict().get(asked.method)
        return f"https://{web}{asked.target}" if is_known else None
    api = _API.fullmatch(asked.path)
    if not api or api[2].lower() not in known:
        return None
    reads = asked.method in {"GET", "HEAD"}
    if _ANY.fullmatch(api[3]) or (reads and _READ.fullmatch(api[3])):
        base = f"https://api.{web}" if _is_public(web) else f"https://{web}/api/v3"
        return f"{base}{api[1]}{query}"
    return None


# -- whose repositories ---------------------------------------------------------------------


def _note(settings: Settings) -> Path:
    name = naming.persistent_name(settings.directory)
    return state.state_directory(settings.process_environment) / "github" / name


def _remotes(settings: Settings, web: str, note: Path) -> tuple[str, ...]:
    """Give the repositories that the directory's remotes are, as they were the first time.

    What an agent has added to them since would let it into more.
    """
    words = ("git", "config", "--local", "--get-regexp", r"^remote\..*\.url$")
    found: dict[str, None] = {}
    if process.find("git"):
        environ = settings.process_environment
        done = process.capture(words, env=environ, cwd=settings.directory)
        for line in done.stdout.splitlines():
            if name := repository(line.partition(" ")[2], web):
                found[name] = None
    try:
        known = tuple(note.read_text(encoding="ascii").split())
    except OSError:
        return tuple(found)
    more = ", ".join(one for one in found if one not in known)
    if more:
        log.warning(
            "the directory has got other remotes, which no token is used for: %s — if they are "
            "yours, name all in NDDT_GITHUB_REPOS",
            more,
        )
    return known


def repository(url: str, web: str) -> str | None:
    """Give the repository that a remote's address is, as OWNER/NAME; None for another host's."""
    host = re.escape(web)
    start = rf"(?:https?://(?:[^@/]*@)?{host}/|ssh://git@{host}/|git@{host}:)"
    match = re.fullmatch(rf"{start}({REPOSITORY}?)(?:\.git)?/?", url)
    return match[1] if match else None


@contextlib.contextmanager
def _noted(note: Path, known: tuple[str, ...], web: str) -> Iterator[None]:
    """Remember whose the remotes are the first time, and say so."""
    if not note.exists():
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.write(note, "".join(f"{one}\n" for one in known))
        what = ", ".join(known) or "no repository, since the directory has no remote there"
        log.info("from now on your token of %s is used here for %s", web, what)
    yield
