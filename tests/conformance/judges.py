"""The judges: how each is installed, pointed at our server and read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .served import ROOT, serving
from .verdict import Verdict, of_junit

WORK = ROOT / ".bench" / "conformance"
PYTEST = ("pytest", "pytest-asyncio", "pytest-timeout")
OLDEST_OPENAI = "2.54.0"


@dataclass(frozen=True, slots=True)
class Options:
    openai: str
    """The newest version of the openai package to judge with."""
    anthropic: str
    """The version of the anthropic package."""
    openai_document: str | None
    """OpenAI's own OpenAPI document: a file or URL."""
    examples: int
    seed: int


def environment(name: str, *packages: str) -> Path:
    """The interpreter of a virtual environment that has these packages; made once."""
    folder = ROOT / ".matrix" / f"judge-{name}"
    python, stamp = folder / "bin" / "python", folder / "packages"
    if not stamp.exists() or stamp.read_text() != "\n".join(packages):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *packages], check=True)
        stamp.write_text("\n".join(packages))
    return python


def folder_of(name: str) -> Path:
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def judged(judge: str, report: Path, command: Sequence[str], **how: Any) -> Verdict:
    """Run a judge and read the JUnit `report` that it writes. One that did not run to its end has that for a finding,
    whatever it wrote: both pytest and schemathesis exit with 0, or with 1 where they found something."""
    report.unlink(missing_ok=True)  # that of an earlier run says nothing of this one
    status = subprocess.run(command, check=False, **how).returncode
    if status not in (0, 1) or not report.exists():
        return Verdict(judge, passed=0, findings=(f"it did not run to its end: exit status {status}",))
    return of_junit(judge, report)


def run_suites(judge: str, python: Path, url: str, suites: Sequence[str], model: str = "builtin:tiny") -> Verdict:
    """Our own test files for a foreign client."""
    report = folder_of(judge.replace(" ", "-")) / "junit.xml"
    files = [str(ROOT / "tests" / "conformance" / "suites" / f"{suite}.py") for suite in suites]
    settings = ("asyncio_mode=auto", "asyncio_default_test_loop_scope=session")
    command = [str(python), "-m", "pytest", "-q", "-o", "addopts=", "-o", "xfail_strict=true", "--timeout=120"]
    command += [argument for setting in settings for argument in ("-o", setting)]
    command += ["-p", "no:cacheprovider", "--rootdir", str(WORK), f"--junitxml={report}", *files]
    told = {"CONFORMANCE_URL": f"{url}/v1", "CONFORMANCE_MODEL": model, "OPENAI_API_KEY": "none"}
    return judged(judge, report, command, cwd=WORK, env=os.environ | told)


# ---- openai-python -------------------------------------------------------------------------------------


def sdk(options: Options) -> list[Verdict]:
    """The SDK itself, at both ends of what we promise: sync, async, streaming helpers, parse, tools, embeddings."""
    verdicts = []
    for version in (OLDEST_OPENAI, options.openai):
        python = environment(f"openai-{version}", f"openai[aiohttp]=={version}", *PYTEST, *_RESOURCE_TOOLS)
        with serving(folder_of(f"sdk-{version}")) as url:
            verdicts.append(run_suites(f"sdk {version}", python, url, ["openai_sdk"]))
    return verdicts


_RESOURCE_TOOLS = ("dirty-equals", "inline-snapshot", "respx", "time-machine", "nest-asyncio", "rich")
_RESOURCES = ("chat/test_completions.py", "test_completions.py", "test_models.py", "test_embeddings.py")


