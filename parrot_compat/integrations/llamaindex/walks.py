"""What LlamaIndex's response synthesizers will ask, found before they ask it.

One short walk for each kind, in the order of the synthesizer's own code. Texts are packed by the app's own prompt
helper, so the chunks are those that will be sent; where the packing depends on an answer that does not exist yet, the
walk goes on only if the longest answer that the model may give (`max_tokens`) fits, and ends if not. A subclass of
LlamaIndex's classes may do anything, and is not walked.

It knows synthesizers and drafts, and sends nothing. The invariant: nothing of the app's own runs for it, and no
callback hears of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.callbacks import CallbackManager
from llama_index.core.constants import DEFAULT_NUM_OUTPUTS
from llama_index.core.indices.prompt_helper import DEFAULT_PADDING, PromptHelper
from llama_index.core.node_parser.text.token import TokenTextSplitter
from llama_index.core.prompts.base import BasePromptTemplate
from llama_index.core.prompts.prompt_utils import get_biggest_prompt
from llama_index.core.response_synthesizers import (
    Accumulate,
    CompactAndRefine,
    Refine,
    TreeSummarize,
)
from llama_index.core.response_synthesizers.compact_and_accumulate import CompactAndAccumulate

from .drafts import CannotPlan, Drafts, only_copies

__all__ = ["SynthesizerInput", "walk_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesizerInput:
    """What a synthesizer's `get_response` was called with."""

    query: str
    chunks: Sequence[str]
    previous: str | None = None
    """The answer that it begins with; of the refining kinds."""
    values: Mapping[str, Any]
    """More of the prompts' variables."""


class _Packing:
    """The app's prompt helper, without its callbacks."""

    def __init__(self, synthesizer: Any, drafts: Drafts) -> None:
        helper = synthesizer._prompt_helper
        if type(helper) is not PromptHelper:
            raise CannotPlan
        self._helper = helper
        self._llm = drafts.llm
        self.answer_tokens: int = drafts.llm.max_tokens or DEFAULT_NUM_OUTPUTS
        """The most that an answer holds. Where nothing bounds it, what LlamaIndex itself reserves for one."""

    def pack(self, template: BasePromptTemplate, chunks: Sequence[str], padding: int = DEFAULT_PADDING) -> list[str]:
        """As `repack` does it. Errors: whatever the app will meet there too."""
        joined = "\n\n".join(chunk.strip() for chunk in chunks if chunk.strip())
        # Unwrapped: `split_text` is a span, and this one is not the app's.
        split: Callable[[TokenTextSplitter, str], list[str]] = inspect.unwrap(TokenTextSplitter.split_text)
        return split(self._splitter(template, padding), joined)

    def room(self, template: BasePromptTemplate) -> int:
        """Tokens that `repack` leaves in one piece."""
        return self._splitter(template, DEFAULT_PADDING).chunk_size

    def tokens(self, text: str) -> int:
        return len(self._helper._token_counter.tokenizer(text))

    def _splitter(self, template: BasePromptTemplate, padding: int) -> TokenTextSplitter:
        splitter = self._helper.get_text_splitter_given_prompt(template, padding=padding, llm=self._llm)
        splitter.callback_manager = quiet = CallbackManager([])
        quiet.set_handlers([])  # not the global one either
        return splitter


def _must_be_ours_to_format(drafts: Drafts, *templates: BasePromptTemplate) -> None:
    """Packing formats them, which is the app's own code where they have functions or a parser. Errors: `CannotPlan`."""
    if not all(only_copies(template, drafts.llm) for template in templates):
        raise CannotPlan


