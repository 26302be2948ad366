"""What comes out of a sandbox, whatever that sends, stays where it belongs."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest

from scripts.errors import DataError, TransportLostError
from scripts.machine import console
from scripts.workspace import copying

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.transport.ssh import Connection


@dataclass(frozen=True)
class Sandbox:
    """A connection to a sandbox that answers every question and sends one file of bytes."""

    kind: str
    stream: Path

    def session_argv(self, *words: str) -> tuple[str, ...]:
        """Give the command that answers."""
        if "echo directory" in words[-1]:
            return ("echo", self.kind)
        return ("cat", str(self.stream))


def entry(name: str, mode: int = 0o644, link: str = "") -> tarfile.TarInfo:
    """Make an entry of one byte, or a link."""
    made = tarfile.TarInfo(name)
    made.mode = mode
    if link:
        made.type, made.linkname = tarfile.SYMTYPE, link
    else:
        made.size = 1
    return made


def sending(tmp_path: Path, kind: str, *entries: tarfile.TarInfo) -> Connection:
    """Have a sandbox that sends these."""
    stream = tmp_path / "stream"
    with tarfile.open(stream, "w") as archive:
        for one in entries:
            archive.addfile(one, io.BytesIO(b"x") if one.isreg() else None)
    return cast("Connection", Sandbox(kind, stream))


@pytest.mark.parametrize("name", ["../climbed", "link/escaped", "a/../../climbed", "/{}/absolute"])
def test_no_path_leads_out(tmp_path: Path, name: str) -> None:
    """Neither upwards, nor through a link, nor from the root."""
    target = tmp_path / "deep" / "target"
    target.parent.mkdir()
    entries = (entry("link", link=".."), entry(name.format(tmp_path)))
    sandbox = sending(tmp_path, "directory", *entries)

    try:
        copying.copy(sandbox, "sandbox:x", str(target))
    except TransportLostError as error:
        assert error.message.startswith("not all could be copied: these cannot be made: ")  # noqa: PT017

    assert [path.name for path in target.parent.iterdir()] == ["target"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "stream"]


def test_no_bit_lends_rights(tmp_path: Path) -> None:
    """Else a root's copy would be a root's program for anybody."""
    sandbox = sending(tmp_path, "directory", entry("lent", 0o6777))

    copying.copy(sandbox, "sandbox:x", str(tmp_path / "target"))

    assert (tmp_path / "target" / "lent").stat().st_mode & 0o7000 == 0


def test_a_file_that_is_none_replaces_nothing(tmp_path: Path) -> None:
    """What has not come whole is not there at all."""
    (tmp_path / "kept").write_text("mine")
    sandbox = sending(tmp_path, "file", entry("other"))

    with pytest.raises(Exception, match=r"cannot be written|not all"):
        copying.copy(sandbox, "sandbox:x", str(tmp_path / "kept"))

    assert (tmp_path / "kept").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "stream"]


def test_a_broken_stream_is_said(tmp_path: Path) -> None:
    """Though the sandbox thinks that it has sent all."""
    sandbox = sending(tmp_path, "directory", entry("a"))
    (tmp_path / "stream").write_bytes(b"x" * 3000)

    with pytest.raises(TransportLostError, match="not all could be copied"):
        copying.copy(sandbox, "sandbox:x", str(tmp_path / "target"))


HOSTILE = (
    b"\x1b]52;c;ZXZpbA==\x07"  # the clipboard
    b"\x1b]0;title\x07\x1b[2J\x1b[31m"
    b"\xc2\x9b2J\x9b2J"  # C1, as text and as a byte
    b"\xe2\x80\xae\xe2\x81\xa6bidi"
    b"\x08\x08\rback\x7f"
)
"""What a terminal, or who looks at it, would be misled by."""


@pytest.mark.parametrize("kind", ["directory", "file", "", "in"])
def test_nothing_of_it_is_obeyed_by_a_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    """What the sandbox says is shown, and its end is the reason."""
    (tmp_path / "said").write_bytes(HOSTILE)

    class Talker:
        """A connection to a sandbox that says this about everything."""

        def session_argv(self, *words: str) -> tuple[str, ...]:
            """Give the command."""
            answer = f"echo {kind}" if "echo directory" in words[-1] and kind else "exit 3"
            return ("sh", "-c", f'cat "$0" >&2; {answer}', str(tmp_path / "said"))

    paths = ("sandbox:x", str(tmp_path / ("said" if kind == "in" else "target")))
    with pytest.raises(TransportLostError) as caught:
        copying.copy(cast("Connection", Talker()), *(paths[::-1] if kind == "in" else paths))
    console.complain(str(caught.value))

    said = capfd.readouterr()
    assert said.out == ""
    assert "bidi" in said.err or kind in {"directory", "file"}  # of which nothing has come
    assert not [c for c in said.err if not c.isprintable() and c != "\n"]


def test_a_link_of_an_earlier_copy_leads_nowhere(tmp_path: Path) -> None:
    """A second copy may hold a path below what the first one made a link to outside."""
    (tmp_path / "outside").mkdir()
    for sent in (entry("link", link="../outside"), entry("link/escaped")):
        sandbox = sending(tmp_path, "directory", sent)
        copying.copy(sandbox, "sandbox:x/.", str(tmp_path / "target"))

    assert not list((tmp_path / "outside").iterdir())
    assert (tmp_path / "target" / "link" / "escaped").read_bytes() == b"x"


def test_a_file_is_no_link(tmp_path: Path) -> None:
    """What is written to it later would go where that leads."""
    sandbox = sending(tmp_path, "file", entry("x", link="/etc/passwd"))

    with pytest.raises(DataError, match="sent something that is no file"):
        copying.copy(sandbox, "sandbox:x", str(tmp_path / "kept"))

    assert [path.name for path in tmp_path.iterdir()] == ["stream"]


def test_no_device_comes_out(tmp_path: Path) -> None:
    """With its mode, anybody of this machine could use it."""
    device = entry("disk", 0o666)
    device.type, device.devmajor, device.devminor, device.size = tarfile.BLKTYPE, 7, 200, 0

    stream = sending(tmp_path, "directory", entry("a"), device, entry("z"))

    with pytest.raises(DataError, match="has devices or pipes, which do not come along: disk"):
        copying.copy(stream, "sandbox:x", str(tmp_path / "target"))

    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == ["a", "z"]


def really_sending(tmp_path: Path, kind: str, source: Path, *words: str) -> Connection:
    """Have a sandbox that sends what the tar of one would."""
    stream = tmp_path / "stream"
    with stream.open("wb") as file:
        subprocess.run(("tar", "-cSf", "-", "-C", str(source), *words), check=True, stdout=file)
    return cast("Connection", Sandbox(kind, stream))


def test_what_has_no_room(tmp_path: Path) -> None:
    """Is told of and stays, and keeps nothing else from coming; holes stay holes."""
    source = tmp_path / "source"
    source.mkdir()
    for name, size in (("a huge one", 1 << 43), ("holes", 1 << 30)):
        with (source / name).open("wb") as file:
            file.seek(5_000_000)
            file.write(b"x")
            file.truncate(size)
    (source / "small").write_text("fits")
    target = tmp_path / "target"

    with pytest.raises(DataError, match="no room for all of sandbox:x: a huge one"):
        copying.copy(really_sending(tmp_path, "directory", source, "."), "sandbox:x", str(target))

    assert sorted(one.name for one in target.iterdir()) == ["holes", "small"]
    found = (target / "holes").stat()
    assert (found.st_size, found.st_blocks < 1000) == (1 << 30, True)
    with (target / "holes").open("rb") as file:
        assert file.read(5_000_001)[-2:] == b"\0x"
    stream = really_sending(tmp_path, "file", source, "./a huge one")
    with pytest.raises(DataError, match=f"there is no room for its {1 << 43} bytes"):
        copying.copy(stream, "sandbox:a huge one", str(tmp_path / "one"))
    reserve = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    stream = really_sending(tmp_path, "file", source, "./holes")
    with pytest.raises(DataError, match="there is no room"):
        copying.copy(stream, "sandbox:holes", str(tmp_path / "one"), reserve=reserve)
    copying.copy(stream, "sandbox:holes", str(tmp_path / "one"))
    assert not [one.name for one in tmp_path.iterdir() if ".nddt" in one.name]
    assert (tmp_path / "one").stat().st_blocks < 1000


def test_links_and_closed_directories(tmp_path: Path) -> None:
    """Come as they are; a hard link to what is outside is none."""
    source = tmp_path / "source"
    (source / "closed").mkdir(parents=True)
    (source / "closed/x").write_text("x")
    (source / "one").write_text("1")
    (source / "other").hardlink_to(source / "one")
    (source / "link").symlink_to("/etc")
    (source / "closed").chmod(0o300)
    target = tmp_path / "target"
    for _ in range(2):
        stream = really_sending(tmp_path, "directory", source, ".")
        copying.copy(stream, "sandbox:x/.", str(target))
    assert (target / "one").samefile(target / "other")
    assert str((target / "link").readlink()) == "/etc"
    assert (target / "closed").stat().st_mode & 0o777 == 0o300
    (target / "closed").chmod(0o700)
    assert (target / "closed/x").read_text() == "x"

    outside = entry("evil")
    outside.type, outside.linkname, outside.size = tarfile.LNKTYPE, "../outside", 0
    (tmp_path / "outside").write_text("mine")
    with pytest.raises(TransportLostError, match="not all could be copied"):
        copying.copy(sending(tmp_path, "directory", outside), "sandbox:x", str(tmp_path / "t"))
    assert not list((tmp_path / "t").iterdir())


def test_a_directory_that_is_exchanged_meanwhile(tmp_path: Path) -> None:
    """A sandbox that shows the target puts a link there: nothing is written through it."""
    (tmp_path / "outside").mkdir()
    target = tmp_path / "target"
    target.mkdir()
    stream = sending(tmp_path, "directory", *(entry(f"d/{number}") for number in range(3000)))
    over = threading.Event()

    def exchange() -> None:
        while not over.is_set():
            with suppress(OSError):
                (target / "d").rename(target / "away")
            with suppress(OSError):
                (target / "d").symlink_to(tmp_path / "outside")
            with suppress(OSError):
                (target / "d").unlink()
            with suppress(OSError):
                (target / "away").rename(target / "d")

    exchanging = threading.Thread(target=exchange)
    exchanging.start()
    with suppress(TransportLostError):
        copying.copy(stream, "sandbox:x/.", str(target))
    over.set()
    exchanging.join()
    assert not list((tmp_path / "outside").iterdir())
