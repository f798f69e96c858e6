"""The options of `parrot serve`: what each is called, what it does, and what holds if it is not given.

They know nothing of what is done with them; `Settings` checks their values. Where an option means the same as
vLLM's it has vLLM's name.

The invariant: an option that is not given is `None`, so that the environment and the defaults can speak.
"""

from __future__ import annotations

from typing import Annotated

import typer

from parrot_compat.core.admission import Limits
from parrot_compat.core.policy import MECHANISMS
from parrot_compat.gpu.logs import LEVELS

_MODEL, _ENGINE, _NETWORK, _APPS = "Model", "Engine", "Network", "Apps"

Version = Annotated[bool, typer.Option("--version", help="Print the version.")]

Model = Annotated[
    list[str] | None,
    typer.Option(
        help="A checkpoint folder, a Hugging Face hub id, or builtin:tiny (7.5 M parameters, "
        "shipped: it quotes, edits, extracts and calls tools, and knows little). Given several times, each is served.",
        show_default="builtin:tiny",
        rich_help_panel=_MODEL,
    ),
]
ServedModelName = Annotated[
    list[str] | None,
    typer.Option(
        help="What clients call the model; given several times, by any of the names.",
        show_default="the value of --model",
        rich_help_panel=_MODEL,
    ),
]
ToolCallParser = Annotated[
    str | None,
    typer.Option(
        help="How the model writes that it calls a tool: granite (<|tool_call|> and a list; Phi-4 mini, too), hermes, "
        "llama3_json, mistral (a list), mistral_args ([TOOL_CALLS]name[ARGS]{…}) or qwen3_coder (<function=…>).",
        show_default="what the checkpoint shows",
        rich_help_panel=_MODEL,
    ),
]
ReasoningParser = Annotated[
    str | None,
    typer.Option(
        help="How the model writes what it thinks before it answers: qwen3 (<think>…</think>), deepseek_r1 (the "
        "prompt has opened it already), mistral (begun by [THINK]) or none.",
        show_default="what the checkpoint shows",
        rich_help_panel=_MODEL,
    ),
]
MaxModelLen = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most tokens of prompt and answer together.",
        show_default="what the checkpoint and the memory allow",
        rich_help_panel=_MODEL,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="auto, float32, bfloat16 or float16; auto is the checkpoint's own.",
        show_default="auto",
        rich_help_panel=_MODEL,
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        help="Address to listen on. Without --api-key it has to be this machine's own.",
        show_default="127.0.0.1",
        rich_help_panel=_NETWORK,
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Port to listen on; 0 takes any free one (see --ready-file).",
        show_default="8000",
        rich_help_panel=_NETWORK,
    ),
]
ApiKey = Annotated[
    list[str] | None,
    typer.Option(
        help="A key that opens the server; give it once for each tenant. Better kept in PARROT_API_KEYS, where no "
        "process list shows it.",
        show_default="none: this machine only",
        rich_help_panel=_NETWORK,
    ),
]
ApiKeysFile = Annotated[
    str | None,
    typer.Option(
        help="A file with more of them, one on a line; empty lines and those that begin with # are none. It is read "
        "when the server starts.",
        rich_help_panel=_NETWORK,
    ),
]
AllowedOrigins = Annotated[
    list[str] | None,
    typer.Option(
        help="A site whose pages may use the server from a browser (https://app.example; '*': all, with --api-key). "
        "Pages of this machine may without.",
        show_default="this machine's",
        rich_help_panel=_NETWORK,
    ),
]
ReadyFile = Annotated[
    str | None,
    typer.Option(
        help='A file with {"base_url": …, "pid": …} that is there while the server answers, for scripts that start it.',
        rich_help_panel=_NETWORK,
    ),
]
Drain = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Seconds that a stopping server gives to the answers it is in.",
        show_default="30",
        rich_help_panel=_NETWORK,
    ),
]
MaxOpenCalls = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Calls that may be accepted and not over at once, in the whole server: beyond, a request gets a 503.",
        show_default=f"{Limits().open_calls:,}",
        rich_help_panel=_NETWORK,
    ),
]
MaxOpenCallsPerTenant = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="The same for each API key: beyond, its requests get a 429.",
        show_default="only the server's limit",
        rich_help_panel=_NETWORK,
    ),
]
MaxKeptBytesPerTenant = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Memory for what an API key's open sessions keep of calls that are over and of variables, in bytes.",
        show_default=f"{Limits().kept_bytes_per_tenant:,}",
        rich_help_panel=_NETWORK,
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        help=f"What the log on standard error has at least: {', '.join(LEVELS)}.",
        show_default="info",
        rich_help_panel=_NETWORK,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="auto, cpu or cuda.", show_default="auto", rich_help_panel=_ENGINE),
]
Engines = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Engines of this model, each in a process of its own; they share this machine's device.",
        show_default="1",
        rich_help_panel=_ENGINE,
    ),
]
EngineSilence = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Seconds without a word after which an engine that was asked is taken for stuck and started again (five "
        "times as many while it computes); 0: never.",
        show_default="120",
        rich_help_panel=_ENGINE,
    ),
]
GpuMemoryUtilization = Annotated[
    float | None,
    typer.Option(
        help="On a GPU, share of the memory that weights and the largest step leave free that may hold KV (the cached "
        "attention state of prompts and answers). A CPU takes a quarter of what is free, at most 4 GiB: --kv-tokens "
        "says otherwise.",
        show_default="0.9",
        rich_help_panel=_ENGINE,
    ),
]
KvTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens of KV to hold, instead of a share of the memory.", rich_help_panel=_ENGINE),
]
PageSize = Annotated[
    int | None,
    typer.Option(
        "--page-size",
        "--block-size",
        min=1,
        help="Tokens of KV that are shared or evicted as one.",
        show_default="16",
        rich_help_panel=_ENGINE,
    ),
]
MaxNumSeqs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Answers that are generated at once.",
        show_default="64 on a CPU, by memory on a GPU",
        rich_help_panel=_ENGINE,
    ),
]
MaxNumBatchedTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Tokens of one step: more reads long prompts sooner, fewer keeps running answers smoother.",
        show_default="512 on a CPU, by memory on a GPU",
        rich_help_panel=_ENGINE,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, help="CPU threads of each engine.", show_default="its share of the cores", rich_help_panel=_ENGINE
    ),
]
EnablePrefixCaching = Annotated[
    bool | None,
    typer.Option(
        "--enable-prefix-caching/--no-prefix-caching",
        " /--no-enable-prefix-caching",  # the blank makes it a second name of "off"
        help="Keep what prompts begin with, so that the next prompt that begins so need not be computed again.",
        show_default="on",
        rich_help_panel=_ENGINE,
    ),
]
EnforceEager = Annotated[
    bool | None,
    typer.Option(
        "--enforce-eager",
        help="No CUDA graphs: every kernel of a step is launched by itself. Slower; to look for faults.",
        rich_help_panel=_ENGINE,
    ),
]
AsyncScheduling = Annotated[
    bool | None,
    typer.Option(
        "--async-scheduling/--no-async-scheduling",
        help="Launch a step before the tokens of the one before are known, while the same answers go on.",
        show_default="on with a GPU",
        rich_help_panel=_ENGINE,
    ),
]
Deterministic = Annotated[
    bool | None,
    typer.Option(
        "--deterministic",
        help="An answer has the same bits whatever is computed beside it and however it is cut into steps: everything "
        "is added in one fixed order, no prefix is read together. Slower. What cannot hold that is refused.",
        rich_help_panel=_ENGINE,
    ),
]
Upstream = Annotated[
    str | None,
    typer.Option(
        help="URL of an OpenAI-compatible server (vLLM, SGLang, llama.cpp, …) that generates in place of our own "
        "engine, like http://127.0.0.1:8001/v1. --model is then its name for the model, and options of our own engine "
        "have no effect. Its key is read from PARROT_UPSTREAM_API_KEY.",
        rich_help_panel=_ENGINE,
    ),
]
Policy = Annotated[
    str | None,
    typer.Option(
        help="Which ways of finishing apps sooner are in use; answers are the same with any. all, paper (those of the "
        "paper alone) or plain (none), and what is left out of it, like no-slack or paper,no-groups: "
        f"{', '.join(f'no-{name}' for name in MECHANISMS)}. To measure what each is worth.",
        show_default="all",
        rich_help_panel=_APPS,
    ),
]
