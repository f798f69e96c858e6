"""The LlamaIndex apps against a scripted server: the calls of a tree and of a chain, planned, and the same again."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

pytest.importorskip("llama_index.core")

from parrot_compat.integrations.llamaindex import planning, stats
from recipes.benchmarks.cells import Cell, Place, run_cell
from recipes.benchmarks.checkpoints import folder
from recipes.benchmarks.clients import Endpoint
from recipes.benchmarks.plan import is_installed
from recipes.benchmarks.text import FreshText, open_tokenizer
from recipes.benchmarks.workloads import WORKLOADS, Shape

SHAPE = Shape(tokens=0.05, calls=0.2)


async def run(name: str, endpoint: Endpoint) -> Cell:
    text = FreshText(open_tokenizer(folder("builtin:tiny")), "a round")
    place = Place(workload=name, variant="llamaindex", load=None, rtt_ms=0, round=0, lane="scripted")
    cell = await run_cell(place, WORKLOADS[name].variants["llamaindex"](SHAPE, text), endpoint, ())
    assert cell.errors == []
    assert all(call.output_tokens == call.max_tokens > 0 and call.prompt_tokens > 0 for call in cell.calls)
    assert len({call.name for call in cell.calls}) == len(cell.calls)
    assert cell.apps[0].answer == cell.calls[-1].text
    return cell


async def test_a_tree_asks_all_its_leaves_at_once_and_then_over_their_answers(endpoint: Endpoint) -> None:
    with planning(False):
        cell = await run("w03", endpoint)
    calls = cell.apps[0].calls
    first_answer = min(call.finished or 0.0 for call in calls)
    leaves = [call for call in calls if call.submitted < first_answer]
    assert 8 <= len(leaves) < len(calls)  # about the twelve parts, by LlamaIndex's own count of tokens
    assert calls[-1].submitted > max(call.finished or 0.0 for call in leaves)
    assert calls[-1].first == cell.apps[0].first_text is not None


async def test_a_chain_reads_one_part_with_each_call(endpoint: Endpoint) -> None:
    cell = await run("w01", endpoint)
    calls = cell.apps[0].calls
    assert len(calls) == 13
    assert all((before.finished or 0.0) <= after.submitted for before, after in itertools.pairwise(calls))


@pytest.mark.parametrize("name", ["w01", "w03"])
async def test_a_planned_llamaindex_app_asks_and_is_told_the_same(name: str, endpoint: Endpoint) -> None:
    with planning(False):
        plain = await run(name, endpoint)
    before = stats()
    planned = await run(name, endpoint)
    now = stats()
    assert now.pushed + now.claimed - before.pushed - before.claimed > 8
    one, other = (sorted((call.name, call.prompt, call.text) for call in cell.calls) for cell in (plain, planned))
    assert one == other


@pytest.mark.skipif(not is_installed("llama_index.llms.openai_like"), reason="scripts/bench-setup-llamaindex")
@pytest.mark.parametrize("name", ["w01", "w03"])
async def test_llamaindexs_own_class_asks_and_is_told_the_same(name: str, endpoint: Endpoint) -> None:
    plain = await run(name, replace(endpoint, chat_class="openai"))
    ours = await run(name, endpoint)
    one, other = (
        sorted((call.name, call.prompt, call.text, call.prompt_tokens, call.output_tokens) for call in cell.calls)
        for cell in (plain, ours)
    )
    assert one == other
