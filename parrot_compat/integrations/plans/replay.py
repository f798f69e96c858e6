"""A finished completion, said again as the stream it could have been.

It knows OpenAI's two forms of one answer and nothing of plans.

The invariant: the chunks, put together, are the completion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk

from .asked import claim_of

__all__ = ["Heard", "chunks_of", "completion_of"]

DELTAS = ("content", "refusal", "reasoning_content", "reasoning")


def completion_of(data: Mapping[str, Any]) -> ChatCompletion:
    """The SDK's own object, made as the SDK makes it (no field is refused)."""
    return ChatCompletion.construct(**{name: value for name, value in data.items() if name != "parrot"})


@dataclass(slots=True)
class Heard:
    """What has been streamed so far of an answer that may be finished in another way."""

    begun: bool = False
    text: str = ""
    plain: bool = True
    """Nothing but text has come, so the rest can be cut off by length."""
    finished: bool = False
    claimed: bool | None = None
    """What the server said, on the last chunk, about the claim."""

    def hear(self, chunk: ChatCompletionChunk) -> None:
        if (claimed := claim_of(chunk)) is not None:
            self.claimed = claimed
        for choice in chunk.choices:
            self.begun = True
            self.text += choice.delta.content or ""
            self.finished = self.finished or choice.finish_reason is not None
            extra = choice.delta.model_extra or {}
            other = choice.delta.tool_calls or choice.delta.refusal or choice.logprobs
            self.plain = self.plain and not other and not any(extra.get(name) for name in DELTAS)

    def can_end_as(self, completion: Mapping[str, Any]) -> bool:
        """`completion` continues what has been heard."""
        if not self.begun:
            return True
        choice = completion["choices"][0]
        only_text = self.plain and not choice.get("logprobs") and not choice["message"].get("tool_calls")
        content = choice["message"].get("content") or ""
        return only_text and not self.finished and content.startswith(self.text)


def chunks_of(
    completion: Mapping[str, Any], *, usage: bool, heard: Heard | None = None
) -> Iterator[ChatCompletionChunk]:
    """The answer as chunks, without what has been heard of it. `usage`: end with a chunk that counts the tokens."""
    heard = heard or Heard()
    head = {name: completion.get(name) for name in ("id", "created", "model", "system_fingerprint")}
    head["object"] = "chat.completion.chunk"

    def chunk(index: int, delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> ChatCompletionChunk:
        choice = {"index": index, "delta": dict(delta), "finish_reason": finish, "logprobs": None, **more}
        return ChatCompletionChunk.construct(**head, choices=[choice])

    for choice in completion["choices"]:
        index, message = choice.get("index", 0), choice["message"]
        if not heard.begun:
            yield chunk(index, {"role": "assistant", "content": ""})
        text = {name: message[name] for name in DELTAS if message.get(name)}
        if heard.text:
            text["content"] = text.get("content", "")[len(heard.text) :]
        if any(text.values()):
            yield chunk(index, text, logprobs=choice.get("logprobs"))
        if calls := message.get("tool_calls"):
            yield chunk(index, {"tool_calls": [{"index": n, **call} for n, call in enumerate(calls)]})
        yield chunk(index, {}, choice.get("finish_reason"))
    if usage:
        yield ChatCompletionChunk.construct(**head, choices=[], usage=completion.get("usage"))
