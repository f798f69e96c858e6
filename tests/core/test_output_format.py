"""Output formats: what is too large to be read is refused where it is made."""

from __future__ import annotations

import pytest

from parrot_compat.core.errors import BadSchema
from parrot_compat.core.output_format import MAX_CHARACTERS, AnyJson, JsonSchema, ToolCalls, size_of

LARGE = {"type": "object", "description": "x" * MAX_CHARACTERS}


def test_a_schema_that_nobody_would_read_is_not_even_made() -> None:
    with pytest.raises(BadSchema, match=f"at most {MAX_CHARACTERS} are read"):
        JsonSchema.of(LARGE)
    fitting = LARGE | {"description": "x" * 65_000}
    assert size_of(JsonSchema.of(fitting)) <= MAX_CHARACTERS


def test_schemas_of_tools_that_need_not_be_held_to_may_be_large_until_they_are_loosened() -> None:
    tools = ToolCalls.of([("write", LARGE)], "hermes", True, is_required=False, answer=AnyJson())
    with pytest.raises(BadSchema):
        size_of(tools)
    loosened = tools.loosened()
    assert loosened is not None and size_of(loosened) < 100
