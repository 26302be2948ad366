"""The way to a copy in a sandbox, at whose other end anything may answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ASKING = """
import resource, sys
from pathlib import Path
from types import SimpleNamespace
from scripts.run import remote_copy
from scripts.errors import NddtError
from scripts.workspace.copies.exchange import Copies
remote_copy.IDLE_S = 1
connection = SimpleNamespace(session_argv=lambda *_: (sys.executable, "-c", sys.argv[2]))
line = SimpleNamespace(connection=connection, sandbox="s")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
remote = remote_copy.Remote(line, {})
base = Path(sys.argv[1])
try:
    Copies(here=base / "here", other=remote, memory=base / "known.json").pull()
except NddtError as error:
    print(error)
remote.close()
print((peak() - before) // 1024)
"""
_TELL = "import sys, itertools as i; say = sys.stdout.write; "


@pytest.mark.parametrize(
    "program",
    [
        "say('x' * (1 << 30))",
        "[say('[') for _ in i.count()]",
        'say(\'["i",false]\\n\'); [say(f\'["{n}","d",0,""]\\n\') for n in i.count()]',
        'say(\'["i",false]\\n\'); [say(f\'["{n:0200}","d",0,""]\\n\') for n in i.count()]',
        "say('[\"i\",false]\\n'); [say('[' + '[],' * 9000 + '[]]\\n') for _ in i.count()]",
        "[sys.stderr.write('x' * 4096) for _ in i.count()]",
        "import time; time.sleep(60)",
    ],
)
def test_endless_answers(tmp_path: Path, program: str) -> None:
    """Take less than 64 MiB here, and end in one line."""
    (tmp_path / "here").mkdir()
    done = subprocess.run(
        (sys.executable, "-c", _ASKING, str(tmp_path), _TELL + program),
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    *said, size = done.stdout.splitlines()
    assert len(said) == 1, said
    assert "makes no sense" in said[0] or "does not answer in time" in said[0]
    assert int(size) < 64
    assert not done.stderr
