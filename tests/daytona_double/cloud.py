"""The parts of one double, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.daytona_double import bodies
from tests.daytona_double.access import Token, Tokens
from tests.daytona_double.errors import iso
from tests.daytona_double.faults import Faults
from tests.daytona_double.listing import Index
from tests.daytona_double.sandboxes import Sandboxes
from tests.daytona_double.snapshots import Snapshots
from tests.daytona_double.tasks import Tasks

if TYPE_CHECKING:
    from tests.daytona_double.log import Log
    from tests.daytona_double.options import Options
    from tests.daytona_double.rows import Sandbox


class Cloud:
    """What the API and the gateway share.

    Attributes:
        port: The port of the API, once it listens.
        ssh_port: The port of the gateway, once it listens.
    """

    def __init__(self, options: Options, log: Log) -> None:
        self.options = options
        self.log = log
        self.faults = Faults()
        self.tasks = Tasks()
        self.tokens = Tokens()
        self.index = Index(options)
        self.snapshots = Snapshots(options, self.tasks)
        self.sandboxes = Sandboxes(options, self.snapshots, self.index, self.tasks)
        self.port = 0
        self.ssh_port = 0

    @property
    def origin(self) -> str:
        """The start of every URL here."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def _toolbox_url(self) -> str:
        return f"{self.origin}/toolbox"

    def sandbox_body(self, row: Sandbox) -> dict[str, Any]:
        """Give a sandbox as JSON."""
        return bodies.sandbox(row, self.options.version, self._toolbox_url)

    def list_item(self, row: Sandbox) -> dict[str, Any]:
        """Give a sandbox as JSON of a list."""
        return bodies.list_item(row, self.options.version, self._toolbox_url)

    def token_body(self, token: Token) -> dict[str, Any]:
        """Give an SSH token as JSON, with the command that uses it."""
        return {
            "id": token.id,
            "sandboxId": token.sandbox_id,
            "token": token.text,
            "expiresAt": iso(token.expires_at),
            "createdAt": iso(token.created_at),
            "updatedAt": iso(token.created_at),
            "sshCommand": f"ssh -p {self.ssh_port} {token.text}@127.0.0.1",
        }
