"""Calls that are found ahead: they are numbered, held to what one request should carry, and only where nothing of the
app's own stands between."""

from __future__ import annotations

from typing import Any

import pytest

from parrot_compat.integrations.plans.drafting import (
    MAX_CALLS,
    MAX_CHARACTERS,
    Drafting,
    PlanTooLarge,
    answers_as_ours,
    map_stage,
)
from parrot_compat.integrations.remote import Endpoint

ENDPOINT = Endpoint(base_url="http://127.0.0.1:1/v1", api_key="key")


def add(drafting: Drafting, text: str) -> int:
    made: Any = drafting.referring({"messages": [{"role": "user", "content": text}]})
    return drafting.add(ENDPOINT, *made, function="f", stage=map_stage("g", 0, 1))


def test_a_call_reads_those_that_were_found_before_it() -> None:
    drafting = Drafting()
    first = add(drafting, "a")
    second = add(drafting, f"b {drafting.markers.text(first)}")
    assert (first, second) == (0, 1)
    calls = [draft.call for draft in drafting.found]
    assert [call.reads for call in calls] == [(), (calls[0].id,)]
    assert calls[0].stage == {"kind": "map", "group": "g", "index": 0, "size": 1}


def test_a_plan_ends_at_as_many_calls_as_one_request_should_carry() -> None:
    drafting = Drafting()
    for number in range(MAX_CALLS):
        assert add(drafting, "a") == number
    with pytest.raises(PlanTooLarge):
        add(drafting, "a")
    assert len(drafting.found) == MAX_CALLS


def test_a_plan_ends_at_as_much_text_as_one_request_should_carry() -> None:
    drafting = Drafting()
    add(drafting, "a" * MAX_CHARACTERS)
    with pytest.raises(PlanTooLarge):
        add(drafting, "a")
    assert len(drafting.found) == 1


def test_a_model_with_code_of_the_apps_own_is_asked_itself() -> None:
    class Ours:
        def ask(self) -> None: ...

    Ours.ask.__module__ = "parrot_compat.somewhere"

    class Theirs(Ours):
        def other(self) -> None: ...

    class Loud(Ours):
        def ask(self) -> None: ...

    assert answers_as_ours(Theirs, ("ask",), "framework")
    assert not answers_as_ours(Theirs, ("ask", "other"), "framework")
    assert not answers_as_ours(Loud, ("ask",), "framework")
    assert answers_as_ours(Loud, ("ask",), __name__.partition(".")[0])
