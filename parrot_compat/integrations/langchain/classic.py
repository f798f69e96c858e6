"""LangChain's classic chains, symbolically: LLMChain, stuff, map-reduce and refine over documents.

They are ordinary Python that formats a prompt, asks a model, and goes on with the text. What they do between their
calls is known here, class by class, by name: `langchain-classic` need not be installed.

The invariant: a chain that measures its texts (the reduce step asks whether they must be collapsed first) is planned
only where the answer is certain before there is a text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompt_values import StringPromptValue

from parrot_compat.integrations.plans.book import Draft
from parrot_compat.integrations.plans.markers import Markers

from .settings import ParrotSettings
from .values import DICTS, LISTS, UNKNOWN, is_plain

__all__ = ["Evaluator", "classic_step"]

MODULE = "langchain_classic.chains"


class Evaluator(Protocol):
    """What of a symbolic run is needed here."""

    drafts: list[Draft]
    markers: Markers

    def walk(self, runnable: Any, value: Any, given: Mapping[str, Any] = ..., /) -> Any: ...

    def group(self, elements: Sequence[Callable[[], Any]]) -> list[Any]: ...


Step = Callable[[Evaluator, Any, dict[str, Any]], Any]


def classic_step(kind: type) -> Callable[[Evaluator, Any, Any], Any] | None:
    """How to evaluate a chain of exactly this class."""
    step = _STEPS.get(f"{kind.__module__}.{kind.__qualname__}")
    return None if step is None else partial(_run, step)


def _run(step: Step, run: Evaluator, chain: Any, value: Any) -> Any:
    """A chain's `invoke`: from its inputs to its inputs and outputs."""
    if chain.memory is not None:
        return UNKNOWN
    if type(value) not in DICTS:
        if len(chain.input_keys) != 1:
            return UNKNOWN
        value = {chain.input_keys[0]: value}
    outputs = step(run, chain, dict(value))
    return {**value, **outputs} if isinstance(outputs, dict) else UNKNOWN


# ---- one prompt ------------------------------------------------------------------------------------------


def _llm_chain(run: Evaluator, chain: Any, inputs: dict[str, Any]) -> Any:
    listed: Any = inputs.get("input_list")
    if type(listed) in LISTS and set(inputs) == {"input_list"} and "input_list" not in chain.input_keys:
        run.group([partial(_predict, run, chain, item) for item in listed])  # it was called by `apply`
        return UNKNOWN
    text = _predict(run, chain, inputs)
    if text is UNKNOWN or not chain.return_final_only:
        return UNKNOWN
    return {chain.output_key: text}


def _predict(run: Evaluator, chain: Any, inputs: Mapping[str, Any]) -> Any:
    """The text that the chain's model will write."""
    if type(chain.output_parser) is not StrOutputParser or any(key not in inputs for key in chain.input_keys):
        return UNKNOWN
    prompt = run.walk(chain.prompt, {key: inputs[key] for key in chain.input_keys})
    given = {**({"stop": inputs["stop"]} if "stop" in inputs else {}), **chain.llm_kwargs}
    return run.walk(chain.output_parser, run.walk(chain.llm, prompt, given))


# ---- documents -------------------------------------------------------------------------------------------


def _documents(chain: Any, inputs: dict[str, Any]) -> list[Document] | None:
    """Taken out of the inputs; the rest are variables of the prompts."""
    documents: Any = inputs.pop(chain.input_key, None)
    if type(documents) not in LISTS or not documents or "callbacks" in inputs:
        return None
    plain = all(type(document) is Document and is_plain(document.metadata) for document in documents)
    return list(documents) if plain else None


def _formatted(run: Evaluator, document: Document, prompt: Any) -> Any:
    facts = {"page_content": document.page_content, **document.metadata}
    if any(name not in facts for name in prompt.input_variables):
        return UNKNOWN
    value = run.walk(prompt, {name: facts[name] for name in prompt.input_variables})
    return value.text if isinstance(value, StringPromptValue) else UNKNOWN


def _stuff(run: Evaluator, chain: Any, inputs: dict[str, Any]) -> Any:
    documents = _documents(chain, inputs)
    text = UNKNOWN if documents is None else _stuffed(run, chain, documents, inputs)
    return UNKNOWN if text is UNKNOWN else {chain.output_key: text}


def _stuffed(run: Evaluator, chain: Any, documents: Sequence[Document], others: Mapping[str, Any]) -> Any:
    texts = [_formatted(run, document, chain.document_prompt) for document in documents]
    if UNKNOWN in texts:
        return UNKNOWN
    wanted = {key: value for key, value in others.items() if key in chain.llm_chain.prompt.input_variables}
    return _inner(run, chain.llm_chain, {**wanted, chain.document_variable_name: chain.document_separator.join(texts)})


