"""The openai SDK as it is, with the arguments that `integrations.openai` makes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import openai
import pytest

from parrot_compat.integrations.openai import AsyncSubmitted, Graph, Submitted, prompt, ref, said, variable
from tests.integrations.other_server import OtherServer
from tests.integrations.served import Served


@pytest.fixture
def client(ours: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=ours.url, api_key="none", max_retries=0)


def text_of(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def test_a_prompt_knows_where_its_values_stand() -> None:
    made = prompt("Say {what} to {who}, {{twice}}: {what}", what="sn☃w", who="")
    content = made.message["content"]
    assert content == "Say sn☃w to , {twice}: sn☃w"
    assert [(place["name"], content[place["start"] : place["end"]]) for place in made.inputs] == [
        ("what", "sn☃w"),
        ("who", ""),
        ("what", "sn☃w"),
    ]


def test_a_reference_is_a_part_and_the_values_beside_it_are_too() -> None:
    made = prompt("{a}{b} and {c}", role="system", a="x", b=ref("one", "strip"), c=variable("v"))
    assert made.message == {
        "role": "system",
        "content": [
            {"type": "text", "text": "x"},
            {"type": "parrot:ref", "call": "one", "transform": "strip"},
            {"type": "text", "text": " and "},
            {"type": "parrot:ref", "variable": "v"},
        ],
    }
    assert made.inputs == ({"name": "a", "part": 0, "start": 0, "end": 1},)


def test_numbers_are_said_as_python_says_them() -> None:
    assert prompt("{n} of {m}: {x}", n=0, m=7, x=1.5).message["content"] == "0 of 7: 1.5"
    made = prompt("{n} of {r}", n=0, r=ref("one"))
    assert made.message["content"][0] == {"type": "text", "text": "0"}


def test_a_graphs_calls_say_where_their_values_stand() -> None:
    graph = Graph()
    graph.call("one", prompt("Say {what}", what="snow"), model="m", extra_body={"parrot": None})
    graph.call("two", {"role": "user", "content": "hi"}, model="m")
    first, second = (call["request"] for call in graph._body["calls"])
    assert first["parrot"] == {"v": 1, "inputs": [{"name": "what", "start": 4, "end": 8, "message": 0}]}
    assert "parrot" not in second


@pytest.mark.parametrize(
    ("template", "values", "message"),
    [
        ("{a}", {"a": None}, "'a' is neither a text, a number nor a reference: NoneType"),
        ("{a}", {"a": ["x"]}, "'a' is neither .*: list"),
        ("{a}", {}, "no value for 'a'"),
        ("a", {"a": "x"}, "the template has no a"),
        ("{a!r}", {"a": "x"}, "no plain name"),
        ("{a.b}", {"a": "x"}, "no plain name"),
        ("{}", {}, "no plain name"),
    ],
)
def test_a_prompt_that_does_not_fit_its_values_is_refused(template: str, values: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompt(template, **values)


def test_every_hint_of_a_call_is_applied(client: openai.OpenAI) -> None:
    told = said(
        {"role": "system", "content": "be brief"},
        prompt("Say {what}", what="hello"),
        session="hints",
        call="greeting",
        function="greet",
        objective="throughput",
    )
    receipt: Any = (client.chat.completions.create(model="first-model", **told).model_extra or {})["parrot"]
    assert receipt["call"] == "greeting"
    assert receipt["hints"] == dict.fromkeys(("call", "function", "inputs", "objective"), "applied")


def test_a_call_reads_the_answer_of_another_in_its_session(client: openai.OpenAI) -> None:
    create: Any = client.chat.completions.create
    first = create(model="first-model", **said(prompt("Say {it}", it="hi"), session="chain", call="one"))
    second = create(model="first-model", **said(prompt("Again: {it}", it=ref("one")), session="chain"))
    assert text_of(first) == "you said: Say hi"
    assert text_of(second) == "you said: Again: you said: Say hi"


def test_another_server_is_told_the_same_words(other: OtherServer) -> None:
    client: Any = openai.OpenAI(base_url=other.url, api_key="none")
    answer = client.chat.completions.create(model="m", **said(prompt("Say {it}", it="hi"), extra_body={"top_k": 3}))
    assert text_of(answer) == "you said Say hi"
    assert other.last.body["top_k"] == 3 and other.last.body["parrot"]["v"] == 1


def graph() -> Graph:
    made = Graph()
    one = made.call("one", prompt("Say {it}", it="hi"), function="say", model="first-model")
    made.call("two", prompt("Again: {it}", it=one), model="first-model", extra_body={"top_k": 3})
    return made


def test_a_graph_runs_on_the_server_and_its_answers_are_read_when_wanted(client: openai.OpenAI) -> None:
    submitted = graph().submit(client, wanted=["two"])
    assert submitted.text("two") == "you said: Again: you said: Say hi"
    assert submitted.text("one") == "you said: Say hi"
    with pytest.raises(ValueError, match="no call 'three'"):
        submitted.text("three")
    submitted.close()


def test_a_graph_is_read_in_an_event_loop(ours: Served) -> None:
    async def run() -> str:
        async with openai.AsyncOpenAI(base_url=ours.url, api_key="none") as client:
            submitted = await graph().asubmit(client)
            text = await submitted.text("two")
            await submitted.close()
            return text

    assert asyncio.run(run()) == "you said: Again: you said: Say hi"


def test_a_graph_that_has_ended_by_itself_is_closed_without_a_word(
    ours: Served, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parrot_compat.core.plans._RECEIPT_S", 0.0)
    made = Graph(ttl_s=0.01)
    made.call("one", prompt("Say {it}", it="hi"), model="first-model")
    submitted = made.submit(client)
    forgotten = f"/parrot/graphs/{submitted.id}/close"
    with pytest.raises(openai.NotFoundError):
        for _ in range(1000):
            client.post(forgotten, cast_to=object, body={})
            time.sleep(0.01)
    submitted.close()

    async def close() -> None:
        async with openai.AsyncOpenAI(base_url=ours.url, api_key="none") as loops:
            await AsyncSubmitted(loops, {"id": submitted.id, "session": "s", "calls": []}).close()

    asyncio.run(close())


def test_that_there_is_no_such_path_is_an_error_of_closing_too(client: openai.OpenAI) -> None:
    elsewhere = client.with_options(base_url=f"{client.base_url}elsewhere")
    with pytest.raises(openai.NotFoundError):
        Submitted(elsewhere, {"id": "graph-1", "session": "s", "calls": []}).close()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_that_fails_says_so_to_who_waits_for_it(ours: Served, client: openai.OpenAI, is_async: bool) -> None:
    made = Graph()
    one = made.call("one", prompt("Say {it}", it="hi"), model="first-model")
    bad = ref("one", {"json_pointer": "/nothing"})
    assert one == ref("one")
    made.call("two", prompt("Again: {it}", it=bad), model="first-model")

    async def wait() -> str:
        async with openai.AsyncOpenAI(base_url=ours.url, api_key="none") as loops:
            return await (await made.asubmit(loops)).text("two")

    with pytest.raises(openai.APIError, match="json_pointer") as caught:
        asyncio.run(wait()) if is_async else made.submit(client).text("two")
    assert caught.value.code


@pytest.mark.parametrize("label", ["what?", "team/7", "50 % #1"])
def test_a_session_may_have_any_name(client: openai.OpenAI, label: str) -> None:
    made = Graph(session=label)
    made.call("one", prompt("Say {it}", it="hi"), model="first-model")
    submitted = made.submit(client)
    assert submitted.session == label and submitted.text("one") == "you said: Say hi"
    submitted.close()


def test_a_graph_whose_answer_is_lost_is_one_graph_when_the_sdk_sends_it_again(ours: Served) -> None:
    class LosesTheFirst(httpx.HTTPTransport):
        lost = 0

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            if request.url.path.endswith("/graphs") and not self.lost:
                self.lost += 1
                answer.read()
                raise httpx.ReadError("the line broke", request=request)
            return answer

    before, transport = len(ours.sessions()), LosesTheFirst()
    with openai.OpenAI(
        base_url=ours.url, api_key="none", max_retries=2, http_client=httpx.Client(transport=transport)
    ) as client:
        submitted = graph().submit(client)
        assert transport.lost == 1 and len(ours.sessions()) == before + 1
        assert submitted.text("two") == "you said: Again: you said: Say hi"
        submitted.close()


def test_the_server_is_not_asked_to_be_silent_for_longer_than_the_client_waits(ours: Served) -> None:
    asked: list[httpx.URL] = []
    noted = httpx.Client(event_hooks={"request": [lambda request: asked.append(request.url)]})
    with openai.OpenAI(base_url=ours.url, api_key="none", timeout=20, http_client=noted) as client:
        assert graph().submit(client).text("one") == "you said: Say hi"
    assert [url.params["wait"] for url in asked if "wait" in url.params] == ["10.0"]


def test_a_graph_that_contradicts_itself_is_refused(client: openai.OpenAI) -> None:
    made = Graph()
    made.call("one", prompt("{it}", it=ref("none")), model="first-model")
    with pytest.raises(openai.APIStatusError, match="there is no call 'none'"):
        made.submit(client)
