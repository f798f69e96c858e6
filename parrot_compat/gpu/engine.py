"""The engine in this process: asyncio outside, one thread that steps inside.

It joins the two halves and nothing more: `core.engine_front` waits for answers, `stepper` makes them. The thread sleeps
while there is nothing to do; what a step has to tell reaches the event loop in one call.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TypeVarTuple
from weakref import WeakMethod

from parrot_compat.core.engine_front import Command, EngineFront, Ready, StepReport
from parrot_compat.core.errors import EngineLost, ParrotError

from .config import EngineConfig
from .runner import ModelRunner
from .stepper import Stepper
from .text.tokenizer import HuggingFaceTokenizer

__all__ = ["StepLoop", "TorchEngine", "load_stepper"]

logger = logging.getLogger(__name__)

Given = TypeVarTuple("Given")


def load_stepper(config: EngineConfig) -> Stepper:
    """Load the model and its tokenizer. Errors: `ModelRefused`, `EngineError`."""
    runner = ModelRunner(config)
    logger.info("%s", runner.config)
    checkpoint = runner.config.checkpoint
    tokenizer = HuggingFaceTokenizer(checkpoint.path)
    return Stepper(runner, tokenizer.text_stream, forms=tokenizer.forms(checkpoint.eos_token_ids))


class StepLoop:
    """Steps while there is work, sleeps while there is none. Any thread may put commands; one runs it."""

    def __init__(self, stepper: Stepper, hand_back: Callable[[StepReport], None]) -> None:
        self._stepper = stepper
        self._hand_back = hand_back
        self._inbox: list[Command] = []
        self._news = threading.Condition()
        self._stopped = False
        self._stepping = threading.Lock()
        stepper.compile_aside(_unowned(self._wake))

    def put(self, command: Command) -> None:
        with self._news:
            self._inbox.append(command)
            self._news.notify()

    def stop(self) -> None:
        """`run` returns after the step at hand."""
        with self._news:
            self._stopped = True
            self._news.notify()

    def run(self) -> None:
        try:
            while (commands := self._wait()) is not None:
                with self._stepping:
                    report = self._stepper.step(commands)
                self._hand_back(report)
        finally:
            self._stepper.stop_compiling()  # a process would end only when the last form is there

    def check(self) -> None:
        """Assert the invariants of what is inside, between two steps."""
        with self._stepping:
            self._stepper.check()

    def _wake(self) -> None:
        with self._news:
            self._news.notify()

    def _wait(self) -> list[Command] | None:
        """The commands that came; none if there is work to go on with. `None`: stopped."""
        with self._news:
            self._news.wait_for(lambda: self._stopped or self._inbox or self._stepper.has_work)
            if self._stopped:
                return None
            commands, self._inbox = self._inbox, []
            return commands


class TorchEngine(EngineFront):
    """A model in this process. `await start()` loads it; `check()` asserts the invariants of its KV.

    >>> engine = TorchEngine(EngineConfig(model="builtin:tiny"))
    >>> await engine.start()
    >>> async for chunk in engine.generate(Generate(...)): ...
    >>> await engine.close()
    """

    def __init__(self, config: EngineConfig, load: Callable[[EngineConfig], Stepper] = load_stepper) -> None:
        super().__init__(config.name)
        self.config = config
        self._load_stepper = load
        self._loop: asyncio.AbstractEventLoop | None = None
        self._steps: StepLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    async def start(self) -> None:
        """Load the model, in the thread that will step it. Errors: `ModelRefused`, `EngineError`."""
        assert self._thread is None, f"engine {self.name!r} was started already"
        self._loop = asyncio.get_running_loop()
        started: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._live, args=(started,), name=self.name, daemon=True)
        self._thread.start()
        await started

    async def close(self) -> None:
        self._closed = True
        self._lose(f"engine {self.name!r} was closed")
        if self._steps is not None:
            self._steps.stop()
        if self._thread is not None and self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def check(self) -> None:
        """Assert that contexts, pages and cache agree; with no contexts left, that no page is lost."""
        assert self._steps is not None, f"engine {self.name!r} has not been started"
        self._steps.check()

    def _send(self, command: Command) -> None:
        assert self._steps is not None
        self._steps.put(command)

    # ---- in the thread -----------------------------------------------------------------------------

    def _live(self, started: asyncio.Future[None]) -> None:
        try:
            stepper = self._load_stepper(self.config)
        except BaseException as error:
            self._tell(self._refuse, started, error)
            return
        self._steps = StepLoop(stepper, _unowned(self._hand_back))
        self._tell(self._begin, started, stepper)
        if self._closed:  # while it was loading
            return
        try:
            self._steps.run()
        except BaseException as error:
            logger.exception("engine %s is lost", self.name)
            self._tell(self._lose, f"engine {self.name!r} died: {type(error).__name__}: {error}")

    def _hand_back(self, report: StepReport) -> None:
        self._tell(self._deliver, report)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:  # the event loop is closed: nobody is left to be told
            if self._steps is not None:
                self._steps.stop()

    # ---- in the event loop -------------------------------------------------------------------------

    def _begin(self, started: asyncio.Future[None], stepper: Stepper) -> None:
        if self._closed:
            self._refuse(started, EngineLost(f"engine {self.name!r} was closed while it was loading"))
            return
        self._join(Ready(stepper.info, stepper.load()))
        if not started.done():
            started.set_result(None)

    def _refuse(self, started: asyncio.Future[None], error: BaseException) -> None:
        if not started.done():
            known = isinstance(error, ParrotError)
            started.set_exception(error if known else EngineLost(f"engine {self.name!r} did not start: {error!r}"))


def _unowned(method: Callable[[*Given], None]) -> Callable[[*Given], None]:
    """A method for what its owner owns. In a circle both would outlive a closed engine, and its memory with them, until
    a collection happens to come."""
    found = WeakMethod(method)

    def call(*given: *Given) -> None:
        if (there := found()) is not None:
            there(*given)

    return call
