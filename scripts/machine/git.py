"""The one door to this machine's git: it reads data of a repository, and runs nothing for it.

A repository may be somebody else's work: its configuration names programs (hooks, filters,
fsmonitor, textconv, ssh, a promisor's upload-pack, …), its files may be pipes. So git never gets
its git directory. It works in an empty one of ours, with copies of the few files that are needed:
the index, the list of excludes, the text of a configuration. It gets no settings of the user's,
either, who may keep them in the very directory (`~/.gitconfig` as a link into it).

This file's text is sent to a sandbox beside answering.py, so it needs what is sent along alone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from scripts.errors import DataError, UnavailableError
from scripts.machine import search_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
from scripts.machine import git_places

log = logging.getLogger("nddt")
LIMIT_S = 10
"""Seconds after which git is ended: it may wait at a pipe for ever."""
OUTPUT = 32 << 20
"""Bytes of an answer, at most."""
INDEX = 256 << 20
"""Bytes of an index that is read, at most; Linux has one of 10 MB."""
_COMMANDS = {"check-ignore", "config", "diff", "ls-files"}
"""What git is asked for: each reads, and is known to start nothing in a repository of ours."""
_SETTINGS = {
    "core.askPass": "",
    "core.attributesFile": os.devnull,
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.pager": "cat",
    "core.quotePath": "false",
    "core.sshCommand": "false",
    "core.untrackedCache": "false",
    "credential.helper": "",
    "gc.auto": "0",
    "protocol.allow": "never",
    "safe.bareRepository": "explicit",
    "submodule.recurse": "false",
}
"""A second fence: in an empty repository, without anybody's settings, none of these is set."""
_VARIABLES = {
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_ASKPASS": "false",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_EDITOR": "false",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PAGER": "cat",
    "GIT_SSH_COMMAND": "false",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
    "SSH_ASKPASS": "false",
}
_NO_SETTINGS = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
_PLACES = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_SYSTEM")
_SHA256 = re.compile(rb"^\s*objectformat\s*=\s*\"?sha256", re.IGNORECASE | re.MULTILINE)
_NO_PLACE = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


