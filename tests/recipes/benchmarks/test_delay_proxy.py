"""The delay proxy: same bytes, same order, never sooner than the round trip."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

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


async def test_nobody_listening_closes_the_connection() -> None:
    with socket.socket() as nobody:  # held, so that no other program comes to listen there
        nobody.bind(("127.0.0.1", 0))
        async with DelayProxy("127.0.0.1", nobody.getsockname()[1], rtt_s=RTT_S).listening() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
