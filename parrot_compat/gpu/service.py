"""An engine in a process of its own: the child's side of `core.engines.process`.

Over one connection: the config as JSON comes in; the engine's info and load (or the error that refused the model) goes
out; then commands come in, one each, and one report per step goes out. It knows nothing of who is at the other end.

The invariant: the process ends when it is told to stop, or when the other end is gone, whatever it is doing.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

from parrot_compat.core.engine_front import Ready
from parrot_compat.core.errors import EngineError, ParrotError

from .config import EngineConfig
from .engine import StepLoop, load_stepper
from .logs import set_level, start_log
from .stepper import Stepper

__all__ = ["serve"]

logger = logging.getLogger(__name__)

ABANDONED, UNREADABLE = 3, 4
"""Exit statuses when the other end of the connection is gone, or says what cannot be read."""


def serve(connection: Connection, load: Callable[[EngineConfig], Stepper] = load_stepper) -> int:
    """Serve the engine that the first message asks for. Returns the exit status."""
    start_log()
    commands = _Commands(connection)
    threading.Thread(target=commands.read, name="commands", daemon=True).start()
    try:
        config = commands.config()
        set_level(config.log_level)
        stepper = load(config)
    except ParrotError as refusal:
        connection.send(refusal)
        return 1
    except Exception as error:
        logger.exception("the engine did not start")
        connection.send(EngineError(f"the engine did not start: {type(error).__name__}: {error}"))
        return 1
    # What `send` does, less its look for special objects: there are none.
    steps = StepLoop(stepper, lambda report: connection.send_bytes(pickle.dumps(report, pickle.HIGHEST_PROTOCOL)))
    connection.send(Ready(stepper.info, stepper.load()))
    commands.give_to(steps)
    steps.run()
    return 0


class _Commands:
    """Reads the connection from the start, so that a parent's death is seen even while the model is loading."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._config: bytes | None = None
        self._asked = threading.Event()
        self._steps: StepLoop | None = None
        self._ready = threading.Event()

    def config(self) -> EngineConfig:
        self._asked.wait()
        assert self._config is not None
        try:
            return EngineConfig.from_json(json.loads(self._config))
        except (TypeError, ValueError) as error:
            raise EngineError(f"the engine's config cannot be read: {error}") from error

    def give_to(self, steps: StepLoop) -> None:
        self._steps = steps
        self._ready.set()

    def read(self) -> None:
        try:
            self._config = self._connection.recv_bytes()
            self._asked.set()
            command = self._connection.recv()
            # Nothing is sent before the engine has said that it is there, but for the word to stop.
            if command is None and self._steps is None:
                os._exit(0)
            self._ready.wait()
            assert self._steps is not None
            while command is not None:
                self._steps.put(command)
                command = self._connection.recv()
            self._steps.stop()
        except (EOFError, OSError):
            # The owner has died. Nobody reads our answers, and a step or a load may take long: leave at once.
            os._exit(ABANDONED)
        except Exception:  # else the engine would be there, and hear nothing more
            logger.exception("a command cannot be read")
            os._exit(UNREADABLE)
