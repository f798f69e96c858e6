"""How a log looks: that of the server and those of its engines, whose processes write to the same place.

It knows nothing of what is said in it.

The invariant: an entry begins with date, time, level and who says it; of other packages only what is wrong is said.
"""

from __future__ import annotations

import logging
import sys

__all__ = ["LEVELS", "set_level", "start_log"]

LEVELS = ("debug", "info", "warning", "error")


def start_log() -> None:
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.captureWarnings(True)  # of libraries: by themselves they have no date
    set_level("info")


def set_level(level: str) -> None:
    """One of `LEVELS`. Libraries are asked for no more than warnings: the rest is much, and may be keys."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger(__name__.partition(".")[0]).setLevel(number)
    logging.getLogger().setLevel(max(number, logging.WARNING))