def _tree(synthesizer: Any, given: SynthesizerInput, drafts: Drafts) -> bool:
    _must_be_ours_to_format(drafts, synthesizer._summary_template)
    packing = _Packing(synthesizer, drafts)
    template = synthesizer._summary_template.partial_format(query_str=given.query)
    packed = packing.pack(template, given.chunks)
    if len(packed) == 1:
        drafts.call(template, {"context_str": packed[0], **given.values})
        return True
    summaries = _map(drafts, [(template, {"context_str": chunk, **given.values}) for chunk in packed])
    gap = packing.tokens("\n\n")
    if len(summaries) * (packing.answer_tokens + gap) > packing.room(template):
        return False
    joined = "\n\n".join(drafts.stripped(summary) for summary in summaries)
    drafts.call(template, {"context_str": joined, **given.values})
    return True


def _refine(synthesizer: Any, given: SynthesizerInput, drafts: Drafts) -> bool:
    if synthesizer._structured_answer_filtering:
        raise CannotPlan
    if getattr(synthesizer._program_factory, "__func__", None) is not Refine._default_program_factory:
        raise CannotPlan
    _must_be_ours_to_format(drafts, synthesizer._text_qa_template, synthesizer._refine_template)
    packing = _Packing(synthesizer, drafts)
    qa, refine, query = synthesizer._text_qa_template, synthesizer._refine_template, given.query
    padding = synthesizer._response_padding_size
    chunks = given.chunks
    if type(synthesizer) is CompactAndRefine:
        partial = [template.partial_format(query_str=query) for template in (qa, refine)]
        chunks = packing.pack(get_biggest_prompt(partial), chunks, padding)
    biggest = get_biggest_prompt([qa, refine])
    answer = given.previous
    pieces = [piece for chunk in chunks for piece in packing.pack(biggest, [chunk], padding)]
    for chunk in pieces:
        if answer is None:
            answer = drafts.call(qa.partial_format(query_str=query), {"context_str": chunk, **given.values})
            continue
        template = refine.partial_format(query_str=query, existing_answer=answer)
        empty = refine.partial_format(query_str=query, existing_answer="")
        if packing.tokens(chunk) + packing.answer_tokens > packing.room(empty):
            return False  # the answer decides whether the chunk is cut once more
        answer = drafts.call(template, {"context_msg": chunk.strip(), **given.values})
    return True


def _accumulate(synthesizer: Any, given: SynthesizerInput, drafts: Drafts) -> bool:
    _must_be_ours_to_format(drafts, synthesizer._text_qa_template)
    packing = _Packing(synthesizer, drafts)
    template = synthesizer._text_qa_template.partial_format(query_str=given.query)
    chunks = given.chunks
    if type(synthesizer) is CompactAndAccumulate:
        chunks = packing.pack(template, chunks)
    pieces = [piece for chunk in chunks for piece in packing.pack(template, [chunk])]
    _map(drafts, [(template, {"context_str": piece, **given.values}) for piece in pieces])
    return True


def _map(drafts: Drafts, calls: Sequence[tuple[BasePromptTemplate, Mapping[str, Any]]]) -> list[str]:
    """Calls that wait for nothing of one another."""
    group = f"{drafts.name}.{len(drafts.found)}"
    return [drafts.call(template, values, (group, index, len(calls))) for index, (template, values) in enumerate(calls)]


_WALKS: Mapping[type, Callable[[Any, SynthesizerInput, Drafts], bool]] = {
    TreeSummarize: _tree,
    Refine: _refine,
    CompactAndRefine: _refine,
    Accumulate: _accumulate,
    CompactAndAccumulate: _accumulate,
}
"""`SimpleSummarize` and `Generation` make one call: sending it ahead would gain nothing."""


def walk_of(synthesizer: Any) -> Callable[[Any, SynthesizerInput, Drafts], bool] | None:
    """The walk of this kind: it drafts the calls, and says whether those are all that the synthesizer will make.
    Errors of a walk: `CannotPlan`, `PlanTooLarge`, and whatever the app will meet as well."""
    if getattr(synthesizer, "_output_cls", None) is not None:
        return None
    return _WALKS.get(type(synthesizer))
