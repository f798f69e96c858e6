"""What is told of a call that no plan answers: exact places of its variables, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

from parrot_compat.integrations.langchain import ChatParrot, planning
from parrot_compat.integrations.langchain.provenance import Formatted, hints_of
from parrot_compat.integrations.remote import Endpoint
from parrot_compat.integrations.servers import is_ours

from ..other_server import OtherServer
from .apps import ONE, P, S, human
from .plan_server import PlanServer


def values(prompt: Any, **inputs: Any) -> list[tuple[str, str]]:
    """(name, text at the place that is told) for every place."""
    value = prompt.invoke(inputs)
    messages = [{"content": message.content} for message in value.to_messages()]
    told = hints_of([Formatted(prompt, inputs, value)], messages).get("inputs", [])
    return [(one["name"], messages[one["message"]]["content"][one["start"] : one["end"]]) for one in told]


@pytest.mark.parametrize(
    ("prompt", "inputs", "expected"),
    [
        (P("You are {a}. {a}! {b}"), {"a": "☃", "b": "x"}, [("a", "☃"), ("a", "☃"), ("b", "x")]),
        (P("{a}-{b}").partial(b="PB"), {"a": "A"}, [("a", "A"), ("b", "PB")]),
        (PromptTemplate.from_template("<{a}>"), {"a": ""}, [("a", "")]),
        (P("docs {d}"), {"d": ["x\n", 1]}, [("d", "['x\\n', 1]")]),
        (human("U {{ y }} {% if z %}!{% endif %}", "jinja2"), {"y": "Y", "z": 1}, [("y", "Y")]),
        (human("U {{ y|upper }}", "jinja2"), {"y": "Y"}, []),
        (human("U {{{y}}}", "mustache"), {"y": "<b>"}, [("y", "<b>")]),
        (human("U {{y}}", "mustache"), {"y": "<b>"}, []),
        (P("{n:>5}"), {"n": 3}, []),
        (P("{a} {now}").partial(now=lambda: "now"), {"a": "A"}, []),
        (
            ChatPromptTemplate.from_messages([("system", "s {a}"), MessagesPlaceholder("h"), ("human", "{q}")]),
            {"a": "A", "h": [HumanMessage("old")], "q": "Q"},
            [("a", "A"), ("q", "Q")],
        ),
    ],
)
def test_a_place_holds_its_value_or_is_not_told(prompt: Any, inputs: Any, expected: Any) -> None:
    assert values(prompt, **inputs) == expected


def test_nothing_is_told_of_messages_that_the_prompt_did_not_make() -> None:
    prompt = P("A {x}")
    made = Formatted(prompt, ONE, prompt.invoke(ONE))
    assert hints_of([made], [{"content": "A q, edited"}]) == {}


def single(server: PlanServer) -> Runnable[Any, Any]:
    return P("A {x}") | ChatParrot(base_url=server.url) | S


def test_places_are_told_to_our_server_and_the_answer_does_not_show_it(server: PlanServer) -> None:
    endpoint = Endpoint(base_url=server.url, api_key="none")
    single(server).invoke(ONE)
    assert server.until(lambda: is_ours(endpoint)), "the server was not asked what it can"
    with planning(False):
        plain = (P("A {x}") | ChatParrot(base_url=server.url)).invoke(ONE)
    answer = (P("A {x}") | ChatParrot(base_url=server.url)).invoke(ONE)
    hints = server.asked()[-1]["parrot"]
    assert hints["inputs"] == [{"name": "x", "message": 0, "start": 2, "end": 3}]
    assert hints["v"] == 1 and hints["function"]
    assert "parrot" not in server.asked()[-2], "planning is off: nothing is told"
    assert answer.content == plain.content
    assert set(answer.response_metadata) == set(plain.response_metadata)
    streamed = list((P("A {x}") | ChatParrot(base_url=server.url)).stream(ONE))
    assert "inputs" in server.asked()[-1]["parrot"]
    assert not any("parrot" in chunk.response_metadata for chunk in streamed)


async def test_prompts_that_come_together_are_told_as_one_group(server: PlanServer) -> None:
    llm = ChatParrot(base_url=server.url)
    list(single(server).batch([ONE, ONE]))  # from here on the server is known
    prompts: Any = ["a", "b", "c"]
    many = [[HumanMessage(text)] for text in prompts]
    for ask in (lambda: llm.batch(prompts), lambda: llm.generate(many)):
        ask()
        stages = [body["parrot"]["stage"] for body in server.asked()[-3:]]
        assert len({stage["group"] for stage in stages}) == 1
        assert {(stage["kind"], stage["size"]) for stage in stages} == {("map", 3)}
    for coroutine in (llm.abatch(prompts), llm.agenerate(many)):
        await coroutine
        assert len({body["parrot"]["stage"]["group"] for body in server.asked()[-3:]}) == 1


def test_an_object_of_the_apps_own_is_left_as_it_is(server: PlanServer) -> None:
    own = {"v": 1, "function": "mine"}
    llm = ChatParrot(base_url=server.url, extra_body={"parrot": own})
    answer = (P("A {x}") | llm).invoke(ONE)
    assert server.asked()[-1]["parrot"] == own
    assert answer.response_metadata["parrot"]["call"]


def test_another_server_is_asked_once_and_told_nothing(other: OtherServer) -> None:
    llm = ChatParrot(base_url=other.url)
    for _ in range(3):
        (RunnableLambda(lambda text: text) | P("A {x}") | llm).invoke("q")
    llm.batch(["a", "b"])
    assert not any("parrot" in request.body for request in other.requests)
