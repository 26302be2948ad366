"""Where nddt meets invoke."""

from scripts.cli.program import main as main
from scripts.cli.tasks import NddtTask as NddtTask
from scripts.cli.tasks import OwnTask as OwnTask
from scripts.cli.tasks import lazy as lazy
from scripts.cli.tasks import remainder as remainder
from scripts.cli.tasks import task as task
