"""The command line as a user meets it: in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from parrot_compat import __version__
from parrot_compat.cli import _with_unread_calls
from parrot_compat.cli.ready_file import ReadyFile
from parrot_compat.core.engine import Chunk, Generate
from parrot_compat.core.engines.char_tokenizer import CharTokenizer
from parrot_compat.core.engines.scripted import ScriptedEngine
from parrot_compat.settings import Settings

from .core import scripted_server
from .core.test_unread_calls import Templated, hermes, its_own
from .server.live import live, until

NOWHERE = ("--port", "0", "--upstream", "http://127.0.0.1:9/v1")
FETCHING = """
import concurrent.futures, time
import parrot_compat.__main__, parrot_compat.compose

def fetch(model, reasoning):  # as the hub's library does, by threads of a pool
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(time.sleep, [3600]))

parrot_compat.compose._checkpoint = fetch
parrot_compat.__main__.main()
"""
FEW_FILES = """
import atexit, resource
import parrot_compat.__main__
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256 if HARD else most))
atexit.register(lambda: print(*resource.getrlimit(resource.RLIMIT_NOFILE)))
parrot_compat.__main__.main()
"""
LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) parrot_compat\.\S+ "
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PARROT_")}


async def parrot(
    *arguments: str, python: tuple[str, ...] = ("-m", "parrot_compat"), **environment: str
) -> tuple[int, str, str]:
    """Run to the end: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *python,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT | environment,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def serving(tmp_path: Path, *arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`parrot serve` on a free port, ready, and its base URL."""
    ready = tmp_path / "ready.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "parrot_compat", "serve", "--port", "0", "--ready-file", str(ready), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    try:
        async with asyncio.timeout(100):
            await until(lambda: ready.exists() or process.returncode is not None)
        if not ready.exists():
            _, err = await process.communicate()
            raise AssertionError(err.decode())
        told = json.loads(ready.read_text())
        assert told["pid"] == process.pid
        yield process, told["base_url"]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("asked", ["version", "--version"])
async def test_the_version_is_printed(asked: str) -> None:
    code, out, _ = await parrot(asked)
    assert code == 0
    assert out.startswith(f"parrot_compat {__version__} ")


async def test_help_names_every_option_and_what_it_does() -> None:
    code, out, _ = await parrot("serve", "--help")
    assert code == 0
    for option in ("--model", "--port", "--api-key", "--max-model-len", "--upstream", "--ready-file", "--policy"):
        assert option in out
    assert "PARROT_API_KEYS" in out


@pytest.mark.parametrize("name", ["typer", "rich", "fastapi"])
async def test_without_the_server_extra_it_says_what_to_install(name: str) -> None:
    program = f"import sys; sys.modules[{name!r}] = None; import parrot_compat.__main__ as m; m.main()"
    code, _, err = await parrot("serve", python=("-c", program))
    assert code == 1
    assert "pip install '.[server,gpu]'" in err
    assert "Traceback" not in err


async def test_without_the_gpu_extra_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['transformers'] = None; import parrot_compat.__main__ as m; m.main()"
    code, _, err = await parrot("serve", "--port", "0", python=("-c", program))
    assert code == 1
    assert "pip install '.[server,gpu]'" in err and "--upstream" in err
    assert "Traceback" not in err


async def test_a_server_open_to_others_needs_a_key() -> None:
    code, _, err = await parrot("serve", "--host", "0.0.0.0")
    assert code == 2
    assert "--api-key" in err and "Traceback" not in err


async def test_a_key_that_only_clients_read_is_said_to_be_none_of_the_servers() -> None:
    _, _, err = await parrot("serve", *NOWHERE, PARROT_API_KEY="secret-a")
    assert "PARROT_API_KEYS" in err and "secret-a" not in err
    for environment in ({"PARROT_API_KEY": "none"}, {"PARROT_API_KEY": "secret-a", "PARROT_API_KEYS": "secret-a"}):
        _, _, err = await parrot("serve", *NOWHERE, **environment)
        assert "PARROT_API_KEY" not in err


async def test_a_port_in_use_is_known_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = await parrot("serve", "--port", str(port))
    assert code == 1
    assert f"127.0.0.1:{port} is in use" in err
    assert "Traceback" not in err and "loading" not in err


@pytest.mark.parametrize("model", ["builtin:huge", "./no-such-folder"])
async def test_a_model_that_is_not_there_is_one_clear_line(model: str) -> None:
    code, _, err = await parrot("serve", "--port", "0", "--model", model)
    assert code == 1
    assert model.removeprefix("builtin:") in err.splitlines()[-1] and "Traceback" not in err


async def test_all_that_is_told_elsewhere_than_at_a_terminal_is_a_line_of_the_log() -> None:
    folder = "/nowhere/" + "a-long-name/" * 20  # as long as one line, whatever a terminal would do
    code, _, err = await parrot("serve", "--port", "0", "--model", folder, PARROT_MODLE="x", COLUMNS="80")
    assert code == 1
    lines = err.splitlines()
    assert len(lines) == 3 and all(re.match(LINE, line) for line in lines), err
    assert "WARNING" in lines[0] and "PARROT_MODLE (is it PARROT_MODEL?)" in lines[0]
    assert "INFO" in lines[1] and f"finding {folder}" in lines[1]
    assert "ERROR" in lines[2] and folder in lines[2]


async def test_the_log_has_what_was_asked_for() -> None:
    _, _, err = await parrot("serve", *NOWHERE, "--log-level", "error")
    assert re.fullmatch(f"{LINE}.*cannot be reached.*", err.strip()) and " ERROR " in err


async def test_names_in_brackets_are_printed_as_they_are() -> None:
    code, _, err = await parrot("serve", "--port", "0", "--model", "/nowhere/[old]/[/x]")
    assert code == 1
    assert "finding /nowhere/[old]/[/x]" in err and "Traceback" not in err


async def test_the_only_model_on_the_command_line_is_the_only_one() -> None:
    more = {"PARROT_MODEL": "a", "PARROT_MORE_MODELS": "builtin:nothing"}
    code, _, err = await parrot("serve", "--port", "0", "--model", "builtin:nothing", **more)
    assert code == 1 and "named twice" not in err


async def test_a_ready_file_that_is_a_folder_is_one_clear_line(tmp_path: Path) -> None:
    async with scripted_server.serving(scripted_server.ScriptedServer(lambda prompt: "yes")) as behind:
        code, _, err = await parrot(
            "serve", "--port", "0", "--upstream", behind.base_url, "--ready-file", str(tmp_path)
        )
    assert code == 2 and "--ready-file" in err and "Traceback" not in err
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*"))


async def test_a_ready_file_that_cannot_be_written_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    code, _, err = await parrot("serve", *NOWHERE, "--ready-file", str(tmp_path / "nothing" / "ready"))
    assert code == 2 and "--ready-file" in err
    assert "asking" not in err and "Traceback" not in err


async def test_the_ready_file_of_a_killed_server_is_gone_while_the_next_one_loads(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    ready.write_text('{"pid": 1}')
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the upstream: it takes connections, and says nothing
        upstream = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "parrot_compat", "serve", "--port", "0", "--upstream", upstream),
            *("--ready-file", str(ready)),
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(100):
                assert b" asking " in await process.stderr.readline()
            assert not ready.exists()
        finally:
            process.kill()
            await process.wait()


async def test_a_server_that_has_no_port_leaves_the_ready_file_of_the_one_that_has(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    ready.write_text('{"pid": 1}')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, _ = await parrot("serve", "--port", str(port), "--ready-file", str(ready))
    assert code == 1 and ready.read_text() == '{"pid": 1}'


def test_a_server_takes_its_own_ready_file_away_and_not_its_successors(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    file = ReadyFile(path)
    file.write("http://127.0.0.1:1/v1")
    assert json.loads(path.read_text()) == {"base_url": "http://127.0.0.1:1/v1", "pid": os.getpid()}
    file.remove()
    assert not list(tmp_path.iterdir())
    file.write("http://127.0.0.1:1/v1")
    successors = json.dumps({"base_url": "http://127.0.0.1:1/v1", "pid": os.getpid() + 1})
    path.write_text(successors)
    file.remove()
    assert path.read_text() == successors


async def test_options_without_effect_before_an_upstream_are_said() -> None:
    _, _, err = await parrot("serve", *NOWHERE, "--dtype", "float32")
    assert "without effect --dtype" in err


@pytest.mark.parametrize(("option", "asked"), [("--device", "gpu"), ("--dtype", "half")])
async def test_a_choice_that_there_is_not_is_refused_before_anything_is_loaded(option: str, asked: str) -> None:
    code, _, err = await parrot("serve", "--port", "0", option, asked)
    assert code == 2 and f"{option} {asked}: there is auto, " in err and "finding" not in err


async def test_an_upstream_that_is_not_there_is_one_clear_line() -> None:
    code, _, err = await parrot("serve", "--port", "0", "--upstream", "http://127.0.0.1:9/v1")
    assert code == 1
    assert "http://127.0.0.1:9/v1" in err and "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_while_a_model_is_fetched_ends_the_fetching(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FETCHING, "serve", "--port", "0"), stderr=asyncio.subprocess.PIPE, env=ENVIRONMENT
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(100):
            assert b" finding " in await process.stderr.readline()
            process.send_signal(number)
            rest = await process.stderr.read()
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert re.fullmatch(f"{LINE}stopped before it was ready", rest.decode().strip())


async def test_it_may_open_as_many_files_as_it_is_let() -> None:
    pytest.importorskip("resource")
    code, out, err = await parrot("serve", *NOWHERE, python=("-c", FEW_FILES.replace("HARD", "False")))
    soft, hard = out.split()
    assert (code, soft) == (1, hard) and "Traceback" not in err


async def test_where_it_may_open_few_files_it_says_so_and_when() -> None:
    pytest.importorskip("resource")
    _, out, err = await parrot("serve", *NOWHERE, python=("-c", FEW_FILES.replace("HARD", "True")))
    assert out.split() == ["256", "256"]
    assert re.match(f"{LINE}.* 256 files", err)


async def test_a_server_in_front_of_another_answers_and_stops_when_told(tmp_path: Path) -> None:
    async with live() as upstream, serving(tmp_path, "--upstream", f"{upstream.url}/v1") as (process, base_url):
        async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
            answer = await client.chat.completions.create(
                model="org/scripted", messages=[{"role": "user", "content": "What is the capital of France?"}]
            )
        assert answer.choices[0].message.content == "Paris is the capital of France."
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out.decode().strip() == f"parrot_compat serves org/scripted at {base_url}"
    assert not (tmp_path / "ready.json").exists()


class Pausing(ScriptedEngine):
    """Stalls by itself once it has begun an answer: a stream begins at once, and is in progress until `resume`."""

    async def generate(self, generate: Generate) -> AsyncGenerator[Chunk, None]:
        async with aclosing(super().generate(generate)) as chunks:
            first = await anext(chunks)
            self.stall()
            yield first
            async for chunk in chunks:
                yield chunk


async def test_a_stop_lets_the_answer_in_progress_finish(tmp_path: Path) -> None:
    async with (
        live(engine_type=Pausing) as upstream,
        serving(tmp_path, "--upstream", f"{upstream.url}/v1") as (process, base_url),
    ):
        async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="org/scripted", messages=[{"role": "user", "content": "count"}], stream=True
            )
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(100):  # it takes no more requests
                await until(lambda: not (tmp_path / "ready.json").exists())
            assert process.returncode is None
            upstream.engine.resume()
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        await process.communicate()
    assert text == "one two three four five six seven eight nine ten"
    assert process.returncode == 0


async def test_a_second_stop_ends_the_answers_in_progress(tmp_path: Path) -> None:
    arguments = ("--drain", "600", "--upstream")
    async with (
        live(engine_type=Pausing) as upstream,
        serving(tmp_path, *arguments, f"{upstream.url}/v1") as (process, base_url),
    ):
        async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
            await client.chat.completions.create(
                model="org/scripted", messages=[{"role": "user", "content": "count"}], stream=True
            )
            assert process.stderr is not None
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(100):
                said = await process.stderr.readuntil(b"ends them now\n")
                process.send_signal(signal.SIGINT)
                rest = await process.stderr.read()
                await process.wait()
        upstream.engine.resume()
    assert "stopping: answers have 600 s; Ctrl-C again ends them now" in said.decode()
    assert process.returncode == 0 and "Traceback" not in rest.decode(), rest.decode()


async def test_prefix_caching_is_switched_off_by_vllms_name_too() -> None:
    code, _, err = await parrot("serve", "--no-enable-prefix-caching", *NOWHERE)
    assert code == 1 and "No such option" not in err


def test_the_models_whose_calls_of_tools_nobody_reads_are_named_unless_a_style_is() -> None:
    class Styled(Templated):
        tool_style = "hermes"

    tokenizers = {"a": Styled("Tools: ", its_own), "b": Styled("Tools: ", hermes), "c": CharTokenizer()}
    manager: Any = SimpleNamespace(
        models=lambda: [SimpleNamespace(name=name) for name in tokenizers], tokenizer=tokenizers.get
    )
    assert _with_unread_calls(Settings(), manager) == ["a"]
    assert _with_unread_calls(Settings(tool_call_parser="hermes"), manager) == []
