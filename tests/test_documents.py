"""README and what it leads to: links, tasks, settings, and each command that is written there."""

from __future__ import annotations

import re
import shlex
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from invoke.exceptions import Exit

import tasks
from scripts.brings import ports
from scripts.cli import program as cli_program
from scripts.configuration.declared import declared
from scripts.dev import rooms, settings_page
from tests.test_tasks import ROOT, TASKS, VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scripts.command_line import Known

DECLARED = {item["variable"]: item for item in declared()}
DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
    *sorted(str(one.relative_to(ROOT)) for one in ROOT.glob("docs/*.md")),
)
MOST_IN_README = 250
"""Lines: a newcomer reads all of it."""
PROGRAMS = {"./nddt", "nddt", "inv"}
LANGUAGES = {"sh", "console", "make", "ini", ""}
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

each_document = pytest.mark.parametrize("name", DOCUMENTS)


@cache
def document(name: str) -> str:
    """Read a document."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> Iterator[tuple[str, str]]:
    """Find a document's blocks of code, each with its language."""
    for found in _BLOCK.finditer(document(name)):
        yield found[1], found[2]


def prose(name: str) -> str:
    """Read a document without its blocks of code."""
    return _BLOCK.sub("", document(name))


# -- links ----------------------------------------------------------------------------------


@each_document
def test_links(name: str) -> None:
    """Lead to files that exist and to headings that are there."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (ROOT / name).parent / unquote(parts.path) if parts.path else ROOT / name
        assert target.resolve().is_relative_to(ROOT), link
        assert target.exists(), link
        if parts.fragment:
            assert parts.fragment in _anchors(target.read_text(encoding="utf-8")), link


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def test_readme_leads_to_each_page() -> None:
    """One that is linked nowhere is not found; nor is README long."""
    text = document("README.md")

    assert [name for name in DOCUMENTS if f"]({name}" not in text] == ["README.md"]
    assert len(text.splitlines()) <= MOST_IN_README


def test_contributing_has_each_room() -> None:
    """In the order of `rooms.LEVELS`, the highest first."""
    table = document("CONTRIBUTING.md").partition("| Room |")[2].partition("\n\n")[0]
    rows = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines()[2:]]

    assert list(map(set, rows)) == list(map(set, reversed(rooms.LEVELS)))


@each_document
def test_files_exist(name: str) -> None:
    """Those of the repository that are named, but for ones that are to be written."""
    named = re.findall(r"`((?:scripts|tests|dockerfiles)/[\w./*-]+)", document(name))

    assert [one for one in named if "NAME" not in one and not any(ROOT.glob(one))] == []


# -- tasks and settings ---------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_the_page_of_tasks_has_it(name: str) -> None:
    """In its table; README's has those that follow NDDT_PROVIDER, but for parts of a group."""
    pages = ["docs/tasks.md"] if "." in name else ["docs/tasks.md", "README.md"]
    if name == "bench":
        pages.remove("README.md")
    for page in pages:
        cells = " ".join(re.findall(r"^\| *(.*?) *\|", document(page), re.MULTILINE))
        assert f"`{name}`" in cells, page


@pytest.mark.parametrize("variable", DECLARED)
def test_the_page_of_settings_has_it(variable: str) -> None:
    """In its table, with its default."""
    text = document(settings_page.PAGE)
    found = re.search(rf"^\| *`{variable}` *\|(.*)$", text, re.MULTILINE)

    assert found
    default = DECLARED[variable]["default"]
    assert not default or f"`{default}`" in found[1].replace("`, `", ",")


def test_the_page_of_settings_is_as_the_code_has_it(tmp_path: Path) -> None:
    """A page that is not is noticed, and written anew."""
    page = tmp_path / settings_page.PAGE
    page.parent.mkdir()
    page.write_text(document(settings_page.PAGE).replace("`30000`", "`1`"), encoding="utf-8")

    assert settings_page.is_true(ROOT)
    assert not settings_page.is_true(tmp_path)
    settings_page.write(tmp_path)
    assert page.read_text(encoding="utf-8") == document(settings_page.PAGE)


@each_document
def test_no_other_settings(name: str) -> None:
    """One that is gone, or is misspelt, helps nobody."""
    assert set(re.findall(VARIABLE, document(name))) <= {*DECLARED, ports.MAP}


