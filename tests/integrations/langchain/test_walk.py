"""The symbolic run by itself: what it finds, where it stops, and that it never does anything."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough

from parrot_compat.integrations.langchain import ChatParrot, copy_only
from parrot_compat.integrations.langchain.templates import uses_of
from parrot_compat.integrations.langchain.values import UNKNOWN, are_whole, call_answering, is_plain, stand_in
from parrot_compat.integrations.langchain.walk import Walk
from parrot_compat.integrations.plans.drafting import MAX_CALLS, PlanTooLarge
from parrot_compat.integrations.plans.markers import Markers

from .apps import APPS, P, S, human

LLM = ChatParrot(base_url="http://127.0.0.1:1/v1", model="m", temperature=0.5)


def planned(runnable: Any, value: Any) -> list[Any]:
    """Contents of the last messages of the calls found; a reference is the number of the call it reads."""
    walk = Walk()
    walk.walk(runnable, value)
    numbers = {draft.call.id: number for number, draft in enumerate(walk.drafts)}

    def said(content: Any) -> Any:
        if isinstance(content, str):
            return content
        return [part["text"] if part["type"] == "text" else numbers[part["call"]] for part in content]

    return [said(draft.call.request["messages"][-1]["content"]) for draft in walk.drafts]


def test_a_chain_reads_its_calls_by_reference() -> None:
    app = P("A {x}") | LLM | S | P("B {y}, {y}!") | LLM | S
    assert planned(app, {"x": "q"}) == ["A q", ["B ", 0, ", ", 0, "!"]]


def test_a_draft_is_the_models_own_request() -> None:
    walk = Walk()
    walk.walk(P("A {x}") | LLM.bind(stop=["z"], top_k=3), {"x": "q"})
    (draft,) = walk.drafts
    message = {"role": "user", "content": "A q"}
    assert draft.call.request == {"messages": [message], "model": "m", "temperature": 0.5, "top_k": 3, "stop": ["z"]}


def test_braces_in_values_stay_what_they_are() -> None:
    app = P("A {x}") | LLM | S | P("B {{literal}} {y}") | LLM
    assert planned(app, {"x": "{y} {{z}}"}) == ["A {y} {{z}}", ["B {literal} ", 0]]


@pytest.mark.parametrize(
    ("prompt", "copies"),
    [
        (P("{y}"), True),
        (P("{y!r}"), False),
        (P("{y:>9}"), False),
        (P("{y} {y!s}"), False),
        (human("{{ y }}", "jinja2"), True),
        (human("{% for d in ds %}{{ y }}{% else %}{{ y }}{% endfor %}", "jinja2"), True),
        (human("{{ y|trim }}", "jinja2"), False),
        (human("{{ y[0] }}", "jinja2"), False),
        (human("{{ y ~ 'a' }}", "jinja2"), False),
        (human("{% if y %}{{ y }}{% endif %}", "jinja2"), False),
        (human("{% filter upper %}{{ y }}{% endfilter %}", "jinja2"), False),
        (human("{% set z = y %}{{ z }}", "jinja2"), False),
        (human("{% macro m() %}{{ y }}{% endmacro %}{{ m() }}", "jinja2"), False),
        (human("{{{y}}}", "mustache"), True),
        (human("{{&y}}", "mustache"), True),
        (human("{{y}}", "mustache"), False),
        (human("{{{y.z}}}", "mustache"), False),
        (human("{{#y}}{{{y}}}{{/y}}", "mustache"), False),
        (ChatPromptTemplate.from_messages([("placeholder", "{y}")]), False),
    ],
)
def test_a_template_copies_a_variable_or_looks_at_it(prompt: ChatPromptTemplate, copies: bool) -> None:
    uses = uses_of(prompt)
    assert uses is not None
    assert uses.only_copies("y") is copies


@pytest.mark.parametrize("text", ["t", "", " a\n", "<b>&amp;", "{x} {{y}}", "{% if %}", "{{{z}}}", "\\n\u2028\x00☃"])
@pytest.mark.parametrize(
    "prompt", [P("<{y}|{y}>"), human("<{{ y }}|{{ y }}>", "jinja2"), human("<{{{y}}}|{{&y}}>", "mustache")]
)
def test_where_a_template_copies_a_reference_stands_for_every_text(prompt: ChatPromptTemplate, text: str) -> None:
    (_, parts) = planned(P("A {x}") | LLM | S | prompt | LLM, {"x": "q"})
    formatted = prompt.format_prompt(y=text).to_messages()[0].content
    assert "".join(text if part == 0 else part for part in parts) == formatted


class Own:
    def __str__(self) -> str:
        raise AssertionError("the app's code was run")

    __format__ = __str__  # type: ignore[assignment]


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda: RunnableLambda(lambda text: text), id="function"),
        pytest.param(lambda: RunnableLambda(itemgetter(0)), id="index into a text"),
        pytest.param(lambda: RunnablePassthrough(print), id="passthrough with a function"),
        pytest.param(lambda: P("{y} {now}").partial(now=lambda: "now"), id="partial function"),
        pytest.param(lambda: RunnableLambda(copy_only(lambda text: text[:20])), id="copy_only that cuts"),
        pytest.param(lambda: RunnableLambda(copy_only(lambda text: ", ".join(text))), id="copy_only that looks"),
        pytest.param(lambda: RunnableLambda(copy_only(lambda text: 1 / 0)), id="copy_only that fails"),
        pytest.param(lambda: (lambda text: {"y": [text]}) | P("{y}"), id="container into text"),
        pytest.param(lambda: RunnableParallel(y=copy_only(lambda text: [text])) | P("{y}"), id="list into text"),
    ],
)
def test_an_opaque_step_stops_what_comes_after_it(step: Callable[[], Any]) -> None:
    app = P("A {x}") | LLM | S | step() | LLM | S | P("B {y}") | LLM
    assert planned(app, {"x": "q"}) == ["A q"]


def test_values_of_a_class_of_ones_own_are_not_formatted() -> None:
    assert planned(P("A {x}") | LLM, {"x": Own()}) == []
    assert planned(P("A {x}") | LLM, {"x": [Own()]}) == []
    assert planned(P("A {x}") | LLM, {"x": "q", "other": Own()}) == ["A q"]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("a", True),
        ([1, 2.0, None, {"a": (True, b"")}], True),
        (HumanMessage("a"), True),
        (Document(page_content="a", metadata={"n": 1}), True),
        (Own(), False),
        ({"a": Own()}, False),
        ({Own(): 1}, False),
        (type("Text", (str,), {})("a"), False),
        (type("Said", (HumanMessage,), {"__module__": "app"})("a"), False),
        (Document(page_content="a", metadata={"n": Own()}), False),
    ],
)
def test_plain_data_runs_no_code_of_the_apps(value: Any, plain: bool) -> None:
    assert is_plain(value) is plain


def test_a_message_goes_where_messages_go_and_not_into_text() -> None:
    prompt = ChatPromptTemplate.from_messages([("placeholder", "{past}"), ("human", "{q}")])
    first = P("A {x}") | LLM
    assert planned(
        RunnableParallel(past=first | copy_only(lambda m: [m]), q=itemgetter("x")) | prompt | LLM, {"x": "q"}
    )
    assert planned(first | P("B {y}") | LLM, {"x": "q"}) == ["A q"]


def test_a_call_that_other_servers_text_is_in_is_not_planned() -> None:
    elsewhere = ChatParrot(base_url="http://127.0.0.1:2/v1")
    app = P("A {x}") | LLM | S | P("B {y}") | elsewhere | S | P("C {z}") | LLM
    assert planned(app, {"x": "q"}) == ["A q"]


def test_calls_with_tools_are_planned_and_what_they_return_is_not_known() -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    app = P("A {x}") | LLM.bind_tools([add]) | S | P("B {y}") | LLM
    assert planned(app, {"x": "q"}) == ["A q"]


def test_an_input_that_the_prompt_does_not_take_is_left_to_the_app() -> None:
    assert planned(P("A {x} {y}") | LLM, {"x": "q"}) == []
    assert planned(P("A {x} {y}") | LLM, "q") == []
    assert planned(P("A {x}") | LLM, "q") == ["A q"]


def test_a_text_goes_straight_into_a_model() -> None:
    assert planned(PromptTemplate.from_template("A {x}") | LLM | S | LLM, {"x": "q"}) == ["A q", [0]]


def test_a_subclass_of_a_known_runnable_is_opaque() -> None:
    class Loud(ChatPromptTemplate):
        pass

    prompt = Loud.from_messages([("human", "A {x}")])
    assert planned(prompt | LLM, {"x": "q"}) == []


def test_more_than_one_request_should_carry_is_not_planned() -> None:
    each = (P("{x}") | LLM).map()
    with pytest.raises(PlanTooLarge):
        Walk().walk(each, [{"x": str(n)} for n in range(MAX_CALLS + 1)])


def test_coverage_says_where_planning_may_resume() -> None:
    opaque = RunnableLambda(lambda text: text)
    sequence = P("A {x}") | LLM | S | opaque | P("B {y}") | LLM
    walk = Walk()
    assert walk.walk(sequence, {"x": "q"}) is UNKNOWN
    assert [walk.covers(sequence, step) for step in range(6)] == [True, True, True, False, False, False]
    assert not walk.covers(APPS["chain"].make(LLM))


def test_behind_an_opaque_member_planning_resumes_with_the_first_step_that_reads_on() -> None:
    opaque = RunnablePassthrough.assign(docs=RunnableLambda(lambda value: value))
    draft = RunnablePassthrough.assign(draft=P("A {docs}") | LLM | S)
    title = RunnablePassthrough.assign(title=P("B {x}") | LLM | S)
    for sequence, drafts, covered in (
        (opaque | draft | P("C {draft}") | LLM, 0, [True, False, False, False]),
        (opaque | title | draft | title, 2, [True] * 4),
        (opaque | title | draft | P("C {draft}") | LLM, 1, [True, True, False, False, False]),
    ):
        walk = Walk()
        walk.walk(sequence, {"x": "q"})
        assert len(walk.drafts) == drafts
        assert [walk.covers(sequence, step) for step in range(len(covered))] == covered


def test_markers_are_found_wherever_a_value_holds_text() -> None:
    markers, other = Markers(), Markers()
    marker = markers.text(3)
    for value in (marker, ["a", {"b": marker}], AIMessage(f"so: {marker}")):
        assert stand_in(value, markers) and are_whole(value, markers)
        assert not stand_in(value, other) and not are_whole(value, other)
    assert not are_whole([{"b": marker[:-1]}], markers)


def test_only_the_whole_message_of_a_call_is_its_answer() -> None:
    markers = Markers()
    assert call_answering(AIMessage(markers.text(3)), markers) == 3
    assert call_answering(AIMessage(f"so: {markers.text(3)}"), markers) is None
    assert call_answering(markers.text(3), markers) is None


def test_one_server_is_one_server_whatever_the_patience_of_its_models() -> None:
    hasty = ChatParrot(base_url="http://127.0.0.1:1/v1", timeout=3, max_retries=0)
    app = P("A {x}") | LLM | S | P("B {y}") | hasty | S | P("C {z}") | LLM
    assert planned(app, {"x": "q"}) == ["A q", ["B ", 0], ["C ", 1]]
    stranger = ChatParrot(base_url="http://127.0.0.1:1/v1", api_key="another")
    assert planned(P("A {x}") | LLM | S | P("B {y}") | stranger, {"x": "q"}) == ["A q"]
