"""Scripts: what the scripted engine says to a prompt, and where sampling ends it.

It knows nothing of engines, contexts or time. One character is one token.

The invariant: same script, prompt, sampling and room, same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..call import Finish, ResolvedSampling, TokenLogprobs
from ..errors import EngineError

__all__ = ["Script", "ScriptedAnswer", "answer", "certain"]

Script = Callable[[str], str] | Mapping[str, str]
"""From the text of a prompt to the answer. A mapping answers with the value of the longest key found in the prompt."""


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """`drawn` tokens were drawn to say `ids`: a stop string is drawn and not said."""

    ids: tuple[int, ...]
    drawn: int
    finish: Finish
    stop: str | None = None
    """The stop string that ended it."""


def answer(script: Script, prompt: str, sampling: ResolvedSampling, room: int) -> ScriptedAnswer:
    """`room` is the tokens left in the context. Errors: `EngineError` where a mapping has no answer."""
    text = _scripted(script, prompt)
    room = min(sampling.max_tokens, room)
    if sampling.ignore_eos and text:
        text *= room // len(text) + 1  # the model that may not stop says it again
    finish = Finish.LENGTH if len(text) > room else Finish.STOP
    text = text[:room]
    drawn, kept = len(text), len(text)
    met: str | None = None
    for end, length, stop in _stops(text, sampling):
        if end < drawn or finish is Finish.LENGTH:
            drawn, kept, finish, met = end, end - length, Finish.STOP, stop
    return ScriptedAnswer(ids=tuple(map(ord, text[:kept])), drawn=drawn, finish=finish, stop=met)


def certain(ids: Sequence[int], top: int | None) -> tuple[TokenLogprobs, ...]:
    """What a script says, and what was said to it, was never in doubt. `None`: nobody asked."""
    return () if top is None else tuple(TokenLogprobs(id, 0.0, ((id, 0.0),)[:top]) for id in ids)


def _scripted(script: Script, prompt: str) -> str:
    if not isinstance(script, Mapping):
        return script(prompt)
    keys = [key for key in script if key in prompt]
    if not keys:
        raise EngineError(f"the script has no answer for a prompt that ends in {prompt[-80:]!r}")
    return script[max(keys, key=len)]


def _stops(text: str, sampling: ResolvedSampling) -> Iterator[tuple[int, int, str | None]]:
    """Where each stop string and the first stop token end, how much of the text each takes away, and the string."""
    for stop in sampling.stop:
        at = text.find(stop, max(0, sampling.min_tokens - len(stop) + 1))
        if at >= 0:
            yield at + len(stop), len(stop), stop
    for position in range(sampling.min_tokens, len(text)):
        if ord(text[position]) in sampling.stop_token_ids:
            yield position + 1, 1, None
            break
