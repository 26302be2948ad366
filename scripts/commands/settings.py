"""Settings: shown, agreed to; and the configuration of the user's own ssh."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import plain_text
from scripts.configuration import declared, reading, trust
from scripts.errors import UsageError
from scripts.machine import audit, console
from scripts.run import sandboxes
from scripts.run.work import work_with
from scripts.settings import env_file, host
from scripts.workspace import protected

if TYPE_CHECKING:
    from scripts.configuration.consented import Written

log = logging.getLogger("nddt")


def ssh_config(*, installed: bool, yes: bool, verbose: bool) -> None:
    """Write the file that leads the user's own ssh to every sandbox, and print its line."""
    from scripts.commands import guests  # noqa: PLC0415  (only for this)

    console.set_up_logging(verbose=verbose)
    loaded = reading.from_here()
    audit.about(loaded)
    environ = loaded.process_environment
    protected.tell_of_changes(environ, loaded.directory)
    line = guests.include(guests.write_configuration(environ, Path(__file__).parents[2] / "nddt"))
    print(line)
    if not installed:
        log.info("put this line first into ~/.ssh/config, or let --install do it")
        return
    console.confirm(
        "Make this line the first one of ~/.ssh/config?",
        yes=yes,
        otherwise="put it there yourself, or agree with --yes",
    )
    if not guests.install(line, environ):
        log.info("it is there already")


def trust_project(*, revoked: bool, yes: bool, dry: bool) -> None:
    """Print what the project's .env file would widen, and let it after consent, or no longer."""
    console.set_up_logging(verbose=False)
    if reading.has_no_project_file(reading.environ_here()):
        raise UsageError("NDDT_ENV_FILE is empty: no .env file of a project's counts", "unset it")
    path, environ = reading.project_file_here()
    if not dry:
        protected.tell_of_changes(environ, path.parent)
    if revoked:
        if not dry and trust.revoke(environ, path):
            audit.note(file=str(path), consent="revoked")
            audit.about(reading.from_here())
        return
    file = env_file.read_env_file(path)
    if file is None:
        raise UsageError(f"there is no {path}", "cd to the project that has one")
    written = reading.written(environ, file)
    for one in written:
        print(_shown(one))
    if trust.is_agreed(environ, file):
        log.info("%s is agreed to already", path)
        return
    for doubt in filter(None, (file.doubts(), path.is_symlink() and "is a link")):
        log.warning("%s %s", path, doubt)
    more = sum(one.needs_consent for one in written)
    question = f"Let all of {path} count, as long as it stays exactly as it is? Of its settings "
    question += f"and variables, {more} give a sandbox more than you do."
    if not dry:
        console.confirm(question, yes=yes, otherwise="agree with --yes")
        trust.agree_to_env_file(environ, file)
        audit.note(file=str(path), sha256=file.digest, consent="given")
        audit.about(reading.from_here())


_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|AUTH|CREDENTIALS?)$")
"""Ends of the names of secrets; in the middle of one, it can be an address or a program."""
_OPAQUE = re.compile(r"[\w.:+/=~@%-]*", re.ASCII)
"""What a secret consists of; what has spaces or quotes can be a command, and is shown."""


def _shown(one: Written) -> str:
    """Write a line of somebody else's file for a terminal, without its secrets.

    Letters beyond ASCII are written as escapes: some look like others.
    """
    is_setting = {item["variable"]: not item["secret"] for item in declared.declared()}
    is_secret = _SECRET.search(one.name.upper()) is not None and "://" not in one.value
    is_secret = is_secret and _OPAQUE.fullmatch(one.value) is not None
    value = host.without_password(one.value)
    value = value if is_setting.get(one.name, not is_secret) else "***"
    text = f"{one.name}={value}"
    text = text if text.isascii() and text.isprintable() else ascii(text)
    return f"{text}  # line {one.line}{'' if one.needs_consent else ', counts as it is'}"


def show_settings(*, profile: str | None, about_security: bool, dry: bool = False) -> None:
    """Print every setting, its value and where it comes from, or what a sandbox may do."""
    console.set_up_logging(verbose=False)
    loaded = reading.from_here(profile=profile)
    if not dry:
        protected.tell_of_changes(loaded.process_environment, loaded.directory)
    if about_security:
        from scripts.commands import posture  # noqa: PLC0415  (only for this)

        work = work_with(loaded, loaded.provider)
        print(console.table(posture.rows(work.settings, sandboxes.excess(work))))
        return
    for item in declared.declared():
        value = declared.value(loaded, item)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if isinstance(value, bool):
            shown = shown.lower()
        if item["secret"] and value:
            shown = "***"
        line = f"{item['variable']}={shown}  # {loaded.sources[item['variable']]}"
        print(plain_text.one_line(line))
