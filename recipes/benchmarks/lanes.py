"""The lanes: who serves, and with which class the apps ask.

It knows how each lane is put together, nothing of workloads. `running` brings up the servers of the lanes asked for
and checks that they are equal where they have to be.

The invariant: two lanes differ in what their names say and in nothing else: same checkpoint, dtype, KV budget,
threads and preloads, and the same messages become the same token ids.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parrot_compat.core.policy import MECHANISMS

from .clients import Endpoint
from .servers import MODEL, Server, ServerFailed, Setting, attached, delayed, parrot_server, vllm_server

__all__ = ["ABSENT", "LANES", "MISSING", "Lane", "RunningLane", "running"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    name: str
    title: str
    server: Literal["vllm", "parrot", "parrot-before-vllm"]
    chat_class: Literal["openai", "parrot"]
    options: tuple[str, ...] = ()
    """More options of `parrot serve`."""


MISSING: Mapping[str, tuple[str, ...]] = {
    **{f"no-{mechanism}": ("--policy", f"no-{mechanism}") for mechanism in MECHANISMS},
    "no-prefix-caching": ("--no-prefix-caching",),
}
"""Lanes of everything but one mechanism, and the options that leave it out."""

LANES: Mapping[str, Lane] = {
    lane.name: lane
    for lane in (
        Lane(name="vllm", title="vLLM, tuned launch", server="vllm", chat_class="openai"),
        Lane(name="s0", title="ours, a plain server (S0)", server="parrot", chat_class="openai"),
        Lane(
            name="s1",
            title="ours, the paper's policies (S1)",
            server="parrot",
            chat_class="parrot",
            options=("--policy", "paper"),
        ),
        Lane(name="ours", title="ours, all on", server="parrot", chat_class="parrot"),
        Lane(name="front", title="our manager before vLLM", server="parrot-before-vllm", chat_class="parrot"),
        *(
            Lane(name=name, title=f"ours, {name}", server="parrot", chat_class="parrot", options=options)
            for name, options in MISSING.items()
        ),
    )
}
ABSENT = {
    "no-fill-ahead": "nothing is filled ahead of its inputs yet: the engine can, the manager does not ask for it",
    "no-drafts": "nothing is drafted from variables yet",
    "no-memo": "identical work is not remembered yet, beyond the keys and values of prefixes",
}
"""Mechanisms that would have a lane, and are not built."""


@dataclass(frozen=True, slots=True)
class RunningLane:
    lane: Lane
    server: Server
    pids: tuple[int, ...]
    """Of its servers; empty where they run on another machine."""
    logs: Path

    @asynccontextmanager
    async def at(self, rtt_ms: float) -> AsyncIterator[tuple[Endpoint, tuple[int, ...]]]:
        """The lane from so far away, and every process that serves it."""
        async with delayed(self.server, rtt_ms, self.logs / f"proxy-{self.lane.name}.log") as server:
            proxy = (server.pid,) if server.pid is not None else ()
            endpoint = Endpoint(
                base_url=server.base_url,
                model=MODEL,
                chat_class=self.lane.chat_class,
                metrics_url=f"{self.server.base_url.removesuffix('/v1')}/metrics",
            )
            yield endpoint, tuple({*self.pids, *proxy})


@asynccontextmanager
async def running(
    names: Sequence[str], setting: Setting, logs: Path, *, against: str | None = None
) -> AsyncIterator[dict[str, RunningLane]]:
    """The lanes, all up. `against` is the URL of a server that takes the place of our launch of vLLM."""
    for name in names:
        if name not in LANES:
            why = ABSENT.get(name)
            raise ServerFailed(f"lane {name!r}: {why}" if why else f"no lane {name!r}; there are {', '.join(LANES)}")
    async with AsyncExitStack() as stack:
        lanes: dict[str, RunningLane] = {}
        for name in names:
            servers = await _start(stack, LANES[name], setting, logs, against)
            pids = tuple(server.pid for server in servers if server.pid is not None)
            lanes[name] = RunningLane(LANES[name], servers[-1], pids, logs)
        _check_equal(lanes)
        yield lanes


async def _start(stack: AsyncExitStack, lane: Lane, setting: Setting, logs: Path, against: str | None) -> list[Server]:
    """The servers of a lane, the one that apps talk to last."""
    log = logs / f"{lane.name}.log"
    if lane.server == "parrot":
        return [await stack.enter_async_context(parrot_server(setting, log, options=lane.options))]
    # a second vLLM where two lanes need one: the first would know the text of a round already
    vllm_log = logs / f"{lane.name}-vllm.log" if lane.server == "parrot-before-vllm" else log
    launch = vllm_server(setting, vllm_log) if against is None else attached(against)
    servers = [await stack.enter_async_context(launch)]
    if lane.server == "parrot-before-vllm":
        front = parrot_server(setting, log, options=lane.options, upstream=servers[0].base_url)
        servers.append(await stack.enter_async_context(front))
    return servers


# ---- equal where they have to be ---------------------------------------------------------------------------

_SAMPLE = [
    {"role": "system", "content": "You compare servers.\nBe brief."},
    {"role": "user", "content": "  Ünïcode, 'quotes', 12345 and\n\ttabs: are they the same?  "},
]


def _check_equal(lanes: Mapping[str, RunningLane]) -> None:
    """Errors: `ServerFailed` where two lanes make different prompts of the same messages."""
    seen: dict[str, list[int]] = {}
    for name, lane in lanes.items():
        if lane.lane.server == "parrot-before-vllm":
            continue  # its prompts are vLLM's
        seen[name] = _token_ids(lane.server)
    first = next(iter(seen), None)
    for name, ids in seen.items():
        if first is not None and ids != seen[first]:
            raise ServerFailed(
                f"lanes {first} and {name} make different tokens of the same messages: no fair comparison"
            )


def _token_ids(server: Server) -> list[int]:
    body = json.dumps({"model": MODEL, "messages": _SAMPLE, "add_generation_prompt": True}).encode()
    url = f"{server.base_url.removesuffix('/v1')}/tokenize"
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return list(json.load(answer)["tokens"])
