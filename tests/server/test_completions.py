"""/v1/completions, through OpenAI's own client with strict validation."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from .live import Live, events_of, send

MODEL = "org/scripted"
FRANCE = "The capital of France is"
PATH = "/v1/completions"
IDS = list(map(ord, FRANCE))


async def test_a_text_is_continued(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model=MODEL, prompt=FRANCE, max_tokens=50)
    assert answer.choices[0].text == "Paris is the capital of France."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert answer.usage is not None and answer.usage.prompt_tokens == len(FRANCE)


@pytest.mark.parametrize("asked", [{}, {"max_tokens": None}])
async def test_a_text_without_a_limit_ends_after_sixteen_tokens(server: Live, asked: dict[str, Any]) -> None:
    answer = (await send(server, "POST", PATH, {"prompt": FRANCE, **asked})).json()
    assert answer["choices"][0]["text"] == "Paris is the cap"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 16


async def test_a_limit_beyond_the_context_is_what_fits(server: Live) -> None:
    answer = (await send(server, "POST", PATH, {"prompt": FRANCE, "max_tokens": 2**31 - 1})).json()
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("prompt", "answers"),
    [
        (FRANCE, 1),
        ([FRANCE], 1),
        ([FRANCE, "count"], 2),
        (IDS, 1),
        ([IDS, IDS], 2),
    ],
)
async def test_every_form_of_prompt_has_one_answer_for_each(
    client: openai.AsyncOpenAI, prompt: Any, answers: int
) -> None:
    answer = await client.completions.create(model=MODEL, prompt=prompt, max_tokens=50)
    assert [choice.index for choice in answer.choices] == list(range(answers))
    assert answer.choices[0].text == "Paris is the capital of France."


async def test_choice_i_belongs_to_prompt_i_over_n(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model=MODEL, prompt=[FRANCE, "count"], n=2, max_tokens=5)
    assert [choice.text for choice in answer.choices] == ["Paris", "Paris", "one t", "one t"]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(FRANCE) + len("count")
    assert answer.usage.completion_tokens == 4 * 5


async def test_a_stream_adds_up_to_the_answer(server: Live) -> None:
    # not strict: OpenAI's own chunks have a null finish_reason until the last, which its type does not allow
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        stream = await client.completions.create(
            model=MODEL,
            prompt=[FRANCE, "count"],
            max_tokens=50,
            stream=True,
            stream_options={"include_usage": True},
        )
        *chunks, last = [chunk async for chunk in stream]
    texts, finishes = ["", ""], ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            finishes[choice.index] = choice.finish_reason or finishes[choice.index]
    assert texts == ["Paris is the capital of France.", "one two three four five six seven eight nine ten"]
    assert finishes == ["stop", "stop"]
    assert last.choices == []
    assert last.usage is not None and last.usage.completion_tokens >= sum(map(len, texts))


@pytest.mark.parametrize("prompt", [FRANCE, IDS])
@pytest.mark.parametrize("stream", [False, True])
async def test_echo_puts_the_prompt_before_the_answer(server: Live, prompt: Any, stream: bool) -> None:
    reply = await send(server, "POST", PATH, {"prompt": prompt, "echo": True, "max_tokens": 5, "stream": stream})
    chunks = events_of(reply) if stream else [reply.json()]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == FRANCE + "Paris"


async def test_token_ids_are_given_where_they_are_asked_for(server: Live) -> None:
    asked = {"prompt": FRANCE, "return_token_ids": True}
    (choice,) = (await send(server, "POST", PATH, asked)).json()["choices"]
    assert choice["prompt_token_ids"] == IDS
    chunks = events_of(await send(server, "POST", PATH, {**asked, "stream": True}))
    assert chunks[0]["choices"][0]["prompt_token_ids"] == IDS
    assert [token for chunk in chunks for token in chunk["choices"][0]["token_ids"]] == choice["token_ids"]


async def test_values_that_ask_for_nothing_are_taken(server: Live) -> None:
    noop = {"logprobs": None, "suffix": None, "best_of": 1, "logit_bias": {}, "frequency_penalty": 0.0, "top_k": -1}
    reply = await send(server, "POST", PATH, {"prompt": FRANCE, **noop})
    assert reply.status == 200
    assert "x-parrot-ignored" not in reply.headers


async def test_a_prompt_too_long_is_refused_before_the_first_byte(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="prompt is too long"):
        await client.completions.create(model=MODEL, prompt=["short", "x" * 5000], stream=True)


async def test_an_empty_prompt_is_refused_before_the_first_byte(server: Live) -> None:
    for stream in (False, True):
        reply = await send(server, "POST", "/v1/completions", {"prompt": "", "stream": stream})
        assert reply.status == 400 and reply.error["param"] == "prompt"
