"""Settings: what was asked of a server, by its command line, the environment (`cli/environment.py`) or a program.

They know nothing of engines or of HTTP, and decide nothing that needs the machine or the checkpoint: `None` is
"not asked".

The invariant: `Settings` that exist can be served as they are; whatever contradicts itself is a `BadSettings`
that names the option.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import get_args
from urllib.parse import urlsplit

from parrot_compat.core.errors import ParrotError
from parrot_compat.core.output_format import ReasoningStyle, ToolStyle
from parrot_compat.core.policy import Policy
from parrot_compat.core.shown import shown_url
from parrot_compat.core.tool_styles import TOOL_STYLES
from parrot_compat.gpu.config import Device, Dtype
from parrot_compat.gpu.logs import LEVELS

__all__ = ["BadSettings", "Settings"]


BUILTIN_MODEL = "builtin:tiny"
TOOL_PARSERS: Mapping[str, ToolStyle] = {style: style for style in sorted(TOOL_STYLES)}
REASONING_STYLES: Mapping[str, ReasoningStyle] = {
    "qwen3": "think",
    "deepseek_r1": "think_open",
    "mistral": "mistral",
    "none": "none",
}


class BadSettings(ParrotError):
    """An option that cannot be read, or that contradicts another. Who can act: the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    model: str | None = None
    """A checkpoint folder, a Hugging Face hub id, or `builtin:NAME`; with `upstream` that server's name for a model.
    Not asked: the built-in model, or the first that `upstream` lists."""
    more_models: tuple[str, ...] = ()
    """Served beside it, each by engines of its own."""
    served_model_name: tuple[str, ...] = ()
    """What clients call the model, by any of these names; not asked: what `model` says."""
    tool_call_parser: str | None = None
    """How the model writes that it calls a tool; not asked: what its chat template shows."""
    reasoning_parser: str | None = None
    """How the model writes what it thinks before it answers; not asked: what its chat template shows."""
    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes any free port."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Each key is a tenant. Blanks around one are not part of it: clients cannot send them."""
    allowed_origins: tuple[str, ...] = ()
    """Sites whose pages may use the server from a browser, beside this machine's; `*`: all."""
    ready_file: str | None = None
    """Written when the server answers: {"base_url": …, "pid": …}."""
    drain_s: float = 30.0
    """How long a stopping server lets answers finish."""
    engine_silence: float = 120.0
    """How long an engine of ours may say nothing of what it was asked, five times as long where it computes; then it is
    ended and started again. 0: for ever."""
    max_open_calls: int | None = None
    """Accepted and not over, in the whole server; not asked: `Limits` says."""
    max_open_calls_per_tenant: int | None = None
    max_kept_bytes_per_tenant: int | None = None
    """Of what is over, in sessions that are open; not asked: `Limits` says."""
    policy: str = "all"
    """Which ways of finishing apps sooner are in use, as `Policy.read` takes it."""
    log_level: str = "info"
    """What the log has at least; of the engines' processes, too."""

    device: str = "auto"
    dtype: str = "auto"
    max_model_len: int | None = None
    page_size: int | None = None
    kv_tokens: int | None = None
    gpu_memory_utilization: float = 0.9
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    threads: int | None = None
    enable_prefix_caching: bool = True
    enforce_eager: bool = False
    async_scheduling: bool | None = None
    deterministic: bool = False
    engines: int = 1

    upstream: str | None = field(default=None, repr=False)
    """Base URL of an OpenAI-compatible server that generates the text in place of our own engine. There may be a
    password in it."""
    upstream_api_key: str | None = field(default=None, repr=False)

    @property
    def models(self) -> tuple[str, ...]:
        """All that are served. None: whatever `upstream` lists first."""
        if self.model is None:
            return self.more_models if self.upstream is not None else (BUILTIN_MODEL, *self.more_models)
        return (self.model, *self.more_models)

    @property
    def aliases(self) -> Mapping[str, str]:
        """Other names of the model, and its first."""
        return {name: self.served_model_name[0] for name in self.served_model_name[1:]}

    @property
    def reasoning_style(self) -> ReasoningStyle | None:
        return None if self.reasoning_parser is None else REASONING_STYLES[self.reasoning_parser]

    @property
    def tool_style(self) -> ToolStyle | None:
        return None if self.tool_call_parser is None else TOOL_PARSERS[self.tool_call_parser]

    def __post_init__(self) -> None:
        # a secret that was made with `echo` ends in a newline
        object.__setattr__(self, "api_keys", tuple(key.strip() for key in self.api_keys))
        object.__setattr__(self, "upstream_api_key", (self.upstream_api_key or "").strip() or None)
        object.__setattr__(self, "log_level", self.log_level.lower())
        self._check_choices()
        self._check_models()
        self._check_numbers()
        self._check_keys()
        self._check_who_may_ask()

    def _check_choices(self) -> None:
        for name, choices in _CHOICES.items():
            if (asked := getattr(self, name)) is not None and asked not in choices:
                raise BadSettings(f"{_option(name)} {asked}: there is {', '.join(choices)}")
        try:
            Policy.read(self.policy)
        except ValueError as error:
            raise BadSettings(f"--policy {self.policy}: {error}") from None

    def _check_models(self) -> None:
        if self.more_models and self.served_model_name:
            raise BadSettings("--served-model-name names one model, and there are several: leave it out")
        if len(set(self.models)) < len(self.models):
            raise BadSettings("--model: the same model is named twice; --engines serves one several times")
        if any(not name for name in (*self.models, *self.served_model_name)):
            raise BadSettings("--model and --served-model-name: a name is not empty")
        if self.upstream is not None and self.served_model_name:
            raise BadSettings("--served-model-name has no effect with --upstream: that server has named its models")
        if self.upstream is not None and not _is_http_url(self.upstream):
            shown = shown_url(self.upstream)
            raise BadSettings(f"--upstream {shown!r} is no URL; it looks like http://127.0.0.1:8001/v1")

    def _check_numbers(self) -> None:
        if not 0 <= self.port <= 65535:
            raise BadSettings(f"--port {self.port} is not a port (0 to 65535)")
        if self.engines < 1:
            raise BadSettings(f"--engines {self.engines}: at least one engine is needed")
        if not 0 <= self.drain_s < math.inf:
            raise BadSettings(f"--drain {self.drain_s}: a number of seconds, not negative and not endless")
        if not 0 <= self.engine_silence < math.inf:
            raise BadSettings(f"--engine-silence {self.engine_silence}: a number of seconds; 0 is for ever")
        for name in _AT_LEAST_ONE:
            if (number := getattr(self, name)) is not None and number < 1:
                raise BadSettings(f"{_option(name)} {number}: at least 1 is needed")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise BadSettings(f"--gpu-memory-utilization {self.gpu_memory_utilization}: a share, over 0 and at most 1")

    def _check_keys(self) -> None:
        """Of one that is refused nothing is repeated: it is a secret all the same."""
        if not all(map(_is_key, self.api_keys)):
            raise BadSettings(f"--api-key (PARROT_API_KEYS, --api-keys-file): {_A_KEY}")
        if self.upstream_api_key is not None and not _is_key(self.upstream_api_key):
            raise BadSettings(f"PARROT_UPSTREAM_API_KEY: {_A_KEY}")

    def _check_who_may_ask(self) -> None:
        for origin in self.allowed_origins:
            if origin != "*" and not _is_origin(origin):
                raise BadSettings(f"--allowed-origins {origin}: an origin looks like https://app.example, with no path")
        if "*" in self.allowed_origins and not self.api_keys:
            raise BadSettings("--allowed-origins '*' without --api-key: any page that is open could use the server")
        if not self.api_keys and not self.is_local:
            raise BadSettings(
                f"--host {self.host} can be reached from other machines, and there is no --api-key: anybody could use "
                "the server. Give it a key (--api-key KEY, or PARROT_API_KEYS), or leave --host at 127.0.0.1."
            )

    @property
    def of_our_engine(self) -> tuple[str, ...]:
        """The options that were given and that mean something to our own engine alone."""
        given = (
            item for item in fields(self) if item.name in _OF_OUR_ENGINE and getattr(self, item.name) != item.default
        )
        return tuple(_option(item.name) for item in given)

    @property
    def is_local(self) -> bool:
        """Can only this machine reach the server?"""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


