"""`python -m tests.core.engines.child --fd N`: the far end of a ProcessEngine in plain Python, so it starts at once.

It counts: a Generate is answered with the ids 0, 1, 2, … one report each. The first message's `model` says how it
behaves: "counts", "deaf" (never answers, does not end), "sticks" (in the midst of an answer, after one token),
"refused", or "babbles" (sends what cannot be read).
"""

from __future__ import annotations

import json
import sys
import threading
from multiprocessing.connection import Connection

from parrot_compat.core.call import Finish, Usage
from parrot_compat.core.engine import Chunk, EngineInfo, EngineLoad, Fill, Filled, Generate
from parrot_compat.core.engine_front import Command, Ready, StepReport, Update
from parrot_compat.core.errors import ModelRefused


def answer(connection: Connection, command: Command, sticks: bool) -> None:
    verb = command.verb
    if isinstance(verb, Generate):
        for token in range(verb.sampling.max_tokens):
            is_last = token == verb.sampling.max_tokens - 1
            chunk = Chunk(
                text=f"{token} ",
                tokens=(token,),
                finish=Finish.LENGTH if is_last else None,
                usage=Usage(output_tokens=token + 1) if is_last else None,
            )
            connection.send(StepReport(updates=(Update(command.id, chunk),), taken=command.id))
            if sticks:
                threading.Event().wait()
    else:
        done = Filled(tokens=3, cached_tokens=0) if isinstance(verb, Fill) else None
        connection.send(StepReport(updates=(Update(command.id, done),), taken=command.id))


def main() -> None:
    connection = Connection(int(sys.argv[-1]))
    hello = json.loads(connection.recv_bytes())
    if hello["model"] == "refused":
        connection.send(ModelRefused("config.json names a family that is not served"))
        sys.exit(1)
    if hello["model"] == "babbles":
        connection.send_bytes(b"no pickle at all")
        threading.Event().wait()
    info = EngineInfo(name=hello["name"], model="counter", context_tokens=128)
    connection.send(Ready(info, EngineLoad(free_tokens=1024)))
    try:
        while (command := connection.recv()) is not None:
            if hello["model"] == "deaf":
                threading.Event().wait()
            answer(connection, command, sticks=hello["model"] == "sticks")
    except EOFError:
        sys.exit(3)


if __name__ == "__main__":
    main()
