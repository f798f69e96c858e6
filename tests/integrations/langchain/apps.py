"""Apps of many shapes, for tests that run each of them with and without the planner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import CommaSeparatedListOutputParser, StrOutputParser
from langchain_core.prompts import (
    ChatPromptTemplate,
    FewShotPromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
)
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnableSequence,
)

from parrot_compat.integrations.langchain import ChatParrot, copy_only

P = ChatPromptTemplate.from_template
S = StrOutputParser()


@dataclass(frozen=True)
class App:
    """`direct`: calls of one invoke that cannot be planned, or not with others. `streams`: its pieces add up."""

    make: Callable[[ChatParrot], Runnable[Any, Any]]
    input: Any
    direct: int = 0
    streams: bool = True


@copy_only
def numbered(texts: list[str]) -> str:
    return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))


def human(template: str, language: str) -> ChatPromptTemplate:
    return ChatPromptTemplate.from_messages([("human", template)], template_format=language)  # type: ignore[arg-type]


def chain(llm: ChatParrot) -> Runnable[Any, Any]:
    return P("A {x}") | llm | S | P("B {y}") | llm | S | P("C {z}") | llm | S | P("D {w}") | llm | S


def assigned(llm: ChatParrot) -> Runnable[Any, Any]:
    draft = RunnablePassthrough.assign(draft=P("draft {x}") | llm | S)
    return draft.assign(critique=P("critique {draft}") | llm | S) | P("final {draft} {critique} {x}") | llm | S


def map_reduce(join: Any) -> Callable[[ChatParrot], Runnable[Any, Any]]:
    def make(llm: ChatParrot) -> Runnable[Any, Any]:
        sums = itemgetter("docs") | (P("sum {doc}") | llm | S).map()
        return {"sums": sums | join, "q": itemgetter("q")} | P("reduce {q}: {sums}") | llm | S

    return make


def conversation(llm: ChatParrot) -> Runnable[Any, Any]:
    prompt = ChatPromptTemplate.from_messages([("system", "be {tone}"), MessagesPlaceholder("past"), ("human", "{q}")])
    return RunnablePassthrough.assign(q=prompt | llm | S) | prompt | llm | S


def history(llm: ChatParrot) -> Runnable[Any, Any]:
    @copy_only
    def as_past(message: AIMessage) -> dict[str, Any]:
        return {"past": [HumanMessage("hello"), message, ("human", "and?")]}

    prompt = ChatPromptTemplate.from_messages([("system", "s"), MessagesPlaceholder("past"), ("human", "go on")])
    return P("A {x}") | llm | as_past | prompt | llm | S


def debate(llm: ChatParrot) -> Runnable[Any, Any]:
    pro, con = P("pro {x}") | llm | S, P("con {x}") | llm | S
    sides = RunnableParallel(pro=pro, con=con, x=itemgetter("x"))
    rebuttals = RunnableParallel(
        pro=P("answer {con} for {x}") | llm | S, con=P("answer {pro} against {x}") | llm | S, x=itemgetter("x")
    )
    return sides | rebuttals | P("judge {pro} and {con} on {x}") | llm | S


def nested(llm: ChatParrot) -> Runnable[Any, Any]:
    inner = RunnableSequence(P("in {x}"), llm, S, P("in two {x}"), llm, S)
    return RunnableParallel(a=inner, b=RunnablePassthrough()) | P("out {a} {b}") | llm | S


def branch(llm: ChatParrot) -> Runnable[Any, Any]:
    long = P("yes {y}") | llm | S | P("yes again {y}") | llm | S
    return P("class {x}") | llm | S | RunnableBranch((lambda text: "a" in text, long), P("no {y}") | llm | S)


def resumed(llm: ChatParrot) -> Runnable[Any, Any]:
    cut = RunnableLambda(lambda text: {"y": text[:6]})
    return P("A {x}") | llm | S | cut | P("B {y}") | llm | S | P("C {y}") | llm | S


def partly_opaque(llm: ChatParrot) -> Runnable[Any, Any]:
    opaque = P("a {x}") | llm | S | RunnableLambda(str.upper)
    clear = P("b {x}") | llm | S | P("b two {y}") | llm | S
    return RunnableParallel(a=opaque, b=clear) | P("{a} and {b}") | llm | S


def from_messages(llm: ChatParrot) -> Runnable[Any, Any]:
    made = RunnableLambda(lambda x: [SystemMessage("be brief"), HumanMessage(x)])
    return made | llm | S | P("B {y}") | llm | S | P("C {y}") | llm | S


def votes(llm: ChatParrot) -> Runnable[Any, Any]:
    sampled = P("answer {x}") | llm.bind(temperature=0.9, seed=None) | S
    return RunnableParallel({f"v{number}": sampled for number in range(5)}) | P("{v0} {v1} {v2} {v3} {v4}") | llm | S


def structured(llm: ChatParrot) -> Runnable[Any, Any]:
    listed = P("list {x}") | llm | CommaSeparatedListOutputParser()
    return listed | itemgetter(0) | P("first {y}") | llm | S | P("then {y}") | llm | S


def chosen(llm: ChatParrot) -> Runnable[Any, Any]:
    tunable = llm.configurable_fields(temperature=ConfigurableField(id="t"))
    return P("A {x}") | tunable | S | P("B {y}") | llm | S | P("C {y}") | llm | S


def calls_inside(llm: ChatParrot) -> Runnable[Any, Any]:
    inner = P("B {y}") | llm | S | P("C {y}") | llm | S
    return P("A {x}") | llm | S | RunnableLambda(lambda text: inner.invoke({"y": text}))


def returns_chain(llm: ChatParrot) -> Runnable[Any, Any]:
    inner = P("B {y}") | llm | S | P("C {y}") | llm | S
    return P("A {x}") | llm | S | RunnableLambda(lambda text: inner)


def few_shot(llm: ChatParrot) -> Runnable[Any, Any]:
    example = PromptTemplate.from_template("{i}->{o}")
    shots = FewShotPromptTemplate(
        examples=[{"i": "1", "o": "2"}], example_prompt=example, suffix="{x}->", input_variables=["x"]
    )
    return shots | llm | S | P("B {y}") | llm | S | P("C {y}") | llm | S


ONE = {"x": "q"}
DOCS = {"docs": [{"doc": letter} for letter in "abcde"], "q": "why"}

APPS: dict[str, App] = {
    "chain": App(chain, ONE),
    "assign": App(assigned, ONE),
    "map-reduce, opaque join": App(map_reduce(RunnableLambda(lambda texts: "\n".join(texts))), DOCS, direct=1),
    "map-reduce, declared join": App(map_reduce(RunnableLambda(numbered)), DOCS),
    "map-reduce, join of a separator": App(map_reduce(RunnableLambda("\n\n".join)), DOCS),
    "map-reduce, list into text": App(map_reduce(RunnablePassthrough()), DOCS, direct=1),
    "diamond": App(
        lambda llm: (
            RunnableParallel(a=P("pro {x}") | llm | S, b=P("con {x}") | llm | S) | P("weigh {a}, {b}") | llm | S
        ),
        ONE,
    ),
    "debate": App(debate, ONE),
    "pick": App(
        lambda llm: (
            RunnableParallel(a=P("a {x}") | llm | S, b=itemgetter("x"))
            | RunnablePassthrough.assign(c=P("c {a}") | llm | S).pick(["a", "c"])
            | P("{a} {c}")
            | llm
            | S
        ),
        ONE,
    ),
    "bind and config": App(
        lambda llm: (
            P("A {x}") | llm.bind(stop=["7"], max_tokens=9) | S | P("B {y}") | llm.with_config(run_name="named") | S
        ).with_config(tags=["t"], metadata={"k": "v"}),
        ONE,
    ),
    "fallbacks": App(
        lambda llm: (
            P("A {x}") | llm | S | (P("B {y}") | llm | S | P("C {y}") | llm | S).with_fallbacks([P("F {y}") | llm | S])
        ),
        ONE,
    ),
    "fallbacks of a text": App(
        lambda llm: ({"text": RunnablePassthrough()} | P("A {text}") | llm | S | P("B {y}") | llm | S).with_fallbacks(
            [P("F {y}") | llm | S]
        ),
        "one text",
    ),
    "fallbacks of an input": App(
        lambda llm: (
            RunnableLambda(lambda value: {"input": value["x"] * 2})
            | (P("A {input}") | llm | S).with_fallbacks([P("F {input}") | llm | S])
            | P("B {y}")
            | llm
            | S
        ),
        ONE,
    ),
    "opaque member": App(
        lambda llm: (
            RunnablePassthrough.assign(docs=RunnableLambda(lambda value: value["x"] * 2))
            | RunnablePassthrough.assign(draft=P("draft {docs} {x}") | llm | S)
            | RunnablePassthrough.assign(critique=P("critique {draft}") | llm | S)
            | P("final {draft} {critique}")
            | llm
            | S
        ),
        ONE,
    ),
    "retry": App(
        lambda llm: (P("A {x}") | llm | S | P("B {y}") | llm.with_retry(stop_after_attempt=2) | S).with_retry(), ONE
    ),
    "partials": App(
        lambda llm: P("{tone} {x}").partial(tone="kind") | llm | S | P("{t} {y}").partial(t="so") | llm | S, ONE
    ),
    "string prompts": App(
        lambda llm: PromptTemplate.from_template("A {x}") | llm | S | PromptTemplate.from_template("B {y}") | llm | S,
        ONE,
    ),
    "conversation": App(conversation, {"tone": "brief", "q": "why", "past": [("human", "hi"), ("ai", "hello")]}),
    "history": App(history, ONE),
    "nested": App(nested, ONE),
    "text into model": App(lambda llm: P("A {x}") | llm | S | llm | S, ONE),
    "branch": App(branch, ONE, direct=1),
    "resumed": App(resumed, ONE, direct=1),
    "partly opaque": App(partly_opaque, ONE, direct=1),
    "messages made by code": App(from_messages, "hello"),
    "votes": App(votes, ONE),
    "list parser": App(structured, ONE, direct=1),
    "configurable": App(chosen, ONE, direct=1),
    "chain called by code": App(calls_inside, ONE, direct=1),
    "chain returned by code": App(returns_chain, ONE, direct=1),
    "few shot": App(few_shot, ONE),
    "jinja2": App(
        lambda llm: P("A {x}") | llm | S | human("{% if 1 %}B {{ y }}{% endif %} {{ y }}", "jinja2") | llm | S, ONE
    ),
    "jinja2 filter": App(lambda llm: P("A {x}") | llm | S | human("B {{ y|upper }}", "jinja2") | llm | S, ONE, 2),
    "mustache": App(lambda llm: P("A {x}") | llm | S | human("B {{{y}}} {{& y}}", "mustache") | llm | S, ONE),
    "mustache escaping": App(lambda llm: P("A {x}") | llm | S | human("B {{y}}", "mustache") | llm | S, ONE, 2),
    "format spec": App(lambda llm: P("A {x}") | llm | S | P("B {y:>30}") | llm | S, ONE, 2),
    "message into text": App(lambda llm: P("A {x}") | llm | S | P("B {y!r}") | llm | S, ONE, 2),
    "one call": App(lambda llm: P("A {x}") | llm | S, ONE, 1),
    "two models of one server": App(
        lambda llm: P("A {x}") | llm | S | P("B {y}") | llm.model_copy(update={"timeout": 60.0, "temperature": 1}) | S,
        ONE,
    ),
    "messages out": App(lambda llm: P("A {x}") | llm | S | P("B {y}") | llm, ONE),
}