_CHOICES: Mapping[str, Collection[str]] = {
    "tool_call_parser": TOOL_PARSERS,
    "reasoning_parser": REASONING_STYLES,
    "device": get_args(Device),
    "dtype": get_args(Dtype),
    "log_level": LEVELS,
}
_AT_LEAST_ONE = (
    "max_open_calls", "max_open_calls_per_tenant", "max_kept_bytes_per_tenant", "max_model_len", "page_size",
    "kv_tokens", "max_num_seqs", "max_num_batched_tokens", "threads",
)  # fmt: skip
_OF_OUR_ENGINE = frozenset({
    "reasoning_parser", "device", "dtype", "max_model_len", "page_size", "kv_tokens", "gpu_memory_utilization",
    "max_num_seqs", "max_num_batched_tokens", "threads", "enable_prefix_caching", "enforce_eager",
    "async_scheduling", "deterministic", "engines", "engine_silence",
})  # fmt: skip


_A_KEY = "a key is not empty, and is of ASCII characters that can be seen, with no blanks inside"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _is_key(text: str) -> bool:
    """Can it be sent in a header?"""
    return re.fullmatch(r"[!-~]+", text) is not None


def _is_http_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and text.split() == [text]
    except ValueError:  # brackets that do not close, a port that is no number
        return False


def _is_origin(text: str) -> bool:
    """As a browser writes it: scheme and host, of the web or of a program that is made of pages (app://…)."""
    return re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#]+/?", text, re.IGNORECASE) is not None
