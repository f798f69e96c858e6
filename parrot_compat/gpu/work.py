"""The work inside an engine: which verbs wait, which are sequences now, and what each leaves behind.

It knows contexts and lines; nothing of steps, pages running out or threads. The verbs on one context stand in line and
run in the order in which they came; a fork takes its parent as it is (a prompt being computed counts as whole, an
answer being drawn as far as it is drawn), but waits for the verbs in its parent's line that have not begun.

The invariant: no verb runs on a context that is not what its caller believes. A verb that fails or is cancelled leaves
its context as it was; those in line behind it fail, and so does what was sent before its failure could be heard of.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from parrot_compat.core.engine import ContextId, Embed, Fill, Generate
from parrot_compat.core.engine_front import Cancel, Command, Free, Hurry, Truncate, Verb
from parrot_compat.core.errors import ContextLost, ParrotError

from .asked import checked_ids, hurried, own_context, place_of
from .config import ResolvedConfig
from .drawing.drawn import Drawn
from .flows import Flows
from .forms.desk import FormDesk
from .kv.contexts import Contexts
from .outbox import Outbox
from .scheduler import due_s
from .sequence import Forms, Sequence, TextStreams

__all__ = ["Work"]

Clock = Callable[[], float]


class Work:
    """All verbs between their command and their last answer."""

    def __init__(
        self,
        config: ResolvedConfig,
        contexts: Contexts,
        text_streams: TextStreams,
        clock: Clock = time.monotonic,
        forms: Forms | None = None,
    ) -> None:
        self.contexts = contexts
        self.sequences: dict[int, Sequence] = {}
        """Verbs that have begun, by command."""
        self.queued: dict[int, Command] = {}
        """Verbs that stand in line."""
        self.flows = Flows()
        self.forms = FormDesk(forms, config.name)
        self.outbox = Outbox()
        self._config = config
        self._text_streams = text_streams
        self._clock = clock
        self._lines: dict[ContextId, deque[int]] = {}
        self._stands_in: dict[int, tuple[ContextId, ...]] = {}
        self._moved: deque[ContextId] = deque()
        """Lines whose first verb may begin."""

    @property
    def can_go_on(self) -> bool:
        """There is something to do now; a verb that waits for its form, and those behind it, are nothing."""
        moves = self._moved or self.forms.has_news
        return bool(self.sequences or moves or (self.queued and not self.forms.is_compiling))

    def take(self, command: Command) -> None:
        self.outbox.heard(command.heard)
        match command.verb:
            case Cancel(target):
                self._cancel(target)
                self.outbox.left(target)
            case Free(context):
                self._free(context)
                self.outbox.freed(context)
                self.outbox.answer(command.id, None)
            case Hurry(context, slack_s):
                self._hurry(context, slack_s)
            case _:
                self._queue(command)
        self.begin()

    def begin(self) -> None:
        """Begin the verbs whose turn has come."""
        self._moved.extend(self._stands_in[id][0] for id in self.forms.take_ready() if id in self._stands_in)
        while self._moved:
            self._begin_first(self._moved.popleft())

    # ---- how a sequence goes on and ends -----------------------------------------------------------

    def extend(self, sequence: Sequence, drawn: Drawn) -> None:
        """A token was drawn: it belongs to the context, and its text to the answer."""
        chunk = sequence.accept(drawn)
        if sequence.context.is_read:  # what was read went out with the first token
            self.contexts.was_read(sequence.context)
        self.contexts.extend(sequence.context, chunk.tokens)
        self.outbox.answer(sequence.id, chunk)
        if chunk.finish is not None:
            self._leave(sequence)

    def end_if_computed(self, sequence: Sequence) -> bool:
        """Answer a verb that has nothing to draw, if all its tokens are computed."""
        answer = sequence.ended()
        if answer is None:
            return False
        self.outbox.answer(sequence.id, answer)
        self._leave(sequence)
        return True

    def fail(self, sequence: Sequence, error: ParrotError) -> None:
        self.outbox.fail(sequence.id, ContextId(sequence.context.id), error)
        self._undo(sequence)

    # ---- commands ----------------------------------------------------------------------------------

    def _queue(self, command: Command) -> None:
        verb = command.verb
        assert isinstance(verb, Fill | Generate | Embed | Truncate)
        place = place_of(command)
        lines = [place]
        parent = (
            verb.parent
            if isinstance(verb, Fill | Generate) and not (place in self._lines or self.contexts.holds(place))
            else None
        )
        if (failed := self.outbox.untold(place, parent)) is not None:
            self.outbox.fail_behind(command.id, place, failed)
            return
        if parent is not None and any(id in self.queued for id in self._lines.get(parent, ())):
            lines.append(parent)
        self.queued[command.id] = command
        self._stands_in[command.id] = tuple(lines)
        for context in lines:
            self._lines.setdefault(context, deque()).append(command.id)
        for waited in (place, parent or place):
            self._is_awaited(waited, verb)
        self._moved.append(place)

    def _is_awaited(self, context: ContextId, verb: Verb) -> None:
        """A fill at work in this line is work ahead no longer if `verb` draws, which waits for it (or forks it)."""
        line = self._lines.get(context)
        if line and isinstance(verb, Generate) and (first := self.sequences.get(line[0])) is not None:
            first.is_awaited(due_s(self._clock(), verb.scope.slack_s, is_fill=False))

    def _begin_first(self, context: ContextId) -> None:
        """Begin the first verb in a line if it is the first in all its lines."""
        line = self._lines.get(context)
        command = self.queued.get(line[0]) if line else None
        is_first = command and all(self._lines[other][0] == command.id for other in self._stands_in[command.id])
        if command is not None and is_first and self.forms.is_ready(command):
            self._begin(command)

    def _begin(self, command: Command) -> None:
        verb = command.verb
        del self.queued[command.id]
        try:
            if isinstance(verb, Truncate):
                self.contexts.truncate(self.contexts.get(verb.context), max(0, verb.tokens))
                self.outbox.answer(command.id, None)
                self._leave_lines(command.id)
                return
            if isinstance(verb, Embed):
                sequence = self._open_to_embed(command.id, verb)
            else:
                assert isinstance(verb, Fill | Generate)
                sequence = self._open(command.id, verb)
        except ParrotError as error:
            self.outbox.fail(command.id, place_of(command), error)
            self.forms.forget(command.id)
            self._fail_behind(command.id)
            return
        self.sequences[command.id] = sequence
        self.flows.enter(sequence.flow)
        for other in self._stands_in[command.id][1:]:  # forked: the parent's line goes on
            self._leave_line(command.id, other)
        self._stands_in[command.id] = (place_of(command),)
        for behind in list(self._lines[place_of(command)])[1:]:
            self._is_awaited(place_of(command), self.queued[behind].verb)

    def _open(self, id: int, verb: Fill | Generate) -> Sequence:
        """The context with the content in it, forked or made if need be. Errors leave everything as it was."""
        made = not self.contexts.holds(verb.context)
        source = verb.parent if made else verb.context
        held = 0
        if source is not None:
            holder = self.contexts.get(source)
            if holder.namespace != verb.scope.namespace:
                raise ContextLost(f"context {source} is of another namespace than {verb.scope.namespace!r}")
            held = len(holder.tokens)
        ids = checked_ids(self._config, verb, held)
        form = self.forms.take(id, verb.sampling) if isinstance(verb, Generate) else None
        draws = isinstance(verb, Generate) and verb.sampling.max_tokens > 0
        is_read = isinstance(verb, Generate) and verb.sampling.prompt_logprobs is not None
        if not made:
            context = self.contexts.get(verb.context)
        elif verb.parent is not None:
            context = self.contexts.fork(verb.context, verb.parent)
        else:
            context = self.contexts.open(verb.context, verb.scope.namespace)
        self.contexts.extend(context, ids, keep_last=draws, is_read=is_read, salt=self._config.salt(held + len(ids)))
        sequence = Sequence(id, verb, context, base=held, made_context=made, arrived_s=self._clock())
        if isinstance(verb, Generate):
            most = min(verb.sampling.max_tokens, self._config.context_tokens - sequence.prompt_tokens)
            text = self._text_streams(verb.sampling.stop, verb.marks)
            sequence.will_draw(max(0, most), text, self._config.checkpoint.eos_token_ids, form)
        return sequence

    def _open_to_embed(self, id: int, embed: Embed) -> Sequence:
        """In a context of its own, which goes when the vector is there."""
        ids = checked_ids(self._config, embed, 0)
        pooling = embed.pooling or self._config.checkpoint.pooling
        context = self.contexts.open(own_context(id), embed.scope.namespace)
        self.contexts.extend(context, ids, keep_last=True, is_read=pooling == "mean", salt=self._config.salt(len(ids)))
        sequence = Sequence(id, embed, context, base=0, made_context=True, arrived_s=self._clock())
        sequence.will_pool(pooling)
        return sequence

    def _free(self, context: ContextId) -> None:
        lost = ContextLost(f"context {context} was freed while work on it was not done")
        while line := self._lines.get(context):  # a fork that is first in it takes only what is in its own line with it
            first = line[0]
            if first in self.sequences:
                self.fail(self.sequences[first], lost)
            else:
                self.outbox.fail(first, place_of(self.queued.pop(first)), lost)
                self.forms.forget(first)
                self._fail_behind(first)
        self.contexts.free(context)

    def _hurry(self, context: ContextId, slack_s: float) -> None:
        for id in self._lines.get(context, ()):
            if id in self.sequences:
                self.sequences[id].hurry(slack_s)
            elif place_of(self.queued[id]) == context:  # else a fork, which waits for what is before it
                self.queued[id] = hurried(self.queued[id], slack_s)

    def _cancel(self, target: int) -> None:
        if target in self.sequences:
            self._undo(self.sequences[target])
        elif self.queued.pop(target, None) is not None:
            self.forms.forget(target)
            self._fail_behind(target)

    # ---- inside ------------------------------------------------------------------------------------

    def _undo(self, sequence: Sequence) -> None:
        """The context is again what it was before the verb."""
        if sequence.made_context:
            self.contexts.free(sequence.context.id)
        else:
            self.contexts.truncate(sequence.context, sequence.base)
        self._forget(sequence)
        self._fail_behind(sequence.id)

    def _leave(self, sequence: Sequence) -> None:
        if isinstance(sequence.verb, Embed):
            self.contexts.free(sequence.context.id)
        self._forget(sequence)
        self._leave_lines(sequence.id)

    def _forget(self, sequence: Sequence) -> None:
        del self.sequences[sequence.id]
        self.flows.leave(sequence.flow)

    def _fail_behind(self, command: int) -> None:
        """`command` leaves undone. Whoever stands behind it counted on what it would have left."""
        context = self._stands_in[command][0]
        line = list(self._lines[context])
        for id in reversed(line[line.index(command) + 1 :]):
            if (behind := self.queued.pop(id, None)) is not None:
                self.outbox.fail_behind(id, place_of(behind), context)
                self._fail_behind(id)
        self._leave_lines(command)

    def _leave_lines(self, command: int) -> None:
        for context in self._stands_in.pop(command, ()):
            self._leave_line(command, context)

    def _leave_line(self, command: int, context: ContextId) -> None:
        line = self._lines[context]
        line.remove(command)
        if line:
            self._moved.append(context)
        else:
            del self._lines[context]

    def check(self) -> None:
        """Assert that lines, verbs and flows agree; with nothing inside, that no page is lost."""
        standing = {id for line in self._lines.values() for id in line}
        assert standing == set(self._stands_in) == set(self.sequences) | set(self.queued), "a verb stands nowhere"
        for id, sequence in self.sequences.items():
            place = ContextId(sequence.context.id)
            assert self._lines[place][0] == id, f"verb {id} runs and is not the first in its line"
            assert self.contexts.get(place) is sequence.context
        self.flows.check()
        self.contexts.check()
