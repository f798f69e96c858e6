"""Checks of output formats: whether there are answers of a form, as a model's tokenizer finds out.

They have a thread of their own: a hostile form takes its time, and those behind it wait for the one library that reads
them, which must not be in the threads that make everybody's prompts.

They know nothing of models or of forms. The invariant: what was found good is good at once, whatever is being checked.
"""

from __future__ import annotations

from collections import OrderedDict

from .output_format import OutputFormat
from .threads import Threads
from .tokenizer import FormatChecker

__all__ = ["FormatChecks"]

_KEPT = 64
"""Forms found good, each of `MAX_CHARACTERS` at most."""


class FormatChecks:
    def __init__(self) -> None:
        self._threads = Threads(1, "formats")
        self._good: OrderedDict[tuple[int, OutputFormat], FormatChecker] = OrderedDict()
        """By identity of the tokenizer, which is kept, so that no other one has it."""

    async def check(self, tokenizer: FormatChecker, format: OutputFormat) -> None:
        """Errors: `BadSchema`."""
        key = id(tokenizer), format
        if key not in self._good:
            await self._threads.run(lambda: tokenizer.check_format(format))
            self._good[key] = tokenizer
            if len(self._good) > _KEPT:
                self._good.popitem(last=False)
        self._good.move_to_end(key)
