"""Every expected failure: what happened, its exit code and the next step.

The codes are those of sysexits(3); an agent's own exit code is never changed.
"""

from __future__ import annotations

import re
import signal

from scripts.plain_text import one_line, printable


class NddtError(Exception):
    """An expected failure that the user can do something about.

    Names of files and answers of a sandbox are in it: its text does nothing to a terminal, and no
    name makes a line that looks like ours.

    Args:
        message: What happened, in one line.
        next_step: What to do about it, in one line; empty if the message says it.
        detail: Lines of somebody else's output that explain it, shown above the message.
    """

    exit_code = 1
    is_final = False
    """Whether trying again is of no use, even where a connection is at stake."""

    def __init__(self, message: str, next_step: str = "", *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.detail = detail

    def __str__(self) -> str:
        said = printable(self.detail.rstrip())
        parts = [re.sub(r"^(?=nddt:)", "  ", said, flags=re.MULTILINE)] if said else []
        step = f" — {self.next_step}" if self.next_step else ""
        parts.append(one_line(f"nddt: {self.message}{step}"))
        return "\n".join(parts)


class UsageError(NddtError):
    """The command line asks for something that makes no sense."""

    exit_code = 64


class DataError(NddtError):
    """Input, or a file the user named, is not usable."""

    exit_code = 65


class UnavailableError(NddtError):
    """The provider, or a program it needs, is not there."""

    exit_code = 69


class DiskFullError(NddtError):
    """A sandbox has filled a disk of this machine, and what filled it was ended."""

    exit_code = 73


class CannotCreateError(NddtError):
    """An image or a sandbox could not be made."""

    exit_code = 73


class NoImageError(CannotCreateError):
    """There is no such image yet: it has to be built first."""


class TransportLostError(NddtError):
    """The connection to the sandbox broke."""

    exit_code = 74


class NotReachedError(TransportLostError):
    """The sandbox was not reached in the first place."""


class TryAgainError(NddtError):
    """It may work later: a quota, a rate limit, a busy name."""

    exit_code = 75


class PortTakenError(TransportLostError):
    """Somebody else listens on a port of this machine that was to lead to the sandbox's."""


class CredentialsError(NddtError):
    """A key or token is missing or was refused."""

    exit_code = 77


class ConfigError(NddtError):
    """A setting has a value that is not allowed."""

    exit_code = 78


class TimeLimitError(NddtError):
    """The run took longer than its time limit."""

    exit_code = 124


class EndedBySignalError(BaseException):
    """A signal ended the run.

    Like KeyboardInterrupt it is no Exception, so that nobody takes it for a failed attempt.

    Args:
        signum: The signal; the exit code is 128 + signum.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"nddt: ended by signal {signum}")
        self.exit_code = 128 + signum


class TimeIsUpError(EndedBySignalError):
    """The time limit of what is being done is over, which `signals.limited` makes an NddtError."""

    def __init__(self) -> None:
        super().__init__(signal.SIGALRM)
        self.exit_code = TimeLimitError.exit_code
