"""Prefixes: equal hashes exactly as far as two prompts are equal, within a namespace; and what is rendered for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_compat.core.engine import EngineInfo
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.core.errors import BadPrompt, PromptTooLong
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.prefix import BLOCK_TOKENS, boundary_hashes, text_blocks, token_blocks
from parrot_compat.core.prompt import Chat, Constant, Input, Text, TextPrompt, Tokens
from parrot_compat.core.rendering import Renderer


@given(st.lists(st.integers(0, 50_000), max_size=200), st.integers(0, 200), st.lists(st.integers(0, 9), max_size=99))
def test_two_prompts_share_the_blocks_of_their_common_prefix(head: list[int], cut: int, tail: list[int]) -> None:
    other = [*head[:cut], -1, *tail]
    common = min(cut, len(head)) // BLOCK_TOKENS
    first, second = token_blocks("t", head), token_blocks("t", other)
    assert len(first) == len(head) // BLOCK_TOKENS
    assert first[:common] == second[:common]
    assert not set(first[common:]) & set(second[common:])


def test_namespaces_share_no_block() -> None:
    assert not set(token_blocks("one", range(100))) & set(token_blocks("two", range(100)))
    assert not set(text_blocks("one", "x" * 1000)) & set(text_blocks("two", "x" * 1000))
    assert text_blocks("one", "x" * 1000)[:3] == text_blocks("one", "x" * 500 + "y" * 500)[:3]


def test_a_boundary_hash_tells_a_name_from_the_same_text_and_one_cut_from_another() -> None:
    def hashes(*segments: Constant | Input) -> tuple[str, ...]:
        return boundary_hashes(TextPrompt(segments), lambda variable: variable)

    assert hashes(Constant("ab"), Input("x"))[0] == hashes(Constant("ab"), Input("y"))[0]
    assert hashes(Input("ab"))[-1] != hashes(Constant("ab"))[-1]
    assert hashes(Constant("a"), Input("bc"))[-1] != hashes(Constant("ab"), Input("c"))[-1]


@pytest.fixture
async def renderer() -> AsyncIterator[Renderer]:
    fleet = Fleet()
    tokens = ScriptedEngine({}, EngineInfo(name="a", model="tokens", context_tokens=100))
    fleet.add(tokens, tokens.tokenizer)
    fleet.add(ScriptedEngine({}, EngineInfo(name="b", model="text", context_tokens=100, takes="text")))
    yield Renderer(fleet)
    await fleet.close()


async def test_ids_are_those_of_the_whole_content_at_once(renderer: Renderer) -> None:
    chat = Chat(({"role": "user", "content": "hello"},))
    rendered = renderer.render(chat, "tokens", "")
    assert rendered.ids is not None and rendered.prompt_tokens == len(rendered.ids)
    assert rendered.content is chat


async def test_what_does_not_fit_or_encode_is_refused(renderer: Renderer) -> None:
    with pytest.raises(PromptTooLong, match=r"prompt is too long: 100 tokens .* context of 100"):
        renderer.render(Text("x" * 100), "tokens", "")
    assert renderer.render(Text("x" * 99), "tokens", "").prompt_tokens == 99
    with pytest.raises(BadPrompt, match="outside the vocabulary"):
        renderer.render(Tokens((10**9,)), "tokens", "")


async def test_a_text_engine_gets_a_guess_and_judges_lengths_by_itself(renderer: Renderer) -> None:
    rendered = renderer.render(Text("x" * 4000), "text", "")
    assert rendered.ids is None and rendered.prompt_tokens == 1000 and rendered.blocks


async def test_large_contents_render_as_small_ones_do(renderer: Renderer) -> None:
    for content in (Text("x" * 90), Chat(({"role": "user", "content": "x"},)), Tokens((1, 2, 3))):
        assert not renderer.is_large(content)
        assert await renderer.render_any(content, "tokens", "") == renderer.render(content, "tokens", "")
    large = Chat(({"role": "user", "content": "x" * 50_000},))
    assert renderer.is_large(large)
    assert await renderer.render_any(large, "text", "") == renderer.render(large, "text", "")
