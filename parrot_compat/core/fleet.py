"""The fleet: the engines known, what is known of each, and the loss and return of engines.

It knows nothing of sessions or of which task should go where.

The invariant: an engine is a member from the moment it joins until it is lost or the fleet closes; nothing is
ever given to one that is not, and the numbers kept of a member are those of the work it has. A model is away from the
moment its last engine is lost until one has joined again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .background import Background
from .clock import Clock, RealClock
from .engine import ContextId, Engine, EngineInfo
from .errors import BadSchema, EngineError, EngineLost, ModelAway, ModelRefused, NoEngineForModel, ParrotError
from .events import EngineGone, EngineJoined, EventStream
from .format_checks import FormatChecks
from .member import Member, Mortal, Restart, Retiring
from .output_format import OutputFormat, size_of
from .tokenizer import FormatChecker, Tokenizer

__all__ = ["LONGEST_AWAY_S", "Fleet", "Member", "Mortal", "Restart"]

_log = logging.getLogger(__name__)

_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.25, 30.0  # a crash is usually mended at once, a broken machine is not hammered

LONGEST_AWAY_S = 300.0
"""So long calls wait for a model whose engines are all lost: loading a large one again takes minutes, not more."""


@dataclass(slots=True)
class _Absence:
    """A model that is served, and has no engine now."""

    engine: str
    """The one that was lost last."""
    since_s: float
    reason: str
    watch: asyncio.Task[None]
    is_long: bool = False
    """It has lasted for `LONGEST_AWAY_S`: nobody waits for its end any more."""


@dataclass(slots=True)
class _Return:
    """An engine that is being started again."""

    info: EngineInfo
    """As it was."""
    watch: asyncio.Task[None]
    is_long: bool = False
    """It has been for `LONGEST_AWAY_S`: nothing waits for it any more."""


class Fleet:
    """Engines come by `add` and go by `lost` or `close`."""

    def __init__(self, *, events: EventStream | None = None, clock: Clock | None = None) -> None:
        self.events = events or EventStream()
        self.clock: Clock = clock or RealClock()
        self._members: dict[str, Member] = {}
        self._order: dict[str, None] = {}  # of models, as they first joined
        self._returning: dict[str, _Return] = {}
        self._away: dict[str, _Absence] = {}  # by model
        self._tokenizers: dict[str, Tokenizer] = {}
        self._formats = FormatChecks()
        self._contexts = itertools.count(1)
        self._background = Background()
        self._watchers: list[Callable[[], None]] = []
        self._is_closed = False

    # ---- questions -----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members.values()))

    def models(self) -> tuple[str, ...]:
        """Served models, in the order in which their engines joined; one whose engine is just restarting stays."""
        return tuple(self._order)

    def infos(self, model: str | None = None) -> list[EngineInfo]:
        """Of the engines here and of those being started again (as they were)."""
        return [*self._here_or_soon(model), *(one.info for one in self._gone_for_long(model))]

    def counting(self, model: str) -> list[EngineInfo]:
        """Those that a call may count on: engines that have not come back for `LONGEST_AWAY_S` only where there is no
        other."""
        return self._here_or_soon(model) or self.infos(model)

    def serving(self, model: str) -> tuple[Member, ...]:
        return tuple(member for member in self if member.info.model == model)

    def expects(self, model: str) -> bool:
        """True if an engine for the model is here or on its way."""
        return bool(self.infos(model))

    def away(self, model: str) -> ModelAway | None:
        """Why nothing should wait for the model any more; `None` where it is here, or may soon be back."""
        absence = self._away.get(model)
        if absence is None or not absence.is_long:
            return None
        gone_s = self.clock.now() - absence.since_s
        return ModelAway(
            f"model {model!r} has no engine: {absence.engine!r} was lost {gone_s:.0f} s ago ({absence.reason}) and has"
            " not come back; it is still being started again"
        )

    def model(self, asked: str | None) -> str:
        """The model a call runs on: the one asked for, or the fleet's first. Errors: `NoEngineForModel`."""
        models = self.models()
        if asked is None and models:
            return models[0]
        if asked is not None and asked in models:
            return asked
        served = ", ".join(map(repr, models)) or "nothing"
        raise NoEngineForModel(f"no engine serves {'any model' if asked is None else repr(asked)}; served: {served}")

    def context_tokens(self, model: str) -> int | None:
        """The largest context among the engines that count; `None` where a text engine judges lengths by itself."""
        infos = self.counting(model)
        if not infos or any(info.takes == "text" for info in infos):
            return None
        return max(info.context_tokens for info in infos)

    def step_s(self, model: str) -> float:
        """Time of one token of an answer, seconds, as it has been of late."""
        members = self.serving(model)
        return sum(member.step_s for member in members) / len(members) if members else 0.03

    def tokenizer(self, model: str) -> Tokenizer | None:
        """`None` where only text engines serve the model and none came with a tokenizer."""
        return self._tokenizers.get(model)

    async def check_format(self, model: str, format: OutputFormat | None) -> None:
        """Errors: `BadSchema` where no engine holds an answer to it, or where no answer of this form is found."""
        if format is None:
            return
        size_of(format)
        if not all(info.obeys_formats for info in self.infos(model)):
            raise BadSchema(f"the engine of model {model!r} cannot hold an answer to an output format")
        tokenizer = self.tokenizer(model)
        if isinstance(tokenizer, FormatChecker):
            await self._formats.check(tokenizer, format)

    def member(self, name: str) -> Member:
        return self._members[name]

    def draw_context(self) -> ContextId:
        return ContextId(next(self._contexts))

    def watch(self, changed: Callable[[], None]) -> None:
        """`changed` is called whenever an engine has joined or gone."""
        self._watchers.append(changed)

    # ---- changes ---------------------------------------------------------------------------------------

    def add(self, engine: Engine, tokenizer: Tokenizer | None = None, *, restart: Restart | None = None) -> Member:
        """A started engine joins. Engines of one model share its tokenizer. Errors: `EngineError`, `ModelRefused`."""
        info = engine.info
        if self._is_closed:
            raise EngineError(f"engine {info.name!r} cannot join: the fleet is closed")
        if info.name in self._members:
            raise EngineError(f"an engine named {info.name!r} is in the fleet already")
        tokenizer = tokenizer or self._tokenizers.get(info.model)
        if tokenizer is None and info.takes == "tokens":
            raise ModelRefused(f"engine {info.name!r} takes tokens, but no tokenizer came with model {info.model!r}")
        if tokenizer is not None:
            self._tokenizers[info.model] = tokenizer
        member = self._members[info.name] = Member(engine, tokenizer, restart)
        if (before := self._returning.pop(info.name, None)) is not None:
            before.watch.cancel()
        self._order.setdefault(info.model)
        self._back(info.model)
        if before is not None and not self.expects(before.info.model):  # it has come back with another one
            del self._order[before.info.model]
            self._back(before.info.model)
        if isinstance(engine, Mortal):
            self._background.spawn(self._mourn(member, engine), f"watch engine {info.name}")
        self.events.emit(EngineJoined(at_s=self.clock.now(), info=info))
        self._tell()
        return member

    def lost(self, member: Member, error: ParrotError) -> None:
        """The engine leaves at once. With a `restart` a fresh one takes its place when it is up."""
        if member.is_lost or self._is_closed:
            return
        member.is_lost = True
        name, model = member.info.name, member.info.model
        del self._members[name]
        if member.restart is not None:
            watch = self._background.spawn(self._wait_for_engine(name), f"wait for engine {name}")
            self._returning[name] = _Return(member.info, watch)
        if not self.expects(model):
            del self._order[model]
        elif not self.serving(model):
            watch = self._background.spawn(self._wait_for(model), f"wait for model {model}")
            self._away[model] = _Absence(name, self.clock.now(), str(error), watch)
        self.events.emit(
            EngineGone(
                at_s=self.clock.now(),
                engine=name,
                model=model,
                reason=str(error),
                is_restarting=member.restart is not None,
            )
        )
        _log.warning("engine %r is lost: %s", name, error)
        self._background.spawn(self._replace(member), f"replace engine {name}")
        self._tell()

    async def close(self) -> None:
        """Close every engine. Work still inside fails with `EngineLost`."""
        self._is_closed = True
        await self._background.stop()
        members, self._members = tuple(self._members.values()), {}
        self._returning.clear()
        self._order.clear()
        self._away.clear()
        await asyncio.gather(*map(_close, members))  # each may need all of its grace
        self._tell()

    def check(self) -> None:
        assert not self._members.keys() & self._returning.keys()
        assert self._order.keys() == {info.model for info in self.infos()}
        assert self._away.keys() == {model for model in self._order if not self.serving(model)}
        for name, member in self._members.items():
            assert member.info.name == name and not member.is_lost
            assert member.info.takes == "text" or self._tokenizers.get(member.info.model) is not None
            member.check()

    # ---- inside ----------------------------------------------------------------------------------------

    def _here_or_soon(self, model: str | None) -> list[EngineInfo]:
        known = [member.info for member in self._members.values()]
        known += [one.info for one in self._returning.values() if not one.is_long]
        return [info for info in known if model is None or info.model == model]

    def _gone_for_long(self, model: str | None) -> list[_Return]:
        return [one for one in self._returning.values() if one.is_long and model in (None, one.info.model)]

    async def _mourn(self, member: Member, engine: Mortal) -> None:
        self.lost(member, await engine.lost())

    async def _wait_for(self, model: str) -> None:
        """Cancelled when the model is back."""
        await self.clock.sleep(LONGEST_AWAY_S)
        self._away[model].is_long = True
        _log.warning("%s", self.away(model))
        self._tell()

    async def _wait_for_engine(self, name: str) -> None:
        """Cancelled when it is back. What only this one has the room for fails then, though others serve the model."""
        await self.clock.sleep(LONGEST_AWAY_S)
        self._returning[name].is_long = True
        self._tell()

    def _back(self, model: str) -> None:
        """It is away no more: here again, or no longer served."""
        if (absence := self._away.pop(model, None)) is not None:
            absence.watch.cancel()

    async def _replace(self, member: Member) -> None:
        if isinstance(member.engine, Retiring):
            self._background.spawn(member.engine.retire(), f"retire engine {member.info.name}")
        else:
            await _close(member)
        backoff_s = _FIRST_BACKOFF_S
        while member.restart is not None:
            try:
                engine = await member.restart()
            except Exception as error:  # whatever keeps it from starting, the next try may go better
                _log.warning("engine %r did not start again (next try in %g s): %s", member.info.name, backoff_s, error)
                await self.clock.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
            else:
                self.add(engine, member.tokenizer, restart=member.restart)
                break

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()


async def _close(member: Member) -> None:
    try:
        await member.engine.close()
    except EngineLost:
        pass  # it went before it could be asked to
    except Exception:
        _log.exception("engine %r did not close cleanly", member.info.name)
