"""What a call of a semantic function gives: its variables, as fields.

The invariant: the fields are the outputs of the function's template, no more and no fewer.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from parrot_compat.core.call import ObjectiveKind
from parrot_compat.core.errors import BadTemplate

from .variable import Variable

__all__ = ["Outputs"]


class Outputs:
    """`made.code` is the variable of `{{output:code}}`. A subclass says the names to type checkers and editors:

    >>> class Code(Outputs):
    ...     code: Variable
    """

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self._variables = dict(variables)

    def get(self, *, objective: ObjectiveKind | None = None, timeout_s: float | None = None) -> dict[str, str]:
        """All texts, by name. Errors: as `Variable.get`, of the first that fails."""
        return {
            name: variable.get(objective=objective, timeout_s=timeout_s) for name, variable in self._variables.items()
        }

    async def aget(self, *, objective: ObjectiveKind | None = None, timeout_s: float | None = None) -> dict[str, str]:
        waits = (variable.aget(objective=objective, timeout_s=timeout_s) for variable in self._variables.values())
        return dict(zip(self._variables, await asyncio.gather(*waits), strict=True))

    def items(self) -> Iterable[tuple[str, Variable]]:
        return self._variables.items()

    def __getattr__(self, name: str) -> Variable:
        variables: dict[str, Variable] = self.__dict__.get("_variables", {})
        if name not in variables:
            raise AttributeError(f"there is no output {name!r}; the outputs are {', '.join(variables)}")
        return variables[name]

    def __iter__(self) -> Iterator[Variable]:
        """The variables, in the template's order: `joke, why = tell(…)`."""
        return iter(self._variables.values())

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self))})"

    def __format__(self, spec: str) -> str:
        raise TypeError(f"{self!r} is no text: pass one of its variables to a function, or read it with get()")

    @classmethod
    def check(cls, names: tuple[str, ...]) -> None:
        """These are outputs that it can have. Errors: `BadTemplate`."""
        if taken := [name for name in names if hasattr(Outputs, name)]:
            raise BadTemplate(f"an output cannot be called {taken[0]!r}: that is a method of Outputs", "template")
        declared = _declared(cls)
        if declared and declared != set(names):
            raise BadTemplate(
                f"{cls.__name__} has the fields {', '.join(sorted(declared))}, the template has the outputs "
                f"{', '.join(sorted(names))}",
                "template",
            )


def _declared(kind: type[Any]) -> set[str]:
    # by name only: what an annotation means may be known to type checkers alone
    return {name for each in kind.__mro__ for name in inspect.get_annotations(each) if not name.startswith("_")}
