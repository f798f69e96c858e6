"""What the pages in docs/ show runs: every Python block by itself, the shell blocks of a page one after the other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .running import run

DOCS = Path(__file__).parents[2] / "docs"
SERVER = "http://127.0.0.1:8000"
READ_AS_A_WHOLE = {"llamaindex.md", "openai_sdk.md"}
"""Their blocks build on one another; `test_llamaindex_recipes` runs them so."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        for found in BLOCK.finditer(text):
            yield Block(page.name, text.count("\n", 0, found.start()) + 1, found[1], found[2])


BLOCKS = list(blocks())
PYTHON = [block for block in BLOCKS if block.language == "python" and block.page not in READ_AS_A_WHOLE]
SHOWN = [
    (asked, answered)
    for asked, answered in zip(BLOCKS, [*BLOCKS[1:], None], strict=True)
    if asked.language == "bash" and answered is not None and answered.language in ("json", "text")
]
SEPARATOR = "\x1e"
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|(^|\s)#.*", re.MULTILINE)


def test_the_page_for_operators_has_every_option_of_the_server() -> None:
    typer = pytest.importorskip("typer")
    from parrot_compat.cli import app

    command = typer.main.get_command(app).commands["serve"]
    named = [name for option in command.params for name in (*option.opts, *option.secondary_opts)]
    page = (DOCS / "operating.md").read_text()
    assert len(named) > 25 and not [name for name in named if f"`{name}`" not in page and name != "--help"]


async def test_the_page_for_operators_names_metrics_that_there_are() -> None:
    pytest.importorskip("fastapi")
    from ..server.live import live, send

    named = set(re.findall(r"`(parrot_\w+)`", (DOCS / "operating.md").read_text()))
    async with live() as server:
        told = (await send(server, "GET", "/metrics")).body.decode()
    assert len(named) > 20 and named - {"parrot_"} <= set(re.findall(r"^# TYPE (\w+)", told, re.MULTILINE))


def test_the_times_that_the_page_for_operators_gives_a_stop_are_enough() -> None:
    pytest.importorskip("uvicorn")
    from parrot_compat.core.engines.process import GRACE_S
    from parrot_compat.core.manager import _LET_GO_S
    from parrot_compat.server.limits import RequestLimits
    from parrot_compat.server.listening import _LAST_WORDS_S
    from parrot_compat.settings import Settings

    page = (DOCS / "operating.md").read_text()
    (before,) = re.findall(r'preStop: .*\[sleep, "(\d+)"\]', page)
    given = re.findall(r"(?:terminationGracePeriodSeconds: |TimeoutStopSec=|docker stop -t )(\d+)", page)
    # an engine that does not end is killed, and then waited for as long again
    worst = int(before) + Settings().drain_s + _LAST_WORDS_S + _LET_GO_S + 2 * GRACE_S
    assert len(given) == 3 and all(int(seconds) >= worst for seconds in given), worst
    (body,) = re.findall(r"client_max_body_size (\d+)m;", page)
    assert int(body) * 2**20 == RequestLimits().body_bytes


async def test_the_page_for_operators_asks_for_life_where_a_server_without_engines_answers() -> None:
    pytest.importorskip("fastapi")
    from ..server.live import live, send
    from ..server.test_health import lose

    page = (DOCS / "operating.md").read_text()
    probes = dict(re.findall(r"(\w+)Probe: {httpGet: {path: (/\w+),", page))
    async with live() as server:
        assert {kind: (await send(server, "GET", path)).status for kind, path in probes.items()} == {
            "startup": 200, "readiness": 200, "liveness": 200,
        }  # fmt: skip
        await lose(server)
        assert (await send(server, "GET", probes["readiness"])).status == 503
        assert (await send(server, "GET", probes["liveness"])).status == 200


def test_choices_that_are_shown_in_a_shell_are_no_pipe() -> None:
    shells = {str(block): block.text for block in BLOCKS if block.language == "bash"}
    shells |= {
        "README.md": "".join(re.findall(r"```bash\n(.*?)```", (DOCS.parent / "README.md").read_text(), re.DOTALL))
    }
    assert not [place for place, text in shells.items() if re.search(r"\w\|\w", QUOTED.sub("", text))]


def environment(url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PARROT_")}
    return {**kept, "PARROT_BASE_URL": url}


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_python_block_runs_and_prints(block: Block, url: str, tmp_path: Path) -> None:
    ran = run(block.text.replace(f"{SERVER}/v1", url), environment(url), tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


@pytest.fixture(scope="module")
def said(url: str) -> dict[Block, str]:
    """What each shell block of wire.md says; they run in one shell, as a reader would run them."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    shells = [block for block in BLOCKS if block.language == "bash" and block.page == "wire.md"]
    lines = [f"{block.text}\nprintf '\\036'" for block in shells]
    program = "\n".join(["set -euo pipefail", *lines]).replace(SERVER, url.removesuffix("/v1"))
    program = program.replace("python3", sys.executable)
    ran = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, timeout=280, env=environment(url), check=False
    )
    assert ran.returncode == 0, ran.stderr
    return dict(zip(shells, ran.stdout.split(SEPARATOR), strict=False))


@pytest.mark.parametrize(("asked", "answered"), SHOWN, ids=str)
def test_an_answer_that_is_shown_has_the_fields_of_the_answer_that_comes(
    asked: Block, answered: Block, said: dict[Block, str]
) -> None:
    shown, came = shapes(answered.text), shapes(said[asked])
    assert shown == came, said[asked]


def shapes(text: str) -> list[object]:
    """Of every JSON text or event in it: the fields, and the values that are the same in every answer."""
    texts = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if texts:
        return [shape(json.loads(one)) for one in texts]
    headers = [line.split(":")[0] for line in text.splitlines() if line.startswith("x-parrot-")]
    return headers or [shape(one) for one in documents(text)]


def documents(text: str) -> Iterator[object]:
    decoder, position = json.JSONDecoder(), 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        found, position = decoder.raw_decode(text, position)
        yield found


STABLE = {"object", "type", "claimed", "code", "state", "reason", "sequence_number", "taken", "cancelled", "v"}
LOOSE = {"variables"}
"""Members whose own names are made by the app or the server."""


def shape(value: object, name: str = "") -> object:
    if isinstance(value, dict):
        return {key: shape(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item, name) for item in value] if name in ("calls", "output") else "list"
    return value if name in STABLE else ""
