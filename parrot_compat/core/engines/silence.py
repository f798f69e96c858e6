"""Silence: when a child that was asked for something, and says nothing, is taken for stuck.

A child that computes is slow and not stuck: a step of 512 tokens of a large model takes minutes on a busy CPU. So while
it uses a processor it may be silent `SLOWER` times as long; not for ever, since a thread that waits for a hung device
may use one, too.

Looks are counted, not seconds: who was suspended, frozen or without a processor himself has not been waiting.

It knows nothing of what is asked, of clocks or of how a child is ended. The invariant: a child that nobody has asked
for anything, or that has spoken since the look before, is never stuck.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["LOOKS", "SLOWER", "Silence", "processor_s"]

LOOKS = 8
"""In the time that a child may be silent."""
SLOWER = 5
_LEAST_SHARE = 0.01
"""Of one processor, between two looks: threads that only wait use less, and a child that computes gets more."""


class Silence:
    def __init__(self, longest_s: float) -> None:
        self.look_s = longest_s / LOOKS
        """So long after one look comes the next."""
        self._heard = 0
        self._used_s: float | None = None
        self._silent = 0
        self._still = 0
        """Looks that have found it so: silent; silent and not computing."""

    def is_too_long(self, *, is_asked: bool, heard: int, used_s: float | None) -> bool:
        """One look. `heard`: what it has said so far, counted. `used_s`: its processor time. Where nobody tells that
        (`None`) it may be computing."""
        before, self._used_s = self._used_s, used_s
        if not is_asked or heard != self._heard:
            self._heard, self._silent, self._still = heard, 0, 0
            return False
        computes = before is None or used_s is None or used_s - before > _LEAST_SHARE * self.look_s
        self._silent += 1
        self._still = 0 if computes else self._still + 1
        return self._still >= LOOKS or self._silent >= SLOWER * LOOKS


def processor_s(pid: int) -> float | None:
    """Processor time of all threads of a process, from its start; `None` where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime: `man proc_pid_stat`
    except (OSError, ValueError, IndexError):
        return None
