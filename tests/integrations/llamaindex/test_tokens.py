"""LlamaIndex packs by the served model's tokens, and a long text costs a few requests, not one for each word."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import llama_index.core
import pytest
from llama_index.core import Document, Settings
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.utils import get_tokenizer

from parrot_compat.integrations import remote
from parrot_compat.integrations.llamaindex import ParrotLLM, planning, tokens
from parrot_compat.integrations.llamaindex.tokens import ServerTokenizer
from tests.integrations.langchain.plan_server import PlanServer
from tests.integrations.other_server import OtherServer, Reply, Request, echo
from tests.integrations.served import Served

TEXT = " ".join(f"word{number}, and more of it." for number in range(300))


@contextmanager
def as_settings(llm: ParrotLLM) -> Iterator[None]:
    """All that an app changes."""
    before = Settings._llm
    Settings.llm = llm
    try:
        yield
    finally:
        Settings._llm = before


def test_setting_the_llm_is_all_that_an_app_changes(real: Served) -> None:
    llm = ParrotLLM(base_url=real.url, max_tokens=4)
    with as_settings(llm):
        synthesizer = get_response_synthesizer(response_mode=ResponseMode.TREE_SUMMARIZE)
        helper = synthesizer._prompt_helper
    assert helper.context_window == llm.metadata.context_window
    for text in ("hello", " hello", "naïve café", TEXT):
        counted = helper._token_counter.tokenizer(text)
        expected = remote.token_ids(llm._endpoint, None, text)
        assert counted == expected[len(remote.token_ids(llm._endpoint, None, "")) :]


def test_what_is_packed_by_the_server_fits_the_servers_context(real: Served) -> None:
    llm = ParrotLLM(base_url=real.url, max_tokens=4, temperature=0)
    texts = [TEXT] * 2  # more than one prompt holds
    answers = []
    for on in (False, True):
        with planning(on):
            synthesizer = get_response_synthesizer(llm=llm, response_mode=ResponseMode.COMPACT)
            answers.append(str(synthesizer.get_response("what?", texts)))
    assert answers[0] == answers[1] != "Empty Response"


def test_the_pieces_of_a_text_are_counted_together(server: PlanServer) -> None:
    llm = ParrotLLM(base_url=server.url)
    assert llm.metadata.context_window == 8192
    nodes = SentenceSplitter(chunk_size=100, chunk_overlap=0).get_nodes_from_documents([Document(text=TEXT)])
    assert len(nodes) > 3
    assert len(server.asked("/tokenize")) < 20


def test_no_text_is_counted_twice_however_short(server: PlanServer) -> None:
    count = ServerTokenizer(ParrotLLM(base_url=server.url)._endpoint, None)
    for _ in range(3):
        assert count("") == [] and count("user") and count("\n\n") and count(TEXT)
    assert [len(body["prompt"]) for body in server.asked("/tokenize")] == [1, 1, 1, 1]


def test_a_refinement_asks_once_for_what_it_counts_again_and_again(server: PlanServer) -> None:
    llm = ParrotLLM(base_url=server.url, max_tokens=4)
    with as_settings(llm):
        synthesizer = get_response_synthesizer(response_mode=ResponseMode.REFINE)
        synthesizer.get_response("what?", [f"text {number}. " * 40 for number in range(12)])
    asked = [text for body in server.asked("/tokenize") for text in body["prompt"]]
    assert asked and len(asked) == len(set(asked))


def test_an_apps_own_tokenizer_stays(ours: Served) -> None:
    llama_index.core.global_tokenizer = str.split
    assert ParrotLLM(base_url=ours.url).metadata.context_window == 4096
    assert get_tokenizer() is str.split


def test_llamaindexs_default_gives_way_and_two_models_take_turns(ours: Served) -> None:
    get_tokenizer()
    first, second = (ParrotLLM(base_url=ours.url, model=model) for model in ("first-model", "second-model"))
    for llm in (first, second, first):
        assert llm.metadata.model_name == llm.model
        current = get_tokenizer()
        assert isinstance(current, ServerTokenizer) and current.model == llm.model


def test_what_has_taken_the_tokenizer_can_be_copied_and_sent_to_another_process(ours: Served) -> None:
    assert ParrotLLM(base_url=ours.url).metadata.context_window == 4096
    splitter, current = SentenceSplitter(chunk_size=40, chunk_overlap=0), get_tokenizer()
    memory = ChatMemoryBuffer.from_defaults(token_limit=2000)
    for again in (copy.deepcopy(splitter), pickle.loads(pickle.dumps(splitter))):
        assert again._tokenizer is current
        assert again.split_text(TEXT) == splitter.split_text(TEXT)
    assert copy.deepcopy(memory).tokenizer_fn is memory.tokenizer_fn is current


@pytest.mark.parametrize("switched_off", [False, True])
def test_a_server_that_cannot_count_leaves_it_to_llamaindex(other: OtherServer, switched_off: bool) -> None:
    default = len(get_tokenizer()("hello there"))
    assert ParrotLLM(base_url=other.url, count_by_server=not switched_off).metadata.num_output == -1
    assert len(get_tokenizer()("hello there")) == default
    asked = sum(request.path == "/tokenize" for request in other.requests)
    assert asked == (0 if switched_off else 1)
    assert len(get_tokenizer()("hello there")) == default
    assert sum(request.path == "/tokenize" for request in other.requests) == asked, "it was asked once more"


def counting(request: Request) -> Reply:
    """One token for each text that is not empty, with a number that LlamaIndex's own tokenizer has not."""
    if request.path != "/tokenize":
        return echo(request)
    return Reply({"tokens": [[-1] if text else [] for text in request.body["prompt"]]})


def test_a_server_that_fails_once_counts_again_after_a_while(
    other: OtherServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = get_tokenizer()("hello there")
    busy = Reply({"error": {"message": "busy"}}, 503, {"x-should-retry": "false"})
    other.answer = lambda request: busy if request.path == "/tokenize" else echo(request)
    assert ParrotLLM(base_url=other.url).metadata.num_output == -1
    count = get_tokenizer()
    assert count("hello there") == count("hello there") == own
    assert sum(request.path == "/tokenize" for request in other.requests) == 1, "it was not left alone for a while"
    assert get_tokenizer() is count
    other.answer = counting
    monkeypatch.setattr(tokens, "ASK_AGAIN_S", 0.0)
    assert count("hello there") == [-1]
    monkeypatch.undo()
    assert count("hello again") == [-1], "what is over is remembered"


def test_a_server_that_does_not_answer_is_not_waited_for(other: OtherServer, monkeypatch: pytest.MonkeyPatch) -> None:
    own, gone = get_tokenizer()("hello there"), threading.Event()

    def hold(request: Request) -> Reply:
        if request.path == "/tokenize":
            gone.wait(60)
        return counting(request)

    other.answer = hold
    monkeypatch.setattr(tokens, "COUNT_TIMEOUT_S", 0.05)
    assert ParrotLLM(base_url=other.url).metadata.num_output == -1
    assert get_tokenizer()("hello there") == own
    gone.set()