def _inner(run: Evaluator, chain: Any, inputs: Mapping[str, Any]) -> Any:
    """A chain inside a chain: its own run begins later, and is covered by this one."""
    outputs = run.walk(chain, inputs)
    return outputs[chain.output_key] if type(outputs) in DICTS else UNKNOWN


def _map_reduce(run: Evaluator, chain: Any, inputs: dict[str, Any]) -> Any:
    documents = _documents(chain, inputs)
    if documents is None:
        return UNKNOWN
    token_max = inputs.pop("token_max", None)
    variable = chain.document_variable_name
    each = [{variable: document.page_content, **inputs} for document in documents]
    before = len(run.drafts)
    texts = run.group([partial(_inner, run, chain.llm_chain, item) for item in each])
    mapped = run.drafts[before:]
    if UNKNOWN in texts or len(mapped) != len(texts):
        return UNKNOWN
    made = [
        Document(page_content=text, metadata=document.metadata) for text, document in zip(texts, documents, strict=True)
    ]
    reduce = chain.reduce_documents_chain
    if _name(reduce) == "ReduceDocumentsChain":
        if not _fits(run, reduce, made, inputs, mapped, token_max or reduce.token_max):
            return UNKNOWN
        reduce = reduce.combine_documents_chain
    if _name(reduce) != "StuffDocumentsChain":
        return UNKNOWN
    text = _stuffed(run, reduce, made, inputs)
    if text is UNKNOWN:
        return UNKNOWN
    return {chain.output_key: text, **({"intermediate_steps": texts} if chain.return_intermediate_steps else {})}


def _fits(
    run: Evaluator,
    chain: Any,
    documents: Sequence[Document],
    others: Mapping[str, Any],
    mapped: Sequence[Draft],
    token_max: int,
) -> bool:
    """The texts need no collapsing, whatever they will be: as many bytes as the prompt has around them, and as many
    tokens as each may have, are within the limit. (A tokenizer makes no more tokens than bytes of a text; one text is
    counted with the tokenizer that wrote it.)"""
    stuff = chain.combine_documents_chain
    if _name(stuff) != "StuffDocumentsChain":
        return False
    model = stuff.llm_chain.llm
    counts = isinstance(model, ParrotSettings) and model.custom_get_token_ids is None
    served = {(draft.endpoint.server, draft.call.request.get("model")) for draft in mapped}
    if not counts or served != {(model._endpoint.server, model.model_name)}:
        return False
    limits = [limit for draft in mapped if isinstance(limit := draft.call.request.get("max_tokens"), int)]
    texts = [_formatted(run, document, stuff.document_prompt) for document in documents]
    if UNKNOWN in texts or len(limits) != len(mapped):
        return False
    wanted = {key: value for key, value in others.items() if key in stuff.llm_chain.prompt.input_variables}
    joined = {**wanted, stuff.document_variable_name: stuff.document_separator.join(texts)}
    if any(key not in joined for key in stuff.llm_chain.input_keys):
        return False
    prompt = run.walk(stuff.llm_chain.prompt, joined)
    if prompt is UNKNOWN:
        return False
    pieces = run.markers.split(prompt.to_string())
    fixed = sum(len(piece.encode()) for piece in pieces if isinstance(piece, str))
    uses = sum(not isinstance(piece, str) for piece in pieces)
    written = sum(limits) if uses == len(limits) else max(limits) * uses
    return fixed + written + SPECIAL_TOKENS <= token_max


SPECIAL_TOKENS = 8
"""That a tokenizer may put around a text."""


def _refine(run: Evaluator, chain: Any, inputs: dict[str, Any]) -> Any:
    documents = _documents(chain, inputs)
    if documents is None:
        return UNKNOWN
    variable = chain.document_variable_name
    text: Any = UNKNOWN
    steps: list[Any] = []
    for index, document in enumerate(documents):
        read = _formatted(run, document, chain.document_prompt)
        if read is UNKNOWN:
            return UNKNOWN
        if index == 0:
            text = _inner(run, chain.initial_llm_chain, {variable: read, **inputs})
        else:
            given = {variable: read, chain.initial_response_name: text, **inputs}
            text = _inner(run, chain.refine_llm_chain, given)
        if text is UNKNOWN:
            return UNKNOWN
        steps.append(text)
    return {chain.output_key: text, **({"intermediate_steps": steps} if chain.return_intermediate_steps else {})}


def _name(chain: Any) -> str:
    kind = type(chain)
    return kind.__qualname__ if kind.__module__.startswith(f"{MODULE}.") else ""


_STEPS: Mapping[str, Step] = {
    f"{MODULE}.llm.LLMChain": _llm_chain,
    f"{MODULE}.combine_documents.stuff.StuffDocumentsChain": _stuff,
    f"{MODULE}.combine_documents.map_reduce.MapReduceDocumentsChain": _map_reduce,
    f"{MODULE}.combine_documents.refine.RefineDocumentsChain": _refine,
}
