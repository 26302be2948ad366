"""Directories whose git directory is elsewhere: linked worktrees, submodules, and both at once.

Their file `.git` names the git directory, which names the directory back (`gitdir` in
gitrepository-layout(5), `core.worktree` in git-config(1)). A `.git` file may be somebody
else's: only where both agree is anything shown to a sandbox.

A linked worktree names absolute paths, so its repository is shown at its own. A submodule names
relative ones, which lead nowhere from /workspace: its git directory is shown below `TOP`, beside
a link to /workspace where the directory would be, and the file `.git` is covered by one that
leads there. Nothing changes on this machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from scripts import naming, sandbox_places
from scripts.errors import ConfigError
from scripts.machine import files, git_places, git_settings, state
from scripts.settings.parsing import Mount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.settings.fields import Settings

MODULES = 500
"""So many directories of a git directory are looked at for submodules: others may write there."""
TOP = PurePosixPath("/nddt-git")
WORKSPACE = PurePosixPath(sandbox_places.WORKSPACE)


@dataclass(frozen=True, kw_only=True)
class Links:
    """What git in a sandbox needs beside the directory."""

    mounts: tuple[Mount, ...] = ()
    warning: str = ""
    """Why git does not work there, or not in all of it; empty if it does."""
    directories: tuple[Path, ...] = ()
    """Empty ones that have to be here, to be shown."""
    links: Mapping[Path, str] = field(default_factory=dict)
    """Links that have to be here, and where they lead in the sandbox."""
    files: Mapping[Path, str] = field(default_factory=dict)
    """Files that have to be here."""

    def prepare(self) -> None:
        """Make what the sandbox is to show.

        Raises:
            ConfigError: That is not possible.
        """
        try:
            for path in (*self.directories, *(one.parent for one in (*self.links, *self.files))):
                files.make_private(path)
            for path, target in self.links.items():
                if not path.is_symlink():
                    path.symlink_to(target)
            for path, text in self.files.items():
                files.write(path, text)
        except OSError as error:
            raise ConfigError(
                f"{error.filename} cannot be made: {error.strerror}",
                "git in the sandbox needs it; set XDG_STATE_HOME to another directory",
            ) from error


def find_git_links(settings: Settings) -> Links:
    """Tell what git in a sandbox needs beside the directory, or why it cannot work there."""
    directory = settings.directory
    pointer = directory / ".git"
    if settings.workspace == "none" or pointer.is_symlink() or not pointer.is_file():
        return Links()
    try:
        own = _git_directory(directory)
        is_absolute = _target(pointer).startswith("/")
        if own.is_relative_to(directory) and not is_absolute and _is_repository(own):
            return Links()
        found = None if settings.workspace == "sync" else _links(settings, own)
    except (OSError, ValueError, RuntimeError):  # the last is a loop of links
        found = None
    return found or not_shown(settings)


def not_shown(settings: Settings) -> Links:
    """Say that git does not work, as the sandbox does not see the repository."""
    how = "copied" if settings.workspace == "sync" else "shown"
    return Links(
        warning=f"the repository of {settings.directory} is elsewhere and not {how}, so git does "
        "not work in the sandbox"
    )


def _links(settings: Settings, own: Path) -> Links | None:
    """Look up what of a git directory and around it is to be shown; None if it disagrees."""
    directory, readonly = settings.directory, settings.readonly
    repository = _repository(directory, own)
    modules, is_all = _modules(directory, own)
    if not repository and directory not in modules:
        return None
    # The directory, too, is where its repository expects it: else git would take the worktree
    # for one that has been removed, and forget it.
    shown = (repository, directory) if repository else ()
    mounts = tuple(Mount(one, str(one), readonly=readonly) for one in shown)
    warning = f"git does not work in all submodules: {own} has more than {MODULES} directories"
    warning = "" if is_all else warning
    if not modules:
        return Links(mounts=mounts, warning=warning)
    around = Path(os.path.commonpath((own, directory)))
    home = state.state_directory(settings.process_environment)
    place = home / "git" / naming.persistent_name(directory)
    # Not a part of what is shown anyway, in which that part could be exchanged.
    whole = repository or own
    inside = whole.relative_to(around)
    files, covers = {}, []
    for tree, git_directory in modules.items():
        file = place / f"pointer-{naming.digest([str(tree)], 8)}"
        files[file] = f"gitdir: {TOP / git_directory.relative_to(around)}\n"
        covered = WORKSPACE / tree.relative_to(directory) / ".git"
        covers.append(Mount(file, str(covered), readonly=True))
    top = Mount(place / "top", str(TOP), readonly=True)
    return Links(
        warning=warning,
        mounts=(*mounts, top, Mount(whole, str(TOP / inside), readonly=readonly), *covers),
        directories=(top.source / inside,),
        links={top.source / directory.relative_to(around): str(WORKSPACE)},
        files=files,
    )


def _line(path: Path) -> str:
    """Read the line that a file is.

    Raises:
        ValueError: It is none, or too long, or nothing that can be read.
    """
    line = git_places.line(str(path))
    if not line:
        raise ValueError(path)
    return line


def _target(pointer: Path) -> str:
    return _line(pointer).removeprefix("gitdir:").strip()


def _git_directory(directory: Path) -> Path:
    """Read where a directory's file `.git` leads.

    Raises:
        ValueError: There are links on the way, which would lead elsewhere in a sandbox.
    """
    own = Path(os.path.normpath(directory / _target(directory / ".git")))
    if own.resolve() != own or directory.resolve() != directory:
        raise ValueError(own)
    return own


def _is_repository(directory: Path) -> bool:
    return all((directory / name).exists() for name in ("HEAD", "objects", "refs"))


def _repository(directory: Path, own: Path) -> Path | None:
    """Read the repository of a linked worktree; None if it does not know of it."""
    pointer = directory / ".git"
    if not (own / "commondir").is_file() or _target(pointer) != str(own):
        return None
    common = (own / _line(own / "commondir")).resolve()
    is_ours = own.parent == common / "worktrees"
    knows_us = (own / _line(own / "gitdir")).resolve() == pointer
    return common if is_ours and knows_us and _is_repository(common) else None


def _modules(directory: Path, own: Path) -> tuple[dict[Path, Path], bool]:
    """Find the submodules, the directory itself or in it, whose git directories are in `own`.

    Returns:
        A submodule's directory → its git directory; and whether these are all.
    """
    found = dict[Path, Path]()
    if own.is_relative_to(directory) or directory.is_relative_to(own):
        return found, True
    walk = os.walk(own)
    for where, names, inside in islice(walk, MODULES):
        if "HEAD" not in inside:
            continue
        names[:] = {"modules"}.intersection(names)
        tree = _tree(Path(where))
        if tree is not None and tree.is_relative_to(directory):
            found[tree] = Path(where)
    return found, next(walk, None) is None


def _tree(git_directory: Path) -> Path | None:
    """Look up a submodule's directory; None if the two do not agree, or it is no submodule's."""
    content = git_places.read_plain_file(str(git_directory / "config"), git_places.TEXT)
    said = dict((git_settings.parse(content) if content else None) or ()).get("core.worktree")
    if not said:
        return None
    tree = Path(os.path.normpath(git_directory / said))
    # One that is absolute, or makes a detour, would lead elsewhere in a sandbox.
    if said != os.path.relpath(tree, git_directory) or not _is_repository(git_directory):
        return None
    try:
        return tree if _git_directory(tree) == git_directory else None
    except (OSError, ValueError, RuntimeError):
        return None
