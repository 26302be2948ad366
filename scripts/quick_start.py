"""The start of `./nddt`: invoke without two modules that cost more than half of its start.

`import invoke` takes 90 ms here. 21 of them go to unittest.mock, for a class that only tests
use, and 34 to importlib.metadata, for invoke's own version. While it is imported, stand-ins
take their places.
"""

from __future__ import annotations

import gc
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from scripts import naming
from scripts.errors import EndedBySignalError

if TYPE_CHECKING:
    from collections.abc import Sequence


def _stand_in(name: str, **content: object) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content)
    return sys.modules.setdefault(name, module)


def main(argv: Sequence[str], typed: str = naming.PROGRAM) -> None:
    """Run tasks; see `cli.main`."""
    try:
        _main(argv, typed)
    except RuntimeError as error:
        # What a signal raises while a class is made, Python before 3.12 hides in this.
        hidden = error.__cause__
        if isinstance(hidden, KeyboardInterrupt):
            sys.exit(130)
        if isinstance(hidden, EndedBySignalError):
            sys.exit(hidden.exit_code)
        raise


def _main(argv: Sequence[str], typed: str) -> None:
    if argv[:1] == ["--pipe"]:  # see guests.py; invoke has no business there
        from scripts.commands import guests  # noqa: PLC0415

        guests.main(argv[1:])
    # Imports make much that stays, and looking through it again and again takes 5 ms.
    gc.set_threshold(50_000)
    stand_ins = (
        _stand_in("unittest.mock", Mock=None),
        _stand_in("importlib.metadata", version=lambda name: f"of {name} unknown"),
    )
    from scripts import cli  # noqa: PLC0415  (it imports invoke)

    for module in stand_ins:
        # Whoever wants the real one from here on gets it.
        if getattr(module, "__spec__", None) is None:
            del sys.modules[module.__name__]
    cli.main(argv, typed)
