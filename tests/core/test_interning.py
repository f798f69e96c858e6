"""Interning: what was there before stands in for what says exactly the same, and for nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_compat.core.call import Call, CallId, Reading, Sampling, VariableName
from parrot_compat.core.errors import UnknownVariable
from parrot_compat.core.interning import Held, Interning
from parrot_compat.core.output_format import JsonSchema
from parrot_compat.core.prompt import ChatPrompt, Constant, Input, Message, Prompt, TextPrompt
from parrot_compat.core.transform import Truncate

from .conftest import World, make_call

LONG = "what is said at length " * 100


def parsed(value: Any) -> Any:
    """As a request brings it: nothing in it is what another request has brought."""
    return json.loads(json.dumps(value))


def tool(name: str = "write", **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **parameters}}}


def history(turns: int) -> ChatPrompt:
    messages = [Message("system", (Constant(parsed(LONG)),))]
    for turn in range(turns):
        messages.append(Message("user", (Constant(parsed(f"step {turn}")), Input("page", (Truncate(9),)))))
        messages.append(Message("assistant", None, parsed({"tool_calls": [{"id": f"c{turn}", "arguments": "{}"}]})))
    return ChatPrompt(tuple(messages), tuple(parsed([tool("read"), tool("write")])), parsed({"thinking": True}))


def call(prompt: Prompt, id: str = "c", **more: Any) -> Call:
    return Call(id=CallId(id), prompt=prompt, output=VariableName(f"out-{id}"), **more)


def interned(held: Held, *calls: Call) -> list[Call]:
    interning = Interning(held)
    made = [interning.call(each) for each in calls]
    interning.hold()
    return made


def test_a_history_that_has_grown_shares_all_that_was_there_before() -> None:
    held: Held = {}
    before, after = (interned(held, call(history(turns)))[0].prompt for turns in (5, 6))
    assert isinstance(before, ChatPrompt) and isinstance(after, ChatPrompt)
    assert after == history(6)
    assert all(one is other for one, other in zip(before.messages, after.messages, strict=False))
    assert all(one is other for one, other in zip(before.tools, after.tools, strict=True))
    assert after.template is before.template


def test_long_texts_are_shared_wherever_they_stand() -> None:
    held: Held = {}
    asked, told = interned(
        held,
        call(TextPrompt((Constant(parsed(LONG)), Input("x")))),
        call(ChatPrompt((Message("user", (Constant("read:"), Constant(parsed(LONG)))),))),
    )
    assert isinstance(asked.prompt, TextPrompt) and isinstance(told.prompt, ChatPrompt)
    (message,) = told.prompt.messages
    assert message.content is not None and message.content[1] is asked.prompt.segments[0]


def test_forms_and_the_schemas_of_arguments_are_shared() -> None:
    one, other = (
        call(
            TextPrompt(()),
            sampling=Sampling(format=JsonSchema.of(parsed({"type": "object"})), seed=seed),
            reading=Reading(schemas=parsed({"write": {"type": "object"}}), is_first=bool(seed)),
        )
        for seed in (0, 1)
    )
    before, after = interned({}, one, other)
    assert (before, after) == (one, other)
    assert after.sampling.format is before.sampling.format and after.reading.schemas is before.reading.schemas


def test_the_choices_of_a_request_have_one_prompt_afterwards_too() -> None:
    prompt = history(2)
    choices = interned({}, *(call(prompt, f"c{n}") for n in range(3)))
    assert len({id(choice.prompt) for choice in choices}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"n": 1}, {"n": True}),
        ({"n": 1}, {"n": 1.0}),
        ({"n": 0.0}, {"n": -0.0}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"n": [1]}, {"n": (1,)}),
        ({"n": {1: 2}}, {"n": {True: 2}}),
    ],
)
def test_what_is_alike_to_python_and_not_to_a_chat_template_stays_apart(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    held: Held = {}
    for value in (one, other):
        prompt = ChatPrompt((Message("user", (Constant("x"),), value),), (value,), value)
        (made,) = interned(held, call(prompt))
        assert repr(made.prompt) == repr(prompt)


def test_what_no_request_can_bring_stays_as_it_is() -> None:
    class Special(str):
        pass

    for odd in (object(), Special("text")):
        prompt = ChatPrompt((Message("user", (Constant("x"),), {"odd": odd}),), ({"odd": odd},))
        for made in interned({}, call(prompt), call(prompt)):
            assert isinstance(made.prompt, ChatPrompt)
            assert made.prompt.tools[0]["odd"] is odd and made.prompt.messages[0].fields["odd"] is odd


plain = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, -0.0, 1.0, float("nan")]) | st.text("ab")
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner))
fields = st.dictionaries(st.sampled_from("abc"), values, max_size=3)
segments = st.builds(Constant, st.sampled_from(["", "a", LONG])) | st.builds(Input, st.sampled_from("xy"))
messages = st.builds(Message, st.sampled_from("us"), st.none() | st.lists(segments, max_size=2).map(tuple), fields)
prompts = st.builds(
    ChatPrompt, st.lists(messages, max_size=3).map(tuple), st.lists(fields, max_size=3).map(tuple), fields
)


@given(st.lists(prompts, max_size=6))
def test_an_interned_prompt_says_exactly_what_was_given(several: list[ChatPrompt]) -> None:
    held: Held = {}
    for prompt in several:
        (made,) = interned(held, call(prompt))
        assert repr(made.prompt) == repr(prompt)


async def test_of_calls_that_are_refused_nothing_is_held(world: World) -> None:
    world.engine()
    session = world.manager.open_session()
    refused, accepted = parsed(LONG), parsed(LONG)
    with pytest.raises(UnknownVariable):
        await session.submit(make_call("a", refused, "nobody"))
    for id, text in (("a", accepted), ("b", parsed(LONG))):
        prompt = (await session.submit(make_call(id, text))).call.prompt
        assert isinstance(prompt, TextPrompt) and isinstance(prompt.segments[0], Constant)
        assert prompt.segments[0].text is accepted
    session.check()
