"""What goes wrong with a plan costs the plan: the app's answers, and its own failures, stay what they were."""

from __future__ import annotations

import gc
import json
import threading
from dataclasses import replace
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.response_synthesizers import TreeSummarize

from parrot_compat.integrations.errors import ParrotServerError
from parrot_compat.integrations.llamaindex import ParrotLLM, planning, records, stats
from parrot_compat.integrations.llamaindex.planner import planner
from tests.integrations.langchain.plan_server import GRAPHS, PlanServer

from .apps import APPS, App

TREE, REFINE = APPS[0], APPS[6]


def ask(app: App, url: str, *, streaming: bool = False) -> Any:
    return app.synthesizer(url, streaming=streaming).get_response("what?", app.texts)


def plain(app: App, server: PlanServer) -> str:
    with planning(False):
        answer = str(ask(app, server.url))
    server.forget()
    return answer


@pytest.mark.parametrize("app", [TREE, REFINE], ids=str)
def test_a_line_that_breaks_leaves_an_app_that_asks_by_itself(app: App, server: PlanServer) -> None:
    expected = plain(app, server)
    server.line.break_after = 2
    assert ask(app, server.url) == expected


def test_a_push_that_ran_with_another_request_is_not_taken(server: PlanServer) -> None:
    expected = plain(TREE, server)

    def change(event: dict[str, Any]) -> dict[str, Any]:
        if event["type"] == "parrot:call":
            event["request"]["messages"][0]["content"] += " "
            event["completion"]["choices"][0]["message"]["content"] = "wrong"
        return event

    server.line.change = change
    assert ask(TREE, server.url) == expected
    assert stats().pushed == 0


def test_the_environment_switches_planning_off(server: PlanServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARROT_PLANNING", "off")
    ask(TREE, server.url)
    assert server.asked(GRAPHS) == [] and stats().plans == 0


def test_a_subclass_of_a_synthesizer_is_not_planned(server: PlanServer) -> None:
    class Mine(TreeSummarize):
        def get_response(self, query_str: str, text_chunks: Any, **kwargs: Any) -> Any:
            return super().get_response(query_str, [text.upper() for text in text_chunks], **kwargs)

    mine = Mine(llm=ParrotLLM(base_url=server.url, max_tokens=20))
    assert str(mine.get_response("what?", ["a", "b"])).startswith("ans-")
    assert stats().plans == 0


def test_a_subclass_that_changes_what_is_asked_is_asked_itself(server: PlanServer) -> None:
    class Redacting(ParrotLLM):
        def chat(self, messages: Any, **more: Any) -> Any:
            hidden = [message.model_copy(update={"blocks": [TextBlock(text="nothing")]}) for message in messages]
            return super().chat(hidden, **more)

    class Named(ParrotLLM):
        purpose: str = "a field more changes nothing"

    def told(kind: type[ParrotLLM]) -> None:
        synthesizer = TREE.synthesizer(server.url)
        synthesizer._llm = kind(base_url=server.url, count_by_server=False, max_tokens=20)
        synthesizer.get_response("what?", [f"a secret {text}" for text in TREE.texts])

    told(Redacting)
    assert stats().plans == 0 and not any("secret" in json.dumps(body) for body in server.asked())
    told(Named)
    assert stats().plans == 1 and any("secret" in json.dumps(body) for body in server.asked(GRAPHS))


def test_code_of_the_app_in_a_template_is_not_run_ahead(server: PlanServer) -> None:
    seen: list[str] = []

    def look(context_str: str, **_: Any) -> str:
        seen.append(context_str)
        return context_str

    template = PromptTemplate("{context_str} {query_str}", function_mappings={"context_str": look})
    app = replace(TREE, options={"summary_template": template})
    ask(app, server.url)
    assert stats().plans == 0
    assert seen and not any("\ue000" in text for text in seen)


@pytest.mark.parametrize(("app", "option"), [(TREE, "summary_template"), (REFINE, "refine_template")])
def test_code_of_the_app_in_a_template_runs_as_often_as_without_a_planner(
    app: App, option: str, server: PlanServer
) -> None:
    def times() -> int:
        seen: list[str] = []

        def look(context_str: str = "", context_msg: str = "", **_: Any) -> str:
            seen.append(context_str)
            return context_str or context_msg

        names = {"summary_template": "context_str", "refine_template": "context_msg"}
        name = names[option]
        text = "{" + name + "} {query_str}" + (" {existing_answer}" if option == "refine_template" else "")
        template = PromptTemplate(text, function_mappings={name: look})
        ask(replace(app, options={option: template}), server.url)
        return len(seen)

    with planning(False):
        expected = times()
    assert expected and times() == expected


def test_a_rate_limiter_sees_every_call(server: PlanServer) -> None:
    class Limiter:
        acquired = 0

        def acquire(self) -> None:
            self.acquired += 1

    limiter = Limiter()
    ask(replace(TREE, llm={"rate_limiter": limiter}), server.url)
    assert stats().plans == 0 and limiter.acquired == 4


def test_a_call_that_fails_fails_as_it_does_without_a_plan(server: PlanServer) -> None:
    app = replace(TREE, texts=["FAIL " + "word " * 500, "word " * 500])
    for on in (False, True):
        with planning(on), pytest.raises(ParrotServerError, match="the engine failed"):
            ask(replace(app, llm={"max_retries": 0}), server.url)
    assert server.all_closed()


def test_a_stream_that_nobody_reads_ends_its_plan(server: PlanServer) -> None:
    stream = ask(REFINE, server.url, streaming=True)
    assert len(records()) == 0, "the last call is still to come"
    del stream
    gc.collect()
    assert server.until(lambda: len(records()) == 1)
    assert server.all_closed() and server.used == len(REFINE.texts) - 1


def test_a_stream_read_to_its_end_ends_its_plan_while_it_is_still_held(server: PlanServer) -> None:
    stream = ask(REFINE, server.url, streaming=True)
    assert "".join(stream).startswith("ans-")
    (record,) = records()
    assert all(call.source in ("pushed", "claimed") for call in record.calls)
    del stream


def test_a_stream_may_be_read_in_another_thread(server: PlanServer) -> None:
    expected = plain(REFINE, server)
    stream = ask(REFINE, server.url, streaming=True)
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append("".join(stream)))
    reader.start()
    reader.join(30)
    assert heard == [expected] and stats().direct == 0