def resources(options: Options) -> list[Verdict]:
    """openai-python's own tests of these endpoints. The names by which they ask for models are read out of them."""
    verdicts = []
    for version in (OLDEST_OPENAI, options.openai):
        python = environment(f"openai-{version}", f"openai[aiohttp]=={version}", *PYTEST, *_RESOURCE_TOOLS)
        source = _source("openai", version)
        tests = [source / "tests" / "api_resources" / name for name in _RESOURCES]
        text = "\n".join(path.read_text() for path in tests)
        names = {name for name in re.findall(r'(?:model=|^ +)"([a-z][a-z0-9.-]+)",?$', text, re.M)}
        report = folder_of(f"resources-{version}") / "junit.xml"
        with serving(report.parent, sorted(names)) as url:
            command = [str(python), "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "--timeout=120"]
            command += [f"--junitxml={report}", *map(str, tests)]
            told = os.environ | {"TEST_API_BASE_URL": f"{url}/v1"}
            verdicts.append(judged(f"resources {version}", report, command, cwd=source, env=told))
    return verdicts


def _source(package: str, version: str) -> Path:
    """The source distribution, which carries its tests; fetched once."""
    folder = folder_of("sources")
    unpacked = folder / f"{package}-{version}"
    if not unpacked.exists():
        fetch = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--no-binary", package]
        subprocess.run([*fetch, "-d", str(folder), f"{package}=={version}"], check=True)
        with tarfile.open(next(folder.glob(f"{package}-{version}*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
    return unpacked


# ---- schemathesis ----------------------------------------------------------------------------------------

_ALWAYS = "not_a_server_error,response_schema_conformance,content_type_conformance"
_OWN = f"{_ALWAYS},status_code_conformance,response_headers_conformance,unsupported_method,negative_data_rejection"
_THEIR_PATHS = r"^/(models|models/\{model\}|chat/completions|completions|embeddings)$"


def schemathesis(options: Options) -> list[Verdict]:
    """Requests made from a description of the API, ours and OpenAI's: no 5xx, and answers as described."""
    python = environment("schemathesis", "schemathesis>=4.32,<5")
    folder, names = folder_of("schemathesis"), _names_in(options.openai_document)
    with serving(folder, names, max_model_len=256) as url:
        verdicts = [_fuzzed(options, python, "schemathesis ours", f"{url}/openapi.json", url, ["--checks", _OWN])]
        if options.openai_document is not None:
            document = Path(options.openai_document)
            where = str(document.resolve()) if document.is_file() else options.openai_document
            asked = ["--checks", _ALWAYS, "--include-path-regex", _THEIR_PATHS, "--exclude-method", "DELETE"]
            asked += ["--exclude-operation-id", "listChatCompletions"]
            verdict = _fuzzed(options, python, "schemathesis openai", where, f"{url}/v1", asked)
            verdicts.append(verdict)
    return verdicts


_LISTS_MODELS = re.compile(r"^( *)model:\n(?:\1 +.*\n)*?(\1 +)enum:\n((?:\2 *- .*\n)+)", re.M)


def _names_in(document: str | None) -> list[str]:
    """The models that the document lists, so that requests made from it find one; none of a document behind a URL."""
    if document is None or not Path(document).is_file():
        return []
    lists = [found[2] for found in _LISTS_MODELS.findall(Path(document).read_text())]
    return sorted({line.strip().removeprefix("- ").strip("'\"") for names in lists for line in names.splitlines()})


def _fuzzed(options: Options, python: Path, judge: str, document: str, url: str, asked: Sequence[str]) -> Verdict:
    folder = folder_of(judge.replace(" ", "-"))
    report = folder / "junit.xml"
    command = [str(python.with_name("schemathesis")), "run", document, "--url", url, *asked]
    command += ["--phases", "examples,coverage,fuzzing", "--seed", str(options.seed), "--no-color"]
    command += ["--max-examples", str(options.examples), "--report", "junit", "--report-junit-path", str(report)]
    command += ["--request-timeout", "60", "--continue-on-failure"]
    with (folder / "log").open("w") as out:
        verdict = judged(judge, report, command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
    print((folder / "log").read_text()[-3000:])
    return verdict


# ---- frameworks and clients --------------------------------------------------------------------------------


def langchain(options: Options) -> list[Verdict]:
    """LangChain's standard suites with stock ChatOpenAI, on the chat endpoint."""
    packages = ("langchain-openai>=1.7,<2", "langchain-tests>=1.1,<2", *PYTEST)
    return _client("langchain", packages, ["langchain_chat_openai"])


def llamaindex(options: Options) -> list[Verdict]:
    """LlamaIndex' OpenAILike and OpenAILikeEmbedding."""
    packages = ("llama-index-llms-openai-like", "llama-index-embeddings-openai-like", *PYTEST)
    return _client("llamaindex", packages, ["llama_index_openai_like"])


def litellm(options: Options) -> list[Verdict]:
    return _client("litellm", ("litellm>=1.80", *PYTEST), ["litellm_client"])


def anthropic(options: Options) -> list[Verdict]:
    """The anthropic package on /v1/messages."""
    python = environment("anthropic", f"anthropic=={options.anthropic}", *PYTEST)
    with serving(folder_of("anthropic"), max_model_len=2048) as url:
        return [run_suites(f"anthropic {options.anthropic}", python, url, ["anthropic_sdk"])]


def agent(options: Options) -> list[Verdict]:
    """A coding agent's loop over the SDK: tools, and a history that only grows."""
    packages = (f"openai[aiohttp]=={options.openai}", *PYTEST, *_RESOURCE_TOOLS)
    python = environment(f"openai-{options.openai}", packages[0], *packages[1:])
    with serving(folder_of("agent"), max_model_len=4096) as url:
        return [run_suites("agent", python, url, ["coding_agent"])]


def _client(judge: str, packages: Sequence[str], suites: Sequence[str]) -> list[Verdict]:
    python = environment(judge, *packages)
    with serving(folder_of(judge), ["other-name"], max_model_len=2048) as url:
        return [run_suites(judge, python, url, suites)]


JUDGES: dict[str, Callable[[Options], list[Verdict]]] = {
    judge.__name__: judge for judge in (sdk, resources, schemathesis, langchain, llamaindex, litellm, anthropic, agent)
}
