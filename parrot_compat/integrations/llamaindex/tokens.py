"""Counting tokens as the served model does, for LlamaIndex's splitters and prompt helpers.

They ask for a text, and where it is too long for each of its pieces, by thousands: a request for each would be slow.
So when one piece of a text is asked for, all its pieces are, in one request, and remembered. A server that does not
count many texts at once is not asked; then LlamaIndex's own tokenizer counts, as if this one was not there. It does so
for a while where the server could not be asked.

It knows `/tokenize` and how LlamaIndex splits. The invariant: what is counted is what the server says of that text,
whatever was asked before it.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import llama_index.core
import openai
from llama_index.core.node_parser.text.utils import split_by_sentence_tokenizer, split_by_sep
from llama_index.core.utils import get_tokenizer, set_global_tokenizer

from parrot_compat.core.shown import shown_url
from parrot_compat.integrations import remote
from parrot_compat.integrations.process_lock import ProcessLock
from parrot_compat.integrations.remote import Endpoint

__all__ = ["ServerTokenizer", "count_by"]

log = logging.getLogger(__name__)

COUNT_TIMEOUT_S = 30.0
"""Of one request: what is split and packed waits for it."""
ASK_AGAIN_S = 30.0
"""A server that could not count is asked again after this long, not at every text."""
BATCH = 2048
LONG_CHARACTERS = 64
_NOT_SO = (400, 404, 405, 422)
"""A server without the path, or that takes no list of texts."""
PIECES_KEPT, TEXTS_KEPT = 100_000, 256
SPLITS: tuple[Callable[[str], list[str]], ...] = (split_by_sep(" "), split_by_sep("\n"), split_by_sep("\n\n\n"))


class ServerTokenizer:
    """Takes the place of LlamaIndex's global tokenizer: a text's token ids, without those that begin every prompt."""

    def __init__(self, endpoint: Endpoint, model: str | None) -> None:
        self.endpoint = endpoint
        self.model = model
        self._lock = ProcessLock()
        self._known: OrderedDict[str, list[int]] = OrderedDict()
        self._texts: OrderedDict[str, list[int]] = OrderedDict()
        self._recent: deque[str] = deque(maxlen=8)
        self._beginning: list[int] | None = None
        self._default: Callable[[str], list[int]] | None = None
        self._failed_at: float | None = None

    def __reduce__(self) -> tuple[Callable[..., ServerTokenizer], tuple[Endpoint, str | None]]:
        """What has taken it is copied, and sent to other processes: there is one for each model in each."""
        return _tokenizer_of, (self.endpoint, self.model)

    def __call__(self, text: str) -> list[int]:
        if self._default is not None:
            return self._default(text)
        with self._lock:
            is_long = len(text) > LONG_CHARACTERS
            if is_long and text not in self._recent:
                self._recent.append(text)
            found = self._known.get(text)
            if found is None:
                found = self._texts.get(text)
            if found is None:
                if self._failed_at is not None and time.monotonic() - self._failed_at < ASK_AGAIN_S:
                    return _own_tokenizer()(text)
                try:
                    found = self._asked(text)
                except (openai.APIError, _OneByOne) as error:
                    return self._without(error)(text)
                self._failed_at = None
        return found

    def _without(self, error: Exception) -> Callable[[str], list[int]]:
        """What counts in its place: for good where the server has no such path, for a while where it failed."""
        log.debug("%s counts no tokens for us: %s", shown_url(self.endpoint.base_url), error)
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        if isinstance(error, _OneByOne) or status in _NOT_SO:
            self._default = _default_tokenizer()
            return self._default
        self._failed_at = time.monotonic()
        return _own_tokenizer()

    def _asked(self, text: str) -> list[int]:
        if self._beginning is None:
            self._beginning = self._sent([""])[0]
            self._known[""] = []
            if not text:
                return []
        wanted = [piece for piece in self._pieces_with(text) if piece not in self._known]
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            self._known.update(zip(batch, self._counted(batch), strict=True))
        while len(self._known) > PIECES_KEPT:
            self._known.popitem(last=False)
        if text in self._known:
            return self._known[text]
        # short ones are asked for again and again: the names of roles, separators, what documents are described by
        kept, most = (self._texts, TEXTS_KEPT) if len(text) > LONG_CHARACTERS else (self._known, PIECES_KEPT)
        kept[text] = found = self._counted([text])[0]
        if len(kept) > most:
            kept.popitem(last=False)
        return found

    def _pieces_with(self, text: str) -> list[str]:
        """The pieces of a recent text among which this one is: the others will be asked for next."""
        for longer in reversed(self._recent):
            if len(longer) <= len(text) or text not in longer:
                continue
            for split in (*SPLITS, _sentences()):
                pieces = dict.fromkeys(split(longer))
                if text in pieces:
                    return list(pieces)
        return []

    def _counted(self, texts: Sequence[str]) -> list[list[int]]:
        begin = self._beginning or []
        return [ids[len(begin) :] if ids[: len(begin)] == begin else ids for ids in self._sent(texts)]

    def _sent(self, texts: Sequence[str]) -> list[list[int]]:
        body = {"prompt": list(texts), **({"model": self.model} if self.model else {})}
        limit = openai.Timeout(COUNT_TIMEOUT_S, connect=remote.CONNECT_TIMEOUT_S)
        client = remote.client(self.endpoint).with_options(timeout=limit, max_retries=0)
        answer = client.post(f"{self.endpoint.root_url}/tokenize", cast_to=object, body=body)
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list) or not all(isinstance(ids, list) for ids in tokens):
            raise _OneByOne("it does not count many texts at once")
        return tokens


class _OneByOne(Exception):
    """The path answers, but not as ours does."""


@functools.cache
def _sentences() -> Callable[[str], list[str]]:
    return split_by_sentence_tokenizer()


def _default_tokenizer() -> Callable[[str], list[int]]:
    """LlamaIndex's own, which becomes the global one again."""
    llama_index.core.global_tokenizer = None
    return cast("Callable[[str], list[int]]", get_tokenizer())


@functools.cache
def _own_tokenizer() -> Callable[[str], list[int]]:
    """LlamaIndex's own, beside the global one."""
    current = llama_index.core.global_tokenizer
    own = _default_tokenizer()
    llama_index.core.global_tokenizer = current
    return own


def count_by(endpoint: Endpoint, model: str | None) -> None:
    """Have LlamaIndex count as this model does from now on, unless the app has chosen a tokenizer of its own."""
    current = llama_index.core.global_tokenizer
    if isinstance(current, ServerTokenizer) and (current.endpoint.server, current.model) == (endpoint.server, model):
        return
    if current is None or isinstance(current, ServerTokenizer) or _is_default(current):
        set_global_tokenizer(_tokenizer_of(endpoint.server, model))


@functools.lru_cache(maxsize=16)
def _tokenizer_of(endpoint: Endpoint, model: str | None) -> ServerTokenizer:
    """One per model, so that what was counted stays counted."""
    return ServerTokenizer(endpoint, model)


def _is_default(tokenizer: Any) -> bool:
    """As `get_tokenizer` makes it where nobody has chosen."""
    return isinstance(tokenizer, functools.partial) and tokenizer.keywords == {"allowed_special": "all"}
