"""What a new sandbox is asked without any connection of ours: a program's answer."""

from __future__ import annotations

import re
import shlex
import time
from typing import TYPE_CHECKING, Any

from scripts import naming
from scripts.contracts.sandbox import Specification
from scripts.errors import CannotCreateError
from scripts.providers.daytona.api import Api
from scripts.providers.daytona.creation import lasting_for
from scripts.sandbox_places import USER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daytona_toolbox_api_client.api.process_api import ProcessApi
    from daytona_toolbox_api_client.models.execute_response import ExecuteResponse

    from scripts.contracts.sandbox import Sandbox
    from scripts.settings.fields import Settings

PROGRAM_S = 60
"""How long a program may take."""


def answer(settings: Settings, image: str, words: Sequence[str]) -> str:
    """Ask a program for what it says.

    Raises:
        CannotCreateError: It failed.
    """
    code, said = _said(settings, image, words, {})
    if code != 0:
        raise CannotCreateError(f"{image} did not answer: {_last_line(said)}", "see --verbose")
    return said


def version(
    settings: Settings, image: str, words: Sequence[str], variables: Mapping[str, str]
) -> str:
    """Ask npm, as `npm view PACKAGE version`, and read the latest of what it names."""
    code, said = _said(settings, image, words, variables)
    # Notices to the user are in it, too.
    versions = re.findall(r"^'?(\d+\.\d+\.\d+)'?$", said, re.MULTILINE)
    if code != 0 or not versions:
        raise CannotCreateError(
            f"npm does not know {words[2]}: {_last_line(said)}",
            f"check NDDT_{settings.agent.upper()}_VERSION",
        )
    return str(versions[-1])


def _said(
    settings: Settings, image: str, words: Sequence[str], variables: Mapping[str, str]
) -> tuple[int, str]:
    """Run a program in a new sandbox, which is removed.

    Returns:
        Its exit code and what it said, on stdout or stderr.
    """
    from daytona_toolbox_api_client.models.execute_request import ExecuteRequest  # noqa: PLC0415

    now = int(time.time())
    labels = naming.labels(owner=settings.owner, workspace="", mode="ephemeral", created=now, pid=0)
    want = Specification(
        name=f"nddt-lookup-{now}-{time.monotonic_ns() % 100000}",
        persistent=False,
        workspace=None,
        user=USER,
        labels=labels,
    )
    command = shlex.join(words)
    request = ExecuteRequest(command=command, envs=dict(variables), timeout=PROGRAM_S)
    api = Api(settings)
    with lasting_for(api, want, image) as made, api.explained():
        run = _daemon(api, made).execute_command
        said: ExecuteResponse = api.call(f"ask {words[0]}", run, request, within_s=PROGRAM_S + 10)
    return -1 if said.exit_code is None else said.exit_code, said.result or ""


def _last_line(said: str) -> str:
    """Cut what a program said to where the reason usually is."""
    return (said.strip() or "it said nothing").splitlines()[-1]


def _daemon(api: Api, made: Sandbox) -> ProcessApi:
    """Make a client of the platform's own daemon in a sandbox."""
    from daytona_toolbox_api_client.api.process_api import ProcessApi  # noqa: PLC0415
    from daytona_toolbox_api_client.api_client import ApiClient  # noqa: PLC0415
    from daytona_toolbox_api_client.configuration import Configuration  # noqa: PLC0415

    found: Any = made.handle
    client = ApiClient(Configuration(host=f"{found.toolbox_proxy_url}/{found.id}"))
    client.default_headers.update(api.client.default_headers)
    return ProcessApi(client)