def test_a_planner_that_fails_is_not_noticed(server: PlanServer, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = plain(TREE, server)

    def broken(*_: Any) -> Any:
        raise RuntimeError("a defect")

    monkeypatch.setattr("parrot_compat.integrations.llamaindex.planner.walk_of", broken)
    monkeypatch.setattr("parrot_compat.integrations.llamaindex.planner.first_match", broken)
    assert ask(TREE, server.url) == expected


def test_of_more_than_one_request_should_carry_the_first_calls_are_planned(
    server: PlanServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = plain(REFINE, server)
    monkeypatch.setattr("parrot_compat.integrations.plans.drafting.MAX_CALLS", 4)
    assert ask(REFINE, server.url) == expected
    assert (stats().planned, stats().direct) == (4, 2)


@pytest.mark.parametrize("name", ["compact", "compact and accumulate"])
def test_of_what_is_packed_no_call_is_sent_with_two_plans(
    server: PlanServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (app,) = (app for app in APPS if app.name == name)
    expected = plain(app, server)
    monkeypatch.setattr("parrot_compat.integrations.plans.drafting.MAX_CALLS", 2)
    assert ask(app, server.url) == expected
    assert len(server.generated()) == 3 and not server.wasted
    assert (stats().plans, stats().planned, stats().direct) == (1, 2, 1)


def test_a_template_whose_calls_nobody_takes_is_planned_no_more(server: PlanServer) -> None:
    """The app changes what it asks between the plan and the call: twice is enough."""
    for number in range(3):
        synthesizer: Any = TREE.synthesizer(server.url)
        llm = synthesizer._llm
        llm.__dict__["temperature"] = 0
        ask_of = llm.__class__._chat

        def louder(
            self: Any, messages: list[ChatMessage], kwargs: dict[str, Any], ask: Any = ask_of, plans: int = number < 2
        ) -> Any:
            span = planner._spans.current()
            assert span is not None
            opened = [plan for outer in span.around if outer.plan is not None for plan in outer.plan._open.values()]
            assert len(opened) == plans
            # A run that is over before its plan was accepted says nothing of its template.
            assert server.until(lambda: all(plan.was_accepted for plan in opened))
            return ask(self, messages, {**kwargs, "seed": 1})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ParrotLLM, "_chat", louder)
            synthesizer.get_response("what?", TREE.texts)
    assert stats().plans == 2


def test_nothing_is_kept_of_spans_that_have_ended(server: PlanServer) -> None:
    for app in (TREE, REFINE):
        ask(app, server.url)
        "".join(ask(app, server.url, streaming=True))
    assert len(planner._spans) == 0 and planner._lingering.plans() == ()
