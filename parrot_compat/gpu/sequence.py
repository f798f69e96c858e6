"""A sequence: one Fill, Generate or Embed at work on a context, from its begin to its last answer.

It knows its tokens, what was drawn and when that ends; nothing of scheduling, pages or asyncio.

    context.tokens:  0 ....... base .......... prompt_tokens .............. end
                     [ before ][ the content  ][ drawn, also in `drawn`     ]

If the verb fails or is cancelled the context goes back to `base`; a context that the verb made goes away.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from parrot_compat.core.call import Finish, ResolvedSampling, TokenLogprobs, Usage
from parrot_compat.core.engine import Chunk, Embed, Embedded, Fill, Filled, Generate, Pooling
from parrot_compat.core.errors import EngineError
from parrot_compat.core.output_format import is_whole

from .drawing.draw import Draw
from .drawing.drawn import Drawn, Replaceable
from .drawing.history import History
from .drawing.token_bits import TokenBits
from .kv.context import Context
from .scheduler import due_s
from .step import SequenceView
from .wanted import Pool, Read, Score, Wanted

__all__ = ["Form", "Sequence", "TextStream", "TextStreams", "as_vector"]


class TextStream(Protocol):
    """Drawn tokens in, text out that is safe to show; see `text.text_stream`."""

    met: str | None
    """The stop string that has ended the text."""

    def follow(self, token_id: int | None) -> None: ...

    def push(self, token_ids: Items[int], may_stop: bool = True) -> str: ...

    def flush(self) -> str: ...


class Form(Protocol):
    """The form that a text must have, and how far it is; see `forms.grammar`."""

    is_complete: bool
    is_ended: bool

    def allowed(self, may_end: bool, without: Items[int] = ()) -> TokenBits: ...

    def take(self, token: int, left: int) -> int: ...


TextStreams = Callable[[tuple[str, ...], tuple[str, ...]], TextStream]
"""A new text stream that ends at any of the first strings and shows the control tokens named by the second."""
Forms = Callable[[ResolvedSampling], Form]
"""A new form for an answer so sampled. Errors: `BadSchema`."""


class Sequence:
    """One verb at work on a context whose tokens are the whole prompt; `base` of them were there before."""

    def __init__(
        self,
        id: int,
        verb: Fill | Generate | Embed,
        context: Context,
        *,
        base: int,
        made_context: bool,
        arrived_s: float,
    ) -> None:
        self.id = id
        self.verb = verb
        self.context = context
        self.base = base
        self.made_context = made_context
        self.arrived_s = arrived_s
        self.is_started = False
        self.is_ahead = isinstance(verb, Fill)
        """Nobody waits for it yet."""
        self.due_s = due_s(arrived_s, verb.scope.slack_s, self.is_ahead)
        self.drawn: list[int] = []
        self.prompt_tokens = len(context.tokens)
        self._found_tokens: int | None = None
        self._waited_s = 0.0
        self._max_tokens = 0
        self._text: TextStream | None = None
        self._ends: frozenset[int] = frozenset()
        self._history: History | None = None
        self._form: Form | None = None
        self._pooling: Pooling | None = None
        self._states: npt.NDArray[np.float64] | None = None
        self._scores: list[TokenLogprobs] = []

    def will_pool(self, pooling: Pooling) -> None:
        """Make one vector of the text. Only an Embed does."""
        assert isinstance(self.verb, Embed)
        self._pooling = pooling

    def will_draw(self, max_tokens: int, text: TextStream, eos_token_ids: Items[int], form: Form | None = None) -> None:
        """Draw at most `max_tokens` after the prompt, in this form. Only a Generate does."""
        assert isinstance(self.verb, Generate)
        sampling = self.verb.sampling
        self._max_tokens = max_tokens
        self._text = text
        # what is held to a form has all of it, the blank at its beginning too
        text.follow(None if is_whole(sampling.format) else self.context.tokens[-1])
        self._form = form
        self._ends = frozenset(sampling.stop_token_ids) | (
            frozenset() if sampling.ignore_eos else frozenset(eos_token_ids)
        )
        if sampling.has_penalties:
            self._history = History(self.context.tokens, self.prompt_tokens)

    # ---- state -------------------------------------------------------------------------------------

    @property
    def flow(self) -> str:
        return self.verb.scope.flow

    @property
    def is_computed(self) -> bool:
        return self.context.computed == len(self.context.tokens)

    @property
    def is_drawing(self) -> bool:
        """Its prompt is computed: each step draws one token."""
        return bool(self.drawn) and self.context.computed == len(self.context.tokens) - 1

    @property
    def view(self) -> SequenceView:
        return SequenceView(
            id=self.id,
            tokens=self.context.tokens,
            computed=self.context.computed,
            pages=self.context.pages,
            is_started=self.is_started,
            is_drawing=self.is_drawing,
            is_ahead=self.is_ahead,
            due_s=self.due_s,
            flow=self.flow,
            namespace=self.context.root,
            is_read=self.context.is_read,
        )

    def draw_after(self, computed: int) -> Draw | None:
        """How to draw once `computed` tokens are in the pages; `None` while that is not the whole text."""
        if self._max_tokens == 0 or computed < len(self.context.tokens):
            return None
        assert isinstance(self.verb, Generate)
        sampling, index = self.verb.sampling, len(self.drawn)
        may_end = index >= sampling.min_tokens
        without = () if may_end else sampling.stop_token_ids
        allowed = None if self._form is None else partial(self._form.allowed, may_end=may_end, without=without)
        return Draw(sampling=sampling, index=index, history=self._history, allowed=allowed)

    def wanted_after(self, computed: int) -> Wanted | None:
        """What is to be known of the tokens up to `computed`, those that are computed next."""
        if isinstance(self.verb, Generate) and self.verb.sampling.prompt_logprobs is not None and not self.drawn:
            following = slice(self.context.computed + 1, min(computed + 1, self.prompt_tokens))
            return Score(targets=tuple(self.context.tokens[following]), top=self.verb.sampling.prompt_logprobs)
        if self._pooling is None or (self._pooling == "last" and computed < len(self.context.tokens)):
            return None
        return Pool(pooling=self._pooling)

    @property
    def must_see_each_token(self) -> bool:
        """Its next draw hangs on the text so far, not on the number of drawn tokens alone."""
        return self._form is not None or self._history is not None

    def draw_ahead(self) -> Draw | None:
        """How to draw the token behind the one that is being drawn. `None`: that one is the last."""
        index = len(self.drawn) + 1
        if index >= self._max_tokens:
            return None
        assert isinstance(self.verb, Generate) and not self.must_see_each_token
        return Draw(sampling=self.verb.sampling, index=index)

    def is_awaited(self, by_s: float) -> None:
        """Somebody who is due by then waits for it."""
        if self.is_ahead:
            self.is_ahead, self.due_s = False, min(self.due_s, by_s)

    def hurry(self, slack_s: float) -> None:
        """As if it had come with no more slack than this."""
        self.due_s = min(self.due_s, due_s(self.arrived_s, slack_s, self.is_ahead))

    # ---- answers -----------------------------------------------------------------------------------

    def found_cached(self, now_s: float) -> None:
        """What the context has now was not computed by this verb. Called when the work starts, and starts again.

        The count only falls: what was computed in one of the tries was computed.
        """
        if self._found_tokens is None:
            self._waited_s = now_s - self.arrived_s
        found = min(self.context.computed, self.prompt_tokens)
        self._found_tokens = found if self._found_tokens is None else min(self._found_tokens, found)
        self._states = None
        if not self.drawn:  # else they were handed out with the first
            self._scores = []

    def take_read(self, read: Read) -> None:
        """What was read of the tokens just computed."""
        if read.states is not None:
            self._states = read.states if self._states is None else self._states + read.states
        self._scores += read.logprobs

    def ended(self) -> Filled | Chunk | Embedded | None:
        """The last answer of a verb that has nothing to draw, once all is computed."""
        if self._max_tokens or not self.is_computed:
            return None
        if isinstance(self.verb, Generate):  # max_tokens = 0: the prompt was all
            return Chunk(finish=Finish.LENGTH, usage=self._usage(), prompt_logprobs=self._take_scores())
        if isinstance(self.verb, Embed):
            assert self._states is not None
            vector = as_vector(self._states, self.verb.dimensions)
            return Embedded(vectors=(vector,), prompt_tokens=self.prompt_tokens)
        return Filled(tokens=len(self.context.tokens), cached_tokens=max(0, self._cached_tokens - self.base))

    def accept(self, drawn: Drawn) -> Chunk:
        """The next drawn token. Tokens that end the text are counted and listed, but are no text themselves."""
        assert isinstance(self.verb, Generate) and self._text is not None
        assert not isinstance(drawn, EngineError), "nothing was drawn"
        drawn = self._taken(drawn)
        token, logprobs = (drawn, ()) if isinstance(drawn, int) else (drawn.token, (drawn,))
        least = self.verb.sampling.min_tokens
        is_end = token in self._ends and len(self.drawn) >= least
        self.drawn.append(token)
        if self._form is not None and self._form.is_ended:
            is_end = True  # whether or not it ends a text without a form
        text = "" if is_end else self._text.push((token,), may_stop=len(self.drawn) > least)
        is_end = is_end or (self._form is not None and self._form.is_complete)
        chunk = Chunk(
            text=text,
            tokens=(token,),
            logprobs=logprobs,
            prompt_logprobs=self._take_scores(),
            prompt=replace(self._usage(), output_tokens=0) if len(self.drawn) == 1 else None,
        )
        if not (is_end or self._text.met is not None or len(self.drawn) == self._max_tokens):
            return chunk
        text += self._text.flush()
        finish = Finish.STOP if is_end or self._text.met is not None else Finish.LENGTH
        return replace(chunk, text=text, finish=finish, usage=self._usage(), stop=self._text.met)

    def _take_scores(self) -> tuple[TokenLogprobs, ...]:
        scores, self._scores = tuple(self._scores), []
        return scores

    def _taken(self, drawn: int | TokenLogprobs | Replaceable) -> int | TokenLogprobs:
        """What was drawn, or what has to come in its place for the text to be whole within its tokens."""
        if self._form is None:
            return drawn.told if isinstance(drawn, Replaceable) else drawn
        told = drawn.told if isinstance(drawn, Replaceable) else drawn
        token = told if isinstance(told, int) else told.token
        taken = self._form.take(token, left=self._max_tokens - len(self.drawn) - 1)
        if isinstance(told, int):
            return taken
        assert isinstance(drawn, Replaceable), "a row with a form comes with all its log probabilities"
        return drawn.taken(taken)

    def _usage(self) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens,
            output_tokens=len(self.drawn),
            cached_tokens=self._cached_tokens,
            waited_s=self._waited_s,
        )

    @property
    def _cached_tokens(self) -> int:
        assert self._found_tokens is not None, f"sequence {self.id} ended before it began"
        return self._found_tokens


def as_vector(states: npt.NDArray[np.float64], dimensions: int | None) -> array[float]:
    """The direction of `states` in its first `dimensions`: a mean points where its sum points."""
    kept = states[:dimensions]
    length = float(np.linalg.norm(kept))
    return array("f", (kept / length if length > 0.0 else kept).astype(np.float32).tobytes())
