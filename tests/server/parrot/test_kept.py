"""What is kept of requests: of those of a session what each adds, of others nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from parrot_compat.core import kept
from tests.server.live import live, send

from .graphs import CHAT

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"tool_{n}",
            "description": "what it does " * 20,
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
        },
    }
    for n in range(20)
]


async def test_an_agent_that_sends_its_whole_history_each_time_keeps_each_message_and_tool_once() -> None:
    async with live(lambda prompt: "done", context_tokens=100_000) as server:
        messages: list[dict[str, Any]] = [{"role": "system", "content": "You mend code. " * 200}]
        sizes = [0]
        for turn in range(8):
            messages.append({"role": "user", "content": f"step {turn} " * 200, "name": "tester"})
            body = {"messages": messages, "tools": TOOLS, "parrot": {"session": "agent"}}
            assert (await send(server, "POST", CHAT, body)).status == 200
            (session,) = server.manager.sessions()
            sizes.append(session.kept.size)
            messages.append({"role": "assistant", "content": f"done with {turn}"})
        first, second, *others = [after - before for before, after in pairwise(sizes)]
        assert first > 20_000 and 6_000 < second < 9_000
        assert all(abs(more - second) < 200 for more in others)
        server.manager.check()


async def test_a_request_that_is_a_session_of_its_own_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[object] = []
    monkeypatch.setattr(kept, "getsizeof", lambda of: measured.append(of) or 100)
    async with live(lambda prompt: "done") as server:
        body = {"messages": [{"role": "user", "content": "x"}], "tools": TOOLS[:1]}
        assert (await send(server, "POST", CHAT, body)).status == 200
        assert (await send(server, "POST", CHAT, body | {"parrot": {"call": "c"}})).status == 200
        assert not server.manager.sessions() and not measured
        assert (await send(server, "POST", CHAT, body | {"parrot": {"session": "s"}})).status == 200
        assert measured
