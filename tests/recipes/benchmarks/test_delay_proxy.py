"""The delay proxy: same bytes, same order, never sooner than the round trip."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from recipes.benchmarks.delay_proxy import DelayProxy

RTT_S = 0.04


@pytest.fixture
async def echo_port() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_bytes_come_back_whole_in_order_and_no_sooner_than_a_round_trip(echo_port: int) -> None:
    async with DelayProxy("127.0.0.1", echo_port, rtt_s=RTT_S).listening() as port:
        payload = bytes(range(256)) * 500
        started = asyncio.get_running_loop().time()  # the proxy knows of the connection before it is told here
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(payload)
        writer.write_eof()
        assert await reader.read() == payload
        assert asyncio.get_running_loop().time() - started >= 2 * RTT_S  # one for the handshake, one for the echo
        writer.close()


async def test_a_far_side_that_is_gone_closes_the_near_side() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    far_port = server.sockets[0].getsockname()[1]
    async with DelayProxy("127.0.0.1", far_port, rtt_s=RTT_S).listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
    server.close()


def test_it_ends_where_a_shell_has_it_ignore_interrupts() -> None:
    command = [sys.executable, "-m", "recipes.benchmarks.delay_proxy", "--to", "127.0.0.1:9"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell's background jobs inherit it
    try:
        process = subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        assert process.stdout is not None and "ms away" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.communicate()


async def test_nobody_listening_closes_the_connection() -> None:
    with socket.socket() as nobody:  # held, so that no other program comes to listen there
        nobody.bind(("127.0.0.1", 0))
        async with DelayProxy("127.0.0.1", nobody.getsockname()[1], rtt_s=RTT_S).listening() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
