"""Apps that bring a framework along: structured answers, decisions, classic chains, graphs and agents."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from operator import attrgetter, itemgetter
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_classic.chains import LLMChain
from langchain_classic.chains.combine_documents.map_reduce import MapReduceDocumentsChain
from langchain_classic.chains.combine_documents.reduce import ReduceDocumentsChain
from langchain_classic.chains.combine_documents.refine import RefineDocumentsChain
from langchain_classic.chains.combine_documents.stuff import StuffDocumentsChain
from langchain_core._api import LangChainDeprecationWarning
from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import Runnable, RunnableBranch, RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel, field_validator

from parrot_compat.integrations.langchain import ChatParrot, copy_only

from .apps import ONE, App, P, S

T = PromptTemplate.from_template


# ---- structured answers ------------------------------------------------------------------------------------


class Home(BaseModel):
    city: str


class Person(BaseModel):
    name: str
    age: int
    home: Home


class Shouted(Person):
    @field_validator("name")
    @classmethod
    def _shout(cls, name: str) -> str:
        return name.upper()


FORM = Person.model_json_schema()


def structured(pick: Any, schema: Any = FORM, **how: Any) -> Callable[[ChatParrot], Runnable[Any, Any]]:
    def make(llm: ChatParrot) -> Runnable[Any, Any]:
        return P("JSON {x}") | llm.with_structured_output(schema, **how) | pick | P("then {name}") | llm | S

    return make


@copy_only
def copied(person: Any) -> dict[str, Any]:
    return {"name": person["name"]}


NAME = itemgetter("name")

STRUCTURED = {
    "a member": App(structured(NAME), ONE),
    "an object into a prompt": App(structured(RunnablePassthrough()), ONE),
    "a member of a member": App(structured(RunnableLambda(itemgetter("home")) | itemgetter("city")), ONE),
    "a field": App(structured(RunnableLambda(attrgetter("name")), Person), ONE),
    "a field of a field": App(structured(RunnableLambda(attrgetter("home.city")), Person), ONE),
    "a member beside the raw answer": App(
        structured(RunnableLambda(itemgetter("parsed")) | NAME, include_raw=True), ONE
    ),
    "members side by side": App(structured(RunnableParallel(name=NAME, home=itemgetter("home"))), ONE),
    "a number": App(structured(RunnableLambda(itemgetter("age"))), ONE, 2),
    "a field that code reads": App(structured(lambda person: person.name, Person), ONE, 2),
    "a field that its class changes": App(structured(RunnableLambda(attrgetter("name")), Shouted), ONE, 2),
    "a member that may be missing": App(structured(NAME, {**FORM, "required": ["age", "home"]}), ONE, 2),
    "an object into a declared function": App(structured(RunnableLambda(copied)), ONE, 2),
    "JSON without a schema": App(structured(NAME, method="json_mode"), ONE, 2),
}


# ---- decisions ---------------------------------------------------------------------------------------------


def decided(wanted: str) -> Callable[[ChatParrot], Runnable[Any, Any]]:
    def make(llm: ChatParrot) -> Runnable[Any, Any]:
        yes, no = P("yes {y}") | llm | S, P("no {y}") | llm | S
        branch = RunnableBranch((lambda text: wanted in text, yes), no)
        return P("class {x}") | llm | S | branch | P("after {y}") | llm | S | P("last {y}") | llm | S

    return make


DECIDED = {
    "taken, then more": App(decided("ans"), ONE, 1),
    "not taken, then more": App(decided("no such text"), ONE, 1),
}


# ---- classic chains ----------------------------------------------------------------------------------------

PAGES = [Document(page_content=f"page {number}", metadata={"source": f"s{number}"}) for number in range(4)]
READ = {"input_documents": PAGES, "question": "why"}


def quiet(make: Callable[[ChatParrot], Any]) -> Callable[[ChatParrot], Any]:
    """These classes say at every use that they are old."""

    def silently(llm: ChatParrot) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LangChainDeprecationWarning)
            return make(llm.model_copy(update={"max_tokens": 30, "custom_get_token_ids": None}))

    return silently


def stuff(llm: ChatParrot, **more: Any) -> StuffDocumentsChain:
    chain = LLMChain(llm=llm, prompt=T("all of {pages}, for {question}"))
    return StuffDocumentsChain(llm_chain=chain, document_variable_name="pages", **more)


def map_reduce(llm: ChatParrot, token_max: int = 3000, **more: Any) -> MapReduceDocumentsChain:
    each = LLMChain(llm=llm, prompt=T("one {page}, for {question}"))
    reduce = ReduceDocumentsChain(combine_documents_chain=stuff(llm), token_max=token_max)
    return MapReduceDocumentsChain(llm_chain=each, reduce_documents_chain=reduce, document_variable_name="page", **more)


def refine(llm: ChatParrot, **more: Any) -> RefineDocumentsChain:
    return RefineDocumentsChain(
        initial_llm_chain=LLMChain(llm=llm, prompt=T("begin {page}")),
        refine_llm_chain=LLMChain(llm=llm, prompt=T("so far {before}; now {page}")),
        document_variable_name="page",
        initial_response_name="before",
        document_prompt=T("{source}: {page_content}"),
        **more,
    )


CLASSIC = {
    "map_reduce": App(quiet(map_reduce), READ),
    "map_reduce with its steps": App(quiet(lambda llm: map_reduce(llm, return_intermediate_steps=True)), READ),
    "map_reduce that has to collapse": App(quiet(lambda llm: map_reduce(llm, token_max=100)), READ, 3),
    "map_reduce that might have to collapse": App(quiet(lambda llm: map_reduce(llm, token_max=145)), READ, 1),
    "map_reduce without a reduce of its own": App(
        quiet(
            lambda llm: MapReduceDocumentsChain(
                llm_chain=LLMChain(llm=llm, prompt=T("one {page}")),
                reduce_documents_chain=stuff(llm, document_separator=" / "),
                document_variable_name="page",
            )
        ),
        READ,
    ),
    "refine": App(quiet(refine), {"input_documents": PAGES}),
    "refine with its steps": App(
        quiet(lambda llm: refine(llm, return_intermediate_steps=True)), {"input_documents": PAGES}
    ),
    "stuff": App(quiet(stuff), READ, 1),
    "LLMChain, piped": App(
        quiet(lambda llm: LLMChain(llm=llm, prompt=T("A {x}")) | itemgetter("text") | P("B {y}") | llm | S), ONE
    ),
    "refine, piped": App(
        quiet(lambda llm: refine(llm) | itemgetter("output_text") | P("B {y}") | llm | S), {"input_documents": PAGES}
    ),
}


# ---- graphs and agents -------------------------------------------------------------------------------------


class State(TypedDict, total=False):
    x: str
    drafts: Annotated[list[str], operator.add]
    text: str


def chain_in_a_node(llm: ChatParrot) -> Any:
    chain = P("A {x}") | llm | S | P("B {y}") | llm | S

    def write(state: State) -> State:
        return {"text": chain.invoke({"x": state["x"]})}

    def check(state: State) -> State:
        return {"text": (P("check {text}") | llm | S).invoke({"text": state["text"]})}

    graph = StateGraph(State).add_node("write", write).add_node("check", check)
    return graph.add_edge(START, "write").add_edge("write", "check").add_edge("check", END).compile()


def fan_out(llm: ChatParrot) -> Any:
    one = P("draft {x}") | llm | S

    def draft(state: State) -> State:
        return {"drafts": [one.invoke({"x": state["x"]})]}

    def join(state: State) -> State:
        return {"text": (P("join {drafts}") | llm | S).invoke({"drafts": " / ".join(sorted(state["drafts"]))})}

    graph = StateGraph(State).add_node("draft", draft).add_node("join", join)
    graph.add_conditional_edges(START, lambda state: [Send("draft", {"x": f"{state['x']}{n}"}) for n in range(3)])
    return graph.add_edge("draft", "join").add_edge("join", END).compile()


def decides(llm: ChatParrot) -> Any:
    def write(state: State) -> State:
        return {"text": (P("write {x}") | llm | S).invoke({"x": state["x"]}), "drafts": ["one"]}

    def again(state: State) -> str:
        return END if len(state["drafts"]) > 2 else "write"

    graph = StateGraph(State).add_node("write", write).add_edge(START, "write")
    return graph.add_conditional_edges("write", again, ["write", END]).compile()


@tool
def look_up(word: str) -> str:
    """What a word means."""
    return f"found {word}"


HELLO = {"messages": [("human", "what is a parrot?")]}


def agent(llm: ChatParrot) -> Any:
    return create_agent(llm, [look_up], system_prompt="be brief")


def agent_in_a_chain(llm: ChatParrot) -> Runnable[Any, Any]:
    return agent(llm) | RunnableLambda(lambda state: state["messages"][-1].text) | P("B {y}") | llm | S


GRAPHS = {
    "a chain in a node": App(chain_in_a_node, ONE, 1),
    "a fan-out": App(fan_out, ONE, 4),
    "a loop": App(decides, ONE, 3),
    "an agent with a tool": App(agent, HELLO, 2),
    "an agent in a chain": App(agent_in_a_chain, HELLO, 3, streams=False),
    "a graph as a step": App(
        lambda llm: chain_in_a_node(llm) | itemgetter("text") | P("C {y}") | llm | S | P("D {y}") | llm | S,
        ONE,
        1,
        streams=False,  # a graph streams what each of its nodes says, not its state
    ),
}

FRAMEWORK_APPS: dict[str, App] = {
    **{f"structured: {name}": app for name, app in STRUCTURED.items()},
    **{f"branch: {name}": app for name, app in DECIDED.items()},
    **{f"classic: {name}": app for name, app in CLASSIC.items()},
    **{f"graph: {name}": app for name, app in GRAPHS.items()},
}
