"""What LlamaIndex's OpenAI classes are constructed with, as the fields of ours.

It knows names only. The invariant: an argument is used, sent to the server, warned about or refused; none is dropped
in silence.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

from parrot_compat.integrations.given import without_nones

__all__ = ["field_arguments"]

SYNONYMS = {"api_base": "base_url", "max_completion_tokens": "max_tokens", "model_name": "model"}
WRITTEN_BESIDE = "class_name"
"""LlamaIndex adds it to the fields when it writes an instance down."""


def field_arguments(
    given: Mapping[str, Any], fields: Mapping[str, Any], sent: Collection[str], owner: str
) -> dict[str, Any]:
    """Arguments under the names of `fields`, which have their annotations. Those in `sent` go into `additional_kwargs`,
    and so into the request; `None` for a field that has no such value is no argument."""
    arguments = without_nones(given, fields)
    request = dict(arguments.get("additional_kwargs") or {})
    for name in sorted(set(arguments) - set(fields) - {WRITTEN_BESIDE}):
        value, field = arguments.pop(name), SYNONYMS.get(name, name)
        if value is None:
            continue
        if field in fields:
            if arguments.get(field) not in (None, value):
                raise ValueError(f"{name!r} and {field!r} are one argument: give one of them")
            arguments[field] = value
        elif name in sent:
            if name in request:
                raise ValueError(f"{name!r} is given twice: as an argument and in additional_kwargs")
            request[name] = value
        else:
            warnings.warn(
                f"{name!r} has no effect on {owner}; a parameter of the request goes into additional_kwargs",
                stacklevel=2,
            )
    return {**arguments, "additional_kwargs": request} if request else arguments
