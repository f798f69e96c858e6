"""parrot_compat serves LLM applications, not requests.

The names below are loaded when they are first used: importing the package loads nothing, and what needs an extra
needs it only then.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parrot_compat.compose import embedded as embedded
    from parrot_compat.integrations.application.functions import semantic_function as semantic_function
    from parrot_compat.integrations.application.output import Output as Output
    from parrot_compat.integrations.application.outputs import Outputs as Outputs
    from parrot_compat.integrations.application.remote_host import connect as connect
    from parrot_compat.integrations.application.variable import Variable as Variable
    from parrot_compat.integrations.langchain.compile import compile as compile
    from parrot_compat.integrations.langchain.copying import copy_only as copy_only

__all__ = [
    "Output",
    "Outputs",
    "Variable",
    "__version__",
    "compile",
    "connect",
    "copy_only",
    "embedded",
    "semantic_function",
]

__version__ = "0.1.0"

_HOMES = {
    "Output": "integrations.application.output",
    "Outputs": "integrations.application.outputs",
    "Variable": "integrations.application.variable",
    "compile": "integrations.langchain.compile",
    "connect": "integrations.application.remote_host",
    "copy_only": "integrations.langchain.copying",
    "embedded": "compose",
    "semantic_function": "integrations.application.functions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found  # asked for once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
