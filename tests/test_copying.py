"""What comes out of a sandbox, whatever that sends, stays where it belongs."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest

from scripts import copying
from scripts.errors import DataError, TransportLostError

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.ssh import Connection


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
        assert error.message == "not all could be copied"  # noqa: PT017

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


@pytest.mark.skipif(os.getuid() != 0, reason="only root's tar makes devices")
def test_no_device_comes_out(tmp_path: Path) -> None:
    """With its mode, anybody of this machine could use it."""
    device = entry("disk", 0o666)
    device.type, device.devmajor, device.devminor, device.size = tarfile.BLKTYPE, 7, 200, 0

    stream = sending(tmp_path, "directory", entry("a"), device, entry("z"))

    with pytest.raises(DataError, match="sandbox:x has devices, which do not come along: disk"):
        copying.copy(stream, "sandbox:x", str(tmp_path / "target"))

    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == ["a", "z"]
