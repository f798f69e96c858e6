"""Apps of LlamaIndex's common shapes, as their authors write them: a model, a prompt helper, an answer.

Each says how many calls a plan of it holds; everything else is the tests' to find out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index.core import Document, ListIndex, PromptTemplate
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.response_synthesizers import BaseSynthesizer, ResponseMode, get_response_synthesizer

from parrot_compat.integrations.llamaindex import ParrotLLM

ANSWER_TOKENS = 20
PADDING = 30


def words(count: int, each: int = 170) -> list[str]:
    return [f"  part {number} " + "word " * each for number in range(count)]


@dataclass(frozen=True)
class App:
    """A synthesizer over texts. `planned`: calls that go ahead; `resumed`: in how many plans."""

    name: str
    mode: ResponseMode
    planned: int
    texts: Sequence[str] = field(default_factory=lambda: words(6))
    window: int = 600
    plans: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    llm: dict[str, Any] = field(default_factory=dict)
    streams: bool = True

    def synthesizer(self, url: str, *, streaming: bool = False) -> BaseSynthesizer:
        llm = ParrotLLM(
            base_url=url, count_by_server=False, **{"temperature": 0, "max_tokens": ANSWER_TOKENS, **self.llm}
        )
        helper = PromptHelper(
            context_window=self.window, num_output=ANSWER_TOKENS, chunk_overlap_ratio=0.1, tokenizer=str.split
        )
        made = get_response_synthesizer(
            llm=llm, response_mode=self.mode, prompt_helper=helper, streaming=streaming, **self.options
        )
        if hasattr(made, "_response_padding_size"):
            made._response_padding_size = PADDING
        return made

    def __str__(self) -> str:
        return self.name


SUMMARY = PromptTemplate("Of {context_str} say in {language}: {query_str}")
CHAT = ChatPromptTemplate(
    [
        ChatMessage(role=MessageRole.SYSTEM, content="You read {context_str}"),
        ChatMessage(role=MessageRole.USER, content="{query_str} {{not a value}}"),
    ]
)

APPS = [
    App("tree", ResponseMode.TREE_SUMMARIZE, 4),
    App("tree, asynchronous inside", ResponseMode.TREE_SUMMARIZE, 4, options={"use_async": True}),
    App("tree of many", ResponseMode.TREE_SUMMARIZE, 6, texts=words(12)),
    App("tree of one text", ResponseMode.TREE_SUMMARIZE, 0, texts=words(1), plans=0),
    App(
        "tree with a template of its own",
        ResponseMode.TREE_SUMMARIZE,
        3,
        options={"summary_template": SUMMARY},
        values={"language": "English"},
    ),
    App("tree over messages", ResponseMode.TREE_SUMMARIZE, 3, options={"summary_template": CHAT}),
    App("refine", ResponseMode.REFINE, 6),
    App("refine of one text", ResponseMode.REFINE, 0, texts=words(1), plans=0),
    App("refine of long texts", ResponseMode.REFINE, 6, texts=words(3, 600)),
    App("compact", ResponseMode.COMPACT, 3),
    App("compact with a system prompt", ResponseMode.COMPACT, 3, llm={"system_prompt": "Be {brief}."}),
    App("accumulate", ResponseMode.ACCUMULATE, 6, streams=False),
    App("accumulate, asynchronous inside", ResponseMode.ACCUMULATE, 6, options={"use_async": True}, streams=False),
    App("compact and accumulate", ResponseMode.COMPACT_ACCUMULATE, 3, streams=False),
    App("accumulate equal texts", ResponseMode.ACCUMULATE, 3, texts=["the same"] * 3, streams=False),
    App("simple", ResponseMode.SIMPLE_SUMMARIZE, 0, plans=0),
    App("generation", ResponseMode.GENERATION, 0, plans=0),
    App("sampled", ResponseMode.TREE_SUMMARIZE, 4, llm={"temperature": 1.0, "seed": 7, "top_p": 0.9}),
]


def query_engine(app: App, url: str, *, streaming: bool = False) -> Any:
    """The same synthesizer, behind an index."""
    index = ListIndex.from_documents([Document(text=text) for text in app.texts], transformations=[])
    synthesizer = app.synthesizer(url, streaming=streaming)
    return index.as_query_engine(llm=synthesizer._llm, response_synthesizer=synthesizer)
