"""What there is to set for Daytona alone."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.settings import parsing
from scripts.settings.declaring import variable
from scripts.settings.orders import limit, never

HOSTED = "https://app.daytona.io/api"
SIZE = (2, 4, 8)
"""CPUs, memory and disk in GiB where nobody sets them."""


@dataclass(frozen=True, kw_only=True)
class DaytonaSettings:
    """The account, and how long sandboxes stay."""

    disk_gib: int = variable(
        "NDDT_DISK",
        parsing.optional_count,
        "",
        f"Disk of a Daytona sandbox in GiB; empty means {SIZE[2]}.",
        order=limit(unset=SIZE[2], why="it costs"),
    )
    idle_minutes: int = variable(
        "NDDT_IDLE_MINUTES",
        parsing.count,
        "60",
        "Minutes after which Daytona stops an unused persistent sandbox; 0 means never.",
        order=limit(why="what runs costs"),
    )
    delete_after_hours: int = variable(
        "NDDT_DELETE_AFTER_HOURS",
        parsing.count,
        "168",
        "Hours after which Daytona deletes a stopped persistent sandbox; 0 means never.",
        order=never("later costs more, and sooner takes what the user left in it"),
    )
    snapshot: str = variable(
        "NDDT_DAYTONA_SNAPSHOT",
        parsing.like(parsing.SNAPSHOT, "the name of a snapshot"),
        "",
        "Ready-made Daytona snapshot to use in place of one that nddt builds.",
        order=never("it runs with the user's credentials"),
    )
    api_key: str = variable(
        "DAYTONA_API_KEY",
        parsing.text,
        "",
        "Key of your Daytona account.",
        secret=True,
        order=never("the account is the user's choice"),
    )
    api_url: str = variable(
        "DAYTONA_API_URL",
        parsing.url,
        HOSTED,
        "Address of Daytona's API.",
        order=never("the key and the directory are sent there"),
    )
    region: str = variable(
        "DAYTONA_REGION",
        parsing.text,
        "",
        "Daytona region, such as us or eu; empty means your organization's default.",
        order=never("the directory is sent there"),
    )
    organization: str = variable(
        "DAYTONA_ORGANIZATION_ID",
        parsing.text,
        "",
        "Daytona organization that the key must belong to; empty means any.",
        order=never("the account is the user's choice"),
    )
