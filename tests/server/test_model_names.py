"""Several models on one server, each by any of its names."""

from __future__ import annotations

import openai
import pytest

from .live import live

ASKED = [{"role": "user", "content": "Tell me the capital of France"}]


async def test_each_model_answers_to_its_names_and_to_no_other() -> None:
    async with (
        live(aliases={"gpt-x": "org/scripted", "gone": "nothing"}, more_models=("org/other",)) as server,
        openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
        ) as client,
    ):
        assert [model.id async for model in client.models.list()] == ["org/scripted", "org/other", "gpt-x"]
        for name, said in (("gpt-x", "Paris"), ("org/scripted", "Paris"), ("org/other", "org/other")):
            assert (await client.models.retrieve(name)).id == name
            answer = await client.chat.completions.create(model=name, messages=ASKED)  # type: ignore[arg-type]
            assert answer.model == name and (answer.choices[0].message.content or "").startswith(said)
            text = await client.completions.create(model=name, prompt="the capital of France")
            assert text.model == name and text.choices[0].text.startswith(said)
        for name in ("gone", "GPT-X", ""):
            with pytest.raises(openai.NotFoundError) as refused:
                await client.completions.create(model=name, prompt="the capital of France")
            assert refused.value.code == "model_not_found"