# -- commands -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _keep_help_texts() -> Iterator[None]:
    """Bring back what invoke takes out of a task when it reads its options (invoke 3.0)."""
    before = [(one, dict(one.help)) for one in TASKS.values()]
    yield
    for one, texts in before:
        one.help = texts


def _simple_commands(text: str) -> Iterator[tuple[str, ...]]:
    """Split shell text into the words of its simple commands, `$(…)` among them."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&$")
    lexer.whitespace_split = True
    words: list[str] = []
    for one in lexer:
        if set(one) <= set("();|&$"):
            yield tuple(words)
            words = []
        else:
            words.append(one)
    yield tuple(words)


def _of_nddt(words: tuple[str, ...]) -> tuple[str, ...] | None:
    """Take the variables before a command and where its output goes away; None if it is no nddt."""
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    redirected = next((i for i, one in enumerate(words) if set(one) <= set("<>")), None)
    return words[1:redirected] if words and words[0] in PROGRAMS else None


def _lines(language: str, text: str) -> Iterator[str]:
    """Find the lines that somebody types."""
    for line in text.replace("\\\n", " ").splitlines():
        if language in {"sh", "make"} or (language == "console" and line.startswith("$ ")):
            yield line.removeprefix("$ ")


def commands(name: str) -> list[tuple[str, ...]]:
    """Find the words after each `nddt` in a document, in its blocks and in its sentences."""
    typed = [line for block in blocks(name) for line in _lines(*block)]
    # A prompt may have what is no shell text only in quotes.
    spans = re.findall(r"`([^`\n]+)`", prose(name))
    typed += [one for one in spans if one.split()[0] in PROGRAMS and len(one.split()) > 1]
    found = (_of_nddt(words) for line in typed for words in _simple_commands(line))
    return [one for one in found if one is not None]


def parse(words: tuple[str, ...]) -> str:
    """Have our program parse a command line, and read what it does not understand."""
    program = cli_program._NddtProgram("0", name="nddt", binary="nddt", namespace=tasks.ns)
    try:
        program.create_config()
        program.parse_core(["nddt", *("run" if one == "TASK" else one for one in words)])
        program.parse_collection()
        program.parse_tasks()
    except Exit as error:
        return "" if error.code == 0 else str(error.message)
    return ""


def known() -> Known:
    """List what can be typed."""
    program = cli_program._NddtProgram("0", name="nddt", binary="nddt", namespace=tasks.ns)
    program.create_config()
    program.parse_core(["nddt"])
    program.parse_collection()
    before = [(one, dict(one.help)) for one in TASKS.values()]  # see _keep_help_texts
    program.parser = program._make_parser()
    for one, texts in before:
        one.help = texts
    return program._known()


@each_document
def test_blocks_say_what_they_are(name: str) -> None:
    """Else the commands in them are not looked at."""
    assert {language for language, _ in blocks(name)} <= LANGUAGES
    bare = "".join(text for language, text in blocks(name) if language in {"", "ini"})
    assert not any(line.split()[:1] == ["./nddt"] for line in bare.splitlines())


@each_document
def test_commands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Are understood by the program itself: tasks and options are there."""
    for words in commands(name):
        assert parse(words) == "", shlex.join(words)
    capsys.readouterr()


def test_commands_are_found() -> None:
    """However they stand there."""
    assert ("run", "--yes", "--demo", "--prompt", "Say hello") in commands("README.md")
    assert ("-p", "Review this") in commands("README.md")
    assert ("docker.create-sandbox",) in commands("docs/tasks.md")
    assert ("run", "--prompt", "Review this") in commands("docs/teams.md")
    assert sum(len(commands(name)) for name in DOCUMENTS) > 100


@pytest.mark.parametrize(
    "line",
    [
        *("nddt run --promt x", "./nddt docker.cleenup --yes", "x=$(nddt shell --comand y)"),
        *("nddt netwrok", "A=b nddt cp one", "git diff | nddt run --prompt"),
    ],
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    """An option or a task that is not there, or what either lacks."""
    (words,) = (one for one in map(_of_nddt, _simple_commands(line)) if one is not None)

    assert "see: " in parse(words) or "did you mean" in parse(words)
