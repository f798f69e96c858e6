"""What the server tells whoever started it: how far it is, that it stops, why it does not start.

It knows the terminal and the log, nothing of servers. A person at a terminal sees one line that moves. Elsewhere a
collector of logs reads, and what has no date and no level, or is cut at 80 columns, is of no use to it.

The invariant: where standard error is no terminal, whatever is told is an entry of the log.
"""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.status import Status
from rich.text import Text

__all__ = ["Teller"]

_log = logging.getLogger(__package__)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # a service may begin without


class Teller:
    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False) if _is_terminal() else None
        self._status: Status | None = None

    def doing(self, step: str) -> None:
        """Until the next step, or `done`."""
        if self._console is None:
            _log.info("%s", step)
        elif self._status is None:
            self._status = self._console.status(Text(step))
            self._status.start()
        else:
            self._status.update(Text(step))

    def done(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def say(self, line: str, level: int = logging.INFO) -> None:
        """A person is told whatever the `level` is: who asks a log for less is spared what is not wrong."""
        if self._console is None:
            _log.log(level, "%s", line)
        else:
            self._console.print(Text(line), soft_wrap=True)

    def refuse(self, reason: str) -> None:
        """Why there is no server."""
        if self._console is None:
            _log.error("%s", reason)
        else:
            self._console.print(Text.assemble(("parrot: ", "bold red"), reason), soft_wrap=True)
