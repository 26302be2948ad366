"""Daytona's API: one client for a command, a deadline for every call, what comes of a refusal.

The client is the generated one of Daytona's SDK, without the rest of it: that would take four
times as long to import, and reads .env files of the directory that it is used in. Versions
0.190.0, which servers of that version need, and 0.226.1 have all that is used here.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from concurrent.futures import Future
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from scripts.errors import CredentialsError
from scripts.providers.daytona import explanations
from scripts.providers.daytona.refusal import Refusal
from scripts.providers.daytona.settings import DaytonaSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daytona_api_client.api.sandbox_api import SandboxApi
    from daytona_api_client.api.snapshots_api import SnapshotsApi
    from daytona_api_client.api_client import ApiClient

    from scripts.settings.fields import Settings

T = TypeVar("T")
log = logging.getLogger("nddt")

ANSWER_S = 30
"""Seconds in which a question must be answered, with all attempts."""
CONNECTIONS = 250
"""How many are kept open; the SDK keeps as many."""
LIMITED_S = 30
"""How long we wait for a limiter to let us through."""
_making = Lock()


class Api:
    """Calls to one account.

    Raises:
        CredentialsError: There is no key.
    """

    def __init__(self, settings: Settings) -> None:
        self.own = settings.of(DaytonaSettings)
        if not self.own.api_key:
            raise CredentialsError(
                "DAYTONA_API_KEY is not set",
                f"make a key at {explanations.KEYS} and put it into ~/.config/nddt/.env or the "
                "environment",
            )
        self.settings = settings
        usual = settings.process_environment.get("DAYTONA_TARGET")  # the SDK's own variable
        self.region = self.own.region or usual or None
        """Where new things are to be; None means the organization's default."""
        with _making:
            self.client = _client(self.own.api_url, self.own.api_key)

    @property
    def sandboxes(self) -> SandboxApi:
        """What can be done with sandboxes, each a call's `function`."""
        from daytona_api_client.api.sandbox_api import SandboxApi  # noqa: PLC0415  (250 ms)

        return SandboxApi(self.client)

    @property
    def snapshots(self) -> SnapshotsApi:
        """What can be done with snapshots, likewise."""
        from daytona_api_client.api.snapshots_api import SnapshotsApi  # noqa: PLC0415  (200 ms)

        return SnapshotsApi(self.client)

    def call(
        self,
        doing: str,
        function: Callable[..., T],
        *args: Any,  # noqa: ANN401  (the function's)
        within_s: float = ANSWER_S,
        repeat: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> T:
        """Call a function of the client, again if that makes sense.

        Args:
            doing: What it is for: `create a sandbox`.
            function: Of the client.
            args: Its arguments.
            within_s: Seconds after which it has failed.
            repeat: Whether it may be called again when it is unknown what has become of it.
            options: More of its arguments.

        Raises:
            Refusal: It has failed.
        """
        began = time.monotonic()
        deadline = began + within_s
        attempt = 0
        while True:
            left_s = max(0.1, deadline - time.monotonic())
            try:
                return _within(left_s, function, *args, **options)
            except Exception as error:  # noqa: BLE001  (the client raises of many kinds)
                failed = Refusal.of(error, doing)
            pause_s = failed.pause_s(attempt, repeat=repeat)
            limit = min(deadline, began + LIMITED_S) if failed.status == 429 else deadline
            if pause_s is None or time.monotonic() + pause_s > limit:
                raise failed
            log.debug("Daytona: %s; again in %.1f s", failed, pause_s)
            time.sleep(pause_s)
            attempt += 1

    @contextlib.contextmanager
    def explained(self, scope: str = "") -> Iterator[None]:
        """Turn a Refusal into a failure that the user can do something about.

        Args:
            scope: The permission that the key needs for this.
        """
        try:
            yield
        except Refusal as error:
            raise explanations.explain(error, self.settings, scope) from error


@functools.cache
def _client(url: str, key: str) -> ApiClient:
    """Make the one client of a command: several threads may use it, as its connections can be.

    It says of itself what the SDK says.
    """
    from importlib.metadata import version  # noqa: PLC0415

    from daytona_api_client.api_client import ApiClient  # noqa: PLC0415  (150 ms)
    from daytona_api_client.configuration import Configuration  # noqa: PLC0415

    configuration = Configuration(host=url)
    configuration.connection_pool_maxsize = CONNECTIONS
    client = ApiClient(configuration)
    client.user_agent = f"sdk-python/{version('daytona')}"
    client.default_headers |= {
        "Authorization": f"Bearer {key}",
        "X-Daytona-Source": "sdk-python",
        "X-Daytona-SDK-Version": version("daytona"),
    }
    return client


def _within(seconds: float, function: Callable[..., T], *args: Any, **options: Any) -> T:  # noqa: ANN401
    """Call a function in a thread that nobody waits for any longer.

    A time limit of the client's is one of each attempt and each packet. A signal ends our wait
    at once.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function(*args, **options))
        except BaseException as error:  # noqa: BLE001  (it belongs to whoever waits)
            future.set_exception(error)

    Thread(target=work, daemon=True).start()
    return future.result(seconds)


# -- failures -------------------------------------------------------------------------------
