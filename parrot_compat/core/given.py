"""Given: the variables of a session that are written from outside, not by its calls.

It knows nothing of calls beyond that one may be going to write a variable.

The invariant: what is refused changes nothing, and what is made is counted in what the session keeps.
"""

from __future__ import annotations

from .admission import Admission
from .dataflow import Dataflow
from .errors import ParrotError
from .kept import VARIABLE_BYTES, Kept, size_of_text
from .variable import Variable

__all__ = ["Given"]


class Given:
    def __init__(self, dataflow: Dataflow, kept: Kept, admission: Admission) -> None:
        self._dataflow = dataflow
        self._kept = kept
        self._admission = admission

    def declare(self, name: str) -> Variable:
        """Errors: `CallerError` for its name, `SessionFull`."""
        self._take(name, 0)
        return self._dataflow.declare(name)

    def set(self, name: str, text: str) -> Variable:
        """Errors: those of `declare`, `AlreadySettled`."""
        self._dataflow.must_be_free(name)
        self._take(name, size_of_text(text))
        return self._dataflow.set(name, text)

    def fail(self, name: str, cause: ParrotError) -> Variable:
        """Errors: as `set`."""
        self._dataflow.must_be_free(name)
        self._take(name, 0)
        return self._dataflow.fail(name, cause)

    def _take(self, name: str, size: int) -> None:
        """So much is going to be kept of the variable beside itself. Errors: those of `declare`."""
        self._admission.check_name("variable", name)
        if name not in self._dataflow.variables:
            size += VARIABLE_BYTES
        if size:
            self._kept.let_in(size)
            self._kept.add(size)
