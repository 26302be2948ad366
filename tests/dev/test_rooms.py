"""The order of the rooms, on a house of a test's own, and on this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.dev.rooms import LEVELS, House

ROOT = Path(__file__).parents[2]


def house(root: Path, **texts: str) -> House:
    """Build one with these modules: a room and a name, as `machine__git`."""
    (root / "tasks.py").write_text("")
    for name, text in texts.items():
        file = root / "scripts" / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return House(root)


@pytest.mark.parametrize(
    "text",
    [
        "from scripts.run import work\n",
        "def look():\n    from scripts.run.work import start\n",
        "if TYPE_CHECKING:\n    import scripts.run.work\n",
    ],
)
def test_an_import_upwards(tmp_path: Path, text: str) -> None:
    """Is found at any place, also one for types alone."""
    faults = house(tmp_path, machine__git=text, run__work="").faults()

    assert faults == ["scripts.machine.git imports scripts.run.work, which does not stand below it"]


def test_two_rooms_of_one_row(tmp_path: Path) -> None:
    """Do not know each other."""
    made = house(tmp_path, brings__gpg="from scripts.network import proxy\n", network__proxy="")

    assert made.wrong_ways() == ["scripts.brings.gpg imports scripts.network.proxy"]


def test_a_circle(tmp_path: Path) -> None:
    """Is none in a room either."""
    one = house(
        tmp_path, run__a="from scripts.run import b\n", run__b="from scripts.run.a import x\n"
    )

    assert one.faults() == ["a circle of imports: scripts.run.a → scripts.run.b → scripts.run.a"]


def test_what_is_too_long(tmp_path: Path) -> None:
    """A module, tasks.py, a function; one with a reason beside it is not."""
    body = "    x = 1\n" * 41
    made = house(
        tmp_path,
        machine__long="x = 1\n" * 351,
        machine__function=f"def f() -> None:\n{body}",
        machine__reason=f"def f() -> None:  # long: a table\n{body}",
        machine__docstring='def f() -> None:\n    """A."""\n' + "    x = 1\n" * 40,
    )
    (tmp_path / "tasks.py").write_text("x = 1\n" * 251)

    assert made.too_long() == [
        "scripts.machine.long has 351 lines; 350 are allowed",
        "tasks has 251 lines; 250 are allowed",
        "scripts.machine.function.f has 41 lines; 40 are allowed",
    ]


def test_this_house() -> None:
    """Has its rooms in order."""
    here = House(ROOT)

    assert here.wrong_ways() == []
    assert here.floors()


def test_so_few_rows_of_rooms() -> None:
    """Who looks for a line goes through twelve at most."""
    assert len(LEVELS) <= 12
    assert House(ROOT).faults() == []
    assert House(ROOT).too_long() == []
