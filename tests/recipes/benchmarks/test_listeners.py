"""The process behind a URL: found where it is on this machine, and nobody else for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipes.benchmarks.lanes import running
from recipes.benchmarks.listeners import listener_of
from recipes.benchmarks.servers import Setting, free_port

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in /proc")

SERVER = """
import http.server, json, os, sys, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = json.dumps({"tokens": [1]}).encode()
        self.send_response(200); self.send_header("content-length", str(len(text))); self.end_headers()
        self.wfile.write(text)
    do_POST = do_GET
server = http.server.HTTPServer((sys.argv[1], 0), Answer)
if os.fork() == 0:  # a child that holds the socket too, as a server's workers do
    time.sleep(600)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"])
def served(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A server in a process of its own: its URL and its process."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, request.param], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1", process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_who_listens_on_this_machine_is_found_and_not_its_workers(served: tuple[str, int]) -> None:
    url, pid = served
    assert listener_of(url) == pid
    assert listener_of(url.replace("127.0.0.1", "localhost")) == pid


async def test_a_lane_of_a_server_that_ran_before_knows_its_process(served: tuple[str, int], tmp_path: Path) -> None:
    url, pid = served
    setting = Setting(checkpoint=tmp_path, context_tokens=1024)
    async with running(["vllm"], setting, tmp_path, against=url) as lanes:
        assert lanes["vllm"].pids == (pid,)


def test_nobody_is_named_who_is_not_there_or_not_of_this_machine(served: tuple[str, int]) -> None:
    url, _ = served
    with socket.socket() as connected:  # to the port, and not listening on it
        connected.connect(("127.0.0.1", int(url.split(":")[2].removesuffix("/v1"))))
        assert listener_of(f"http://127.0.0.1:{connected.getsockname()[1]}/v1") is None
    assert listener_of(f"http://127.0.0.1:{free_port()}/v1") is None
    assert listener_of(url.replace("127.0.0.1", "192.0.2.1")) is None


def test_this_process_is_not_counted_as_its_own_server() -> None:
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        mine.listen()
        assert listener_of(f"http://127.0.0.1:{mine.getsockname()[1]}/v1") is None
