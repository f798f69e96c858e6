"""`python -m parrot_compat.gpu`: a real model in a process of its own, seen as its messages and through the port."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from parrot_compat.core.engine import ContextId
from parrot_compat.core.engine_front import Cancel, Command, Free, Ready, StepReport
from parrot_compat.core.engines.process import ProcessEngine
from parrot_compat.core.errors import EngineError, ModelRefused
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.engine import TorchEngine
from parrot_compat.gpu.service import UNREADABLE
from tests.core.engine_contract import collect
from tests.gpu.paged_runner import generate
from tests.gpu.together_service import ROWS

ROOT = Path(__file__).parent.parent.parent
TINY = EngineConfig(model="builtin:random", name="tiny", max_model_len=96, kv_tokens=1024, threads=1)


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[tuple[Connection, subprocess.Popen[bytes]]]:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", getattr(request, "param", "parrot_compat.gpu"), "--fd", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT)
    connection = Connection(ours.detach())
    yield connection, process
    connection.close()
    process.kill()
    process.wait()


def reports(connection: Connection, until: int) -> list[StepReport]:
    """Reports up to the one in which this command ends."""
    seen: list[Any] = []
    while not any(
        update.command == until and getattr(update.answer, "finish", update.answer) is not None
        for report in seen
        for update in report.updates
    ):
        assert connection.poll(100), "no report came"
        seen.append(connection.recv())
    return seen


@pytest.mark.parametrize("child", ["tests.gpu.together_service"], indirect=True)
def test_one_message_per_step_has_the_updates_of_all_rows(child: tuple[Connection, subprocess.Popen[bytes]]) -> None:
    connection, process = child
    connection.send_bytes(json.dumps(asdict(TINY)).encode())
    ready = connection.recv()
    assert isinstance(ready, Ready) and ready.info.name == "tiny" and ready.load.free_tokens == 1024
    for id in range(1, ROWS + 1):
        connection.send(Command(id, generate(id, range(30 * id, 30 * id + 9 + id), 12, ignore_eos=True)))
    seen = [report for report in reports(connection, until=ROWS) if report.updates]
    rows = [sorted(update.command for update in report.updates) for report in seen]
    assert rows == [list(range(1, ROWS + 1))] * 12, "the rows of a step leave in one message"
    assert [report.load.running for report in seen] == [ROWS] * 11 + [0]
    connection.send(None)
    assert process.wait(100) == 0


def test_a_cancelled_command_is_not_answered_any_more(child: tuple[Connection, subprocess.Popen[bytes]]) -> None:
    connection, _ = child
    connection.send_bytes(json.dumps(asdict(TINY)).encode())
    connection.recv()
    connection.send(Command(1, generate(1, range(10, 20), 80, ignore_eos=True)))
    connection.send(Command(2, Cancel(1)))
    connection.send(Command(3, generate(2, range(10, 20), 5, ignore_eos=True)))
    seen = reports(connection, until=3)
    after = [report for report in seen if report.taken >= 2]
    assert after and not [update for report in after[1:] for update in report.updates if update.command == 1]
    connection.send(Command(4, Free(ContextId(2))))
    connection.send(Command(5, Free(ContextId(1))))
    while (report := connection.recv()).taken < 5:
        pass
    assert report.load.free_tokens == 1024 and report.load.running == 0


def test_a_child_whose_owner_is_gone_ends_by_itself(child: tuple[Connection, subprocess.Popen[bytes]]) -> None:
    connection, process = child
    connection.send_bytes(json.dumps(asdict(TINY)).encode())
    connection.close()  # while it is loading
    assert process.wait(100) != 0


@pytest.mark.parametrize("child", ["tests.gpu.paged_service"], indirect=True)
def test_a_child_that_cannot_read_a_command_ends(child: tuple[Connection, subprocess.Popen[bytes]]) -> None:
    """It would hear nothing any more, and everybody would wait for it."""
    connection, process = child
    connection.send_bytes(json.dumps(asdict(TINY)).encode())
    assert isinstance(connection.recv(), Ready)
    connection.send_bytes(b"no pickle at all")
    assert process.wait(100) == UNREADABLE


def test_a_child_told_to_stop_while_it_is_loading_stops(child: tuple[Connection, subprocess.Popen[bytes]]) -> None:
    connection, process = child
    connection.send_bytes(json.dumps(asdict(TINY)).encode())
    connection.send(None)
    assert process.wait(100) == 0


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [({"model": "/nowhere"}, ModelRefused, "/nowhere"), ({"rows": 3}, EngineError, "rows")],
)
def test_what_cannot_be_served_is_refused_in_words(
    child: tuple[Connection, subprocess.Popen[bytes]], config: dict[str, Any], error: type[Exception], said: str
) -> None:
    connection, process = child
    connection.send_bytes(json.dumps(config).encode())
    refusal = connection.recv()
    assert isinstance(refusal, error) and said in str(refusal)
    assert process.wait(100) == 1


LOADING = """
import logging, sys
from multiprocessing.connection import Connection
from parrot_compat.core.errors import EngineError
from parrot_compat.gpu.service import serve

def load(config):
    for name in ("parrot_compat.gpu.engine", "some.library"):
        logging.getLogger(name).info("what was decided")
        logging.getLogger(name).warning("what is wrong")
    raise EngineError("enough")

sys.exit(serve(Connection(int(sys.argv[-1])), load))
"""


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("info", ["INFO parrot_compat.gpu.engine", "WARNING parrot_compat.gpu.engine", "WARNING some.library"]),
        ("warning", ["WARNING parrot_compat.gpu.engine", "WARNING some.library"]),
        ("error", []),
    ],
)
async def test_an_engine_logs_what_was_asked_with_date_and_level(
    level: str, said: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EngineError, match="enough"):
        await ProcessEngine([sys.executable, "-c", LOADING], {"log_level": level}).start()
    lines = [line for line in capfd.readouterr().err.splitlines() if " what " in line]
    shown = [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (\w+ \S+) what .*", r"\1", line) for line in lines]
    assert shown == said


async def test_a_child_that_fails_to_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    engine = ProcessEngine([sys.executable, "-m", "tests.gpu.paged_service"], {"model": "broken"})
    with pytest.raises(EngineError, match="RuntimeError: out of luck"):
        await engine.start()


async def test_the_process_answers_as_the_engine_in_this_one() -> None:
    inside = TorchEngine(TINY)
    outside = ProcessEngine([sys.executable, "-m", "parrot_compat.gpu"], asdict(TINY))
    await inside.start()
    assert await outside.start() == inside.info
    prompt, sampling = range(10, 45), dict(temperature=0.8, seed=3, ignore_eos=True)
    answers = [await collect(engine.generate(generate(1, prompt, 30, **sampling))) for engine in (inside, outside)]
    assert answers[0] == answers[1]
    await inside.close()
    await outside.close()