def ask(
    command: str,
    words: tuple[str, ...],
    repository: str,
    *,
    tree: str = "/",
    stdin: bytes = b"",
    own: Mapping[str, str] | None = None,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, bytes, str]:
    """Run git in a repository of ours.

    Args:
        command: One of those that start nothing.
        words: Its arguments.
        repository: Ours.
        tree: The working tree, in which it runs.
        stdin: What it reads.
        own: The user's environment if their settings are to count; None if none are.
        settings: On top of ours.

    Returns:
        Its exit code, its output, and the last line of what it says is wrong.

    Raises:
        UnavailableError: It is not installed.
        DataError: It does not end, or its answer is too long.
    """
    if command not in _COMMANDS:
        raise ValueError(command)
    environ = {k: v for k, v in (own or os.environ).items() if not k.startswith("GIT_")}
    environ |= {"GIT_DIR": repository, "GIT_WORK_TREE": tree, **_VARIABLES}
    if command == "check-ignore":  # it knows no other paths, and refuses this
        del environ["GIT_LITERAL_PATHSPECS"]
    environ |= _NO_SETTINGS if own is None else {k: own[k] for k in _PLACES if k in own}
    options = (x for pair in {**_SETTINGS, **settings}.items() for x in ("-c", "=".join(pair)))
    log.debug("+ %s", shlex.join(("git", command, *words)))
    with tempfile.TemporaryFile() if stdin else open(os.devnull, "rb") as given:
        if stdin:
            given.write(stdin)
            given.seek(0)
        running = subprocess.Popen(
            (_program(), *options, command, *words),
            cwd=tree,
            env=environ,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    with running:
        try:
            said, wrong = _output(running, tree)
        finally:
            if running.returncode is None:
                os.killpg(running.pid, signal.SIGKILL)
    lines = wrong.decode(errors="replace").splitlines()
    return running.returncode, said, lines[-1] if lines else ""


def _program() -> str:
    """Find git, also where no settings were loaded, as in a sandbox."""
    found = shutil.which("git", path=search_path.absolute(os.environ.get("PATH")))
    if not found:
        from scripts.naming import said  # noqa: PLC0415  (it is not sent to sandboxes, which have git)

        raise UnavailableError("git is not installed", f"run: {said('setup')}")
    return found


def _output(running: subprocess.Popen[bytes], tree: str) -> tuple[bytes, bytes]:
    """Read stdout and stderr to their end, within the limits."""
    said, wrong = bytearray(), bytearray()
    deadline = time.monotonic() + LIMIT_S
    with selectors.DefaultSelector() as waiting:
        for stream, kept in ((running.stdout, said), (running.stderr, wrong)):
            waiting.register(stream or -1, selectors.EVENT_READ, kept)
        while waiting.get_map():
            ready = waiting.select(max(deadline - time.monotonic(), 0))
            if not ready:
                raise DataError(*git_places.why_endless(tree, LIMIT_S))
            for key, _ in ready:
                block = os.read(key.fd, 1 << 16)
                key.data.extend(block)
                if not block:
                    waiting.unregister(key.fileobj)
            del wrong[: -git_places.POINTER]
            if len(said) > OUTPUT:
                raise DataError(f"git says more than {OUTPUT >> 20} MiB about {tree!r}")
    try:
        running.wait(max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        raise DataError(*git_places.why_endless(tree, LIMIT_S)) from None
    return bytes(said), bytes(wrong)


class Stand:
    """An empty repository, with copies of another one's index and excludes.

    Args:
        path: Where it is.
        has_index: Whether there is a copy of an index.
        exclude: The copy of info/exclude; empty if there is none.
    """

    def __init__(self, path: str, *, has_index: bool, exclude: str) -> None:
        self.path = path
        self.has_index = has_index
        self.exclude = exclude

    def listed(self, *words: str, tree: str = "/", excludes: str | None = None) -> bytes | None:
        """Ask `git ls-files`, and of a sparse index without having its trees looked up.

        Args:
            words: Its arguments.
            tree: The working tree.
            excludes: The user's own `core.excludesFile`; None for git's default.

        Returns:
            None if the index cannot be read.

        Raises:
            DataError: There is no answer, or one that is too long.
        """
        settings = {} if excludes is None else {"core.excludesFile": excludes}
        # --sparse is there since git 2.36.
        for more in (("--sparse",), ()):
            code, said, _ = ask(
                "ls-files", (*more, *words), self.path, tree=tree, settings=settings
            )
            if code == 0:
                return said
        return None


@contextlib.contextmanager
def standing_in(git_directory: str = "") -> Iterator[Stand]:
    """Have an empty repository in the place of another one.

    Args:
        git_directory: Of the other one; empty for nothing but an empty one.
    """
    with tempfile.TemporaryDirectory(prefix="nddt-") as path:
        for name in ("objects", "refs", "info"):
            os.mkdir(os.path.join(path, name))
        _write(path, "HEAD", b"ref: refs/heads/none\n")
        index = exclude = None
        if git_directory:
            common = git_places.common_of(git_directory)
            if _SHA256.search(
                git_places.read_plain_file(os.path.join(common, "config"), git_places.TEXT) or b""
            ):
                format_ = b"[core]\nrepositoryFormatVersion=1\n[extensions]\nobjectFormat=sha256\n"
                _write(path, "config", format_)
            exclude = git_places.read_plain_file(
                os.path.join(common, "info", "exclude"), git_places.TEXT
            )
            index = git_places.read_plain_file(os.path.join(git_directory, "index"), INDEX)
        if index is not None:
            _write(path, "index", index)
            for name in _shared(git_directory, index):
                _write(
                    path,
                    name,
                    git_places.read_plain_file(os.path.join(git_directory, name), INDEX) or b"",
                )
        if exclude is not None:
            _write(path, "exclude", exclude)
        copied = os.path.join(path, "exclude") if exclude is not None else ""
        yield Stand(path, has_index=index is not None, exclude=copied)


def excluded(rules: Mapping[str, bytes], more: bytes, paths: Iterable[str]) -> set[str]:
    """Ask which paths would be ignored by rules, whatever there is and is tracked.

    Args:
        rules: Path of a `.gitignore` → its text.
        more: What counts less than those: the user's excludes, and then the repository's own.
        paths: Of files; a directory is one of which something is ignored below it.

    Raises:
        DataError: git does not tell.
    """
    settings = {"core.excludesFile": os.devnull}
    given = b"".join(b"./" + os.fsencode(path) + b"\0" for path in paths)  # not :(magic)
    with standing_in() as stand, tempfile.TemporaryDirectory(prefix="nddt-") as tree:
        _write(os.path.join(stand.path, "info"), "exclude", more)
        for path in sorted(rules, key=lambda one: one.count("/")):
            directory, name = os.path.split(os.path.join(tree, path))
            try:
                os.makedirs(directory, exist_ok=True)
                _write(directory, name, rules[path])
            except OSError as error:  # as below a directory that is called .gitignore
                if error.errno not in _NO_PLACE:
                    raise
        words = ("--no-index", "--stdin", "-z")
        code, said, wrong = ask(
            "check-ignore", words, stand.path, tree=tree, stdin=given, settings=settings
        )
    if code not in {0, 1}:  # 1 is for none
        raise DataError(wrong)
    return {one.removeprefix("./") for one in os.fsdecode(said).split("\0")[:-1]}


def _write(directory: str, name: str, content: bytes) -> None:
    with open(os.path.join(directory, name), "wb") as file:
        file.write(content)


def _shared(git_directory: str, index: bytes) -> Iterator[str]:
    """Name the file in which a split index keeps what changes seldom."""
    for length in (20, 32) if b"link" in index else ():
        base = index[index.rindex(b"link") + 8 :][:length].hex()
        if os.path.lexists(os.path.join(git_directory, name := f"sharedindex.{base}")):
            yield name


def is_tracked(file: str) -> bool:
    """Tell whether a repository has a file, which a copy of it has then, too.

    It counts as tracked if that cannot be found out.
    """
    top = git_places.top_of(os.path.dirname(file))
    if not top:
        return False
    path = os.fsencode(os.path.relpath(os.path.abspath(file), top))
    git_directory = git_places.directory_of(top)
    with standing_in(git_directory) as stand:
        if not stand.has_index:
            return os.path.lexists(os.path.join(git_directory, "index"))
        try:
            listed = stand.listed("-z")
        except UnavailableError:
            return True
    # A sparse index has directories in it, with a slash at their end.
    return listed is None or any(
        one == path or (one.endswith(b"/") and path.startswith(one)) for one in listed.split(b"\0")
    )


def difference(directory: str, one: str, other: str) -> bytes:
    """Compare two trees in a directory of ours.

    Args:
        directory: The directory.
        one: Name of a tree in it.
        other: Likewise.

    Raises:
        DataError: They differ in more than `OUTPUT` bytes.
    """
    words = ("--no-index", "--no-prefix", "--no-ext-diff", "--no-textconv", "--no-color")
    with standing_in() as stand:
        return ask("diff", (*words, "--", one, other), stand.path, tree=directory)[1]
