"""A TCP proxy that makes a server as far away as you say: half the round trip on every byte, each way.

It knows nothing of HTTP. Bytes keep their order and their number; bandwidth is not limited. Every lane of a
benchmark goes through the same proxy, claims and pushes included.

    python -m recipes.benchmarks.delay_proxy --to 127.0.0.1:8000 --port 8050 --rtt-ms 50
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

READ_BYTES = 1 << 16


class DelayProxy:
    """Listens on a port of 127.0.0.1 and forwards to `host:port`, `rtt_s` of round trip later."""

    def __init__(self, host: str, port: int, *, rtt_s: float) -> None:
        self.host, self.port, self.one_way_s = host, port, rtt_s / 2
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.sleep(2 * self.one_way_s)  # the handshake: one round trip before the first byte
            far_reader, far_writer = await asyncio.open_connection(self.host, self.port)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._forward(reader, far_writer))
                    both.create_task(self._forward(far_reader, writer))
            except* OSError:
                pass  # either side went away: both are closed below
            finally:
                far_writer.close()
        writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Deliver what is read one_way_s after it was read; the end of the stream travels like any byte."""
        loop = asyncio.get_running_loop()
        travelling: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await travelling.get()
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                if not data:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(deliver())
            while True:
                data = await reader.read(READ_BYTES)
                travelling.put_nowait((loop.time() + self.one_way_s, data))
                if not data:
                    break


async def serve(to: str, port: int, rtt_ms: float) -> None:
    host, _, far_port = to.rpartition(":")
    stopped = asyncio.Event()
    # not left to KeyboardInterrupt: what a shell starts in the background inherits that SIGINT is ignored
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # on Windows Ctrl-C arrives as KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with DelayProxy(host, int(far_port), rtt_s=rtt_ms / 1000).listening(port) as listening:
        print(f"127.0.0.1:{listening} → {to}, {rtt_ms:g} ms away", flush=True)
        await stopped.wait()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="the server to forward to")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any free one)")
    parser.add_argument("--rtt-ms", type=float, default=50.0, help="round trip in milliseconds (default 50)")
    options = parser.parse_args(argv)
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(options.to, options.port, options.rtt_ms))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
