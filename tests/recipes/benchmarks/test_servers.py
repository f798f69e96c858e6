"""Servers come up, say why they do not, and are gone afterwards with all that they started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from recipes.benchmarks.checkpoints import folder
from recipes.benchmarks.lanes import running
from recipes.benchmarks.preloads import preloadable
from recipes.benchmarks.processor_time import Stopwatch
from recipes.benchmarks.servers import (
    Server,
    ServerFailed,
    Setting,
    attached,
    delayed,
    free_port,
    launched,
    vllm_server,
)

from ...server.live import until
from ..terminating import is_running

# a shell starts what runs in its background with SIGINT ignored, and Python then leaves it so: a stop would be no stop
SERVER = """
import http.server, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "2"); self.end_headers(); self.wfile.write(b"ok")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


async def test_a_server_leaves_nothing_behind(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    async with launched([sys.executable, "-c", SERVER, str(port)], log, f"http://127.0.0.1:{port}/health") as server:
        assert server.pid is not None
        child = int(log.read_text().split()[1])
        assert is_running(server.pid) and is_running(child)
    assert not is_running(server.pid)
    await until(lambda: not is_running(child))  # it was killed, and its end is near


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such thing as a model')"]
    with pytest.raises(ServerFailed, match="no such thing as a model"):
        async with launched(command, tmp_path / "log", "http://127.0.0.1:9/health"):
            pytest.fail("it does not start")


async def test_a_server_that_is_not_there_cannot_be_attached() -> None:
    with pytest.raises(ServerFailed, match="nothing answers"):
        async with attached("http://127.0.0.1:9/v1"):
            pytest.fail("there is none")


async def test_no_distance_is_the_server_itself(tmp_path: Path) -> None:
    server = Server(base_url="http://127.0.0.1:9/v1", pid=1)
    async with delayed(server, 0, tmp_path / "log") as same:
        assert same is server


@pytest.mark.parametrize(
    ("name", "says"), [("no-fill-ahead", "nothing is filled ahead"), ("no-lane", "there are vllm, s0, s1, ours, front")]
)
async def test_a_lane_that_is_not_there_says_so(name: str, says: str, tmp_path: Path) -> None:
    setting = Setting(checkpoint=folder("builtin:tiny"), context_tokens=1024)
    with pytest.raises(ServerFailed, match=says):
        async with running([name], setting, tmp_path):
            pytest.fail("it is not there")


def test_every_server_of_a_run_has_the_same_budget_and_preloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARROT_MAX_MODEL_LEN", "5")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    setting = Setting(checkpoint=folder("builtin:random"), context_tokens=1024, kv_gib=1, has_gpu=False)
    assert setting.kv_tokens == (1 << 30) // (6 * 2 * 4 * 32 * 4) // 32 * 32
    environment = setting.environment()
    assert not {"PARROT_MAX_MODEL_LEN", "OMP_NUM_THREADS"} & set(environment)
    assert "iomp" not in environment["LD_PRELOAD"]


VLLM = """#!/bin/sh
# in a checkout whose name has a blank a first line that names an interpreter there would not do
exec "$PYTHON" -c '
import http.server, os, re, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
known = [os.path.realpath(name) for name in re.split("[ :]", os.environ["LD_PRELOAD"]) if os.path.exists(name)]
print("preloaded", known, "as", os.environ["LD_PRELOAD"], flush=True)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
' "$@"
"""


async def test_vllm_gets_its_openmp_in_a_checkout_whose_name_has_a_blank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "a checkout: mine" / "vllm"
    program, openmp = place / "bin" / "vllm", place / "lib" / "libiomp5.so"
    for file, text in ((program, VLLM), (openmp, "")):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    program.chmod(0o755)
    monkeypatch.setattr("recipes.benchmarks.servers.VLLM", place)
    monkeypatch.setattr("recipes.benchmarks.servers.tcmalloc", lambda: Path("/none/libtcmalloc_minimal.so.4"))
    monkeypatch.setenv("PYTHON", sys.executable)
    setting = Setting(checkpoint=folder("builtin:random"), context_tokens=1024, has_gpu=False, threads=1)
    async with vllm_server(setting, tmp_path / "log") as server:
        assert server.log is not None
        said = next(line for line in server.log.read_text().splitlines() if line.startswith("preloaded"))
        assert str(openmp) in said.partition(" as ")[0]


def test_a_library_keeps_its_name_where_the_loader_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with preloadable(tmp_path / "lib.so") as same:
        assert same == tmp_path / "lib.so"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "of blanks"))
    with preloadable(tmp_path / "of blanks" / "lib.so") as link:
        assert link.readlink() == tmp_path / "of blanks" / "lib.so" and " " not in str(link)
    assert not link.is_symlink()


def test_processor_time_of_this_process_is_ours_and_not_foreign() -> None:
    watch = Stopwatch(())
    before = os.times()
    while os.times().user - before.user < 0.2:
        sum(range(10_000))
    spent = watch.read()
    assert 0.15 < spent.client_s <= spent.elapsed_s + 0.05
    assert spent.servers_s == 0.0
    assert 0.0 <= spent.foreign_share <= 1.0
