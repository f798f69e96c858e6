"""What a process has of ours is of use in the children that it forks, whatever its threads were doing then."""

from __future__ import annotations

import uuid

import pytest

from parrot_compat.integrations.plans.book import PlanBook

from .forks import held, in_a_child
from .other_server import OtherServer, Reply


def test_counts_of_plans_wait_for_no_thread_of_the_parent() -> None:
    book = PlanBook()
    book.count(plans=1)
    with held(book.lock):
        assert in_a_child(lambda: [book.count(plans=1), book.stats().plans][1]) == 2


def test_tokens_are_counted_in_a_child_though_a_thread_was_asking_for_them(other: OtherServer) -> None:
    pytest.importorskip("llama_index.core")
    from parrot_compat.integrations.llamaindex.tokens import ServerTokenizer
    from parrot_compat.integrations.remote import Endpoint

    other.answer = lambda request: Reply({"tokens": [[1, 2, *range(len(text))] for text in request.body["prompt"]]})
    tokenizer = ServerTokenizer(Endpoint(base_url=other.url, api_key="none"), None)
    with held(tokenizer._lock):
        assert in_a_child(lambda: tokenizer("four")) == [0, 1, 2, 3]


def test_spans_begin_and_end_in_a_child() -> None:
    pytest.importorskip("llama_index.core")
    from parrot_compat.integrations.llamaindex.run_plan import Lingering
    from parrot_compat.integrations.llamaindex.spans import Spans

    spans, lingering = Spans(), Lingering()
    with held(spans._lock), held(lingering._lock):
        assert in_a_child(lambda: [spans.begin("a", None, None, {}).id, spans.end("a") is not None]) == ["a", True]
        assert in_a_child(lambda: lingering.plans()) == ()


def test_runs_and_nodes_of_graphs_end_in_a_child() -> None:
    pytest.importorskip("langchain_core")
    from parrot_compat.integrations.langchain.graph_runs import GraphCalls
    from parrot_compat.integrations.langchain.runs import Runs

    runs, calls = Runs(), GraphCalls()
    with held(runs._lock), held(calls._lock):
        assert in_a_child(lambda: [runs.end(uuid.uuid4()), calls.end(uuid.uuid4())]) == [None, None]
