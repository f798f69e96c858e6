"""What an engine was asked to be (`EngineConfig`) and what it decided to be (`ResolvedConfig`).

`resolve` joins three sets of facts, the asked config, the checkpoint and the machine, and decides every
field; nothing downstream guesses again. It imports no torch, so a process that only starts engines can use it.

The invariant: a `ResolvedConfig` fits: `context_tokens` never exceeds what the pages hold or what the
checkpoint's positions allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, cast, get_args

from parrot_compat.core.call import Sampling
from parrot_compat.core.engine import Pooling
from parrot_compat.core.errors import EngineError, ModelRefused
from parrot_compat.gpu.logs import LEVELS
from parrot_compat.gpu.memory import DTYPE_BYTES, most_rows, most_tokens, spare_bytes, step_bytes, token_bytes

__all__ = [
    "CheckpointFacts",
    "EngineConfig",
    "Machine",
    "ResolvedConfig",
    "RopeGrowth",
    "choose_dtype",
    "resolve",
    "threads_of",
]

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

PAGE_SIZE = 16
"""Tokens of a page unless `page_size` says otherwise."""
CPU_KV_BYTES = 4 << 30
"""Most bytes of KV on a CPU unless `kv_tokens` says otherwise: the memory belongs to other programs too."""
CPU_KV_SHARE = 0.25
MOST_KV_TOKENS_PER_ROW = 8_192
"""Beyond this many tokens for every row at once, more CPU pages would hardly ever be touched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What was asked. `None` and "auto" are "not asked"."""

    model: str = "builtin:tiny"
    """A checkpoint folder, a Hugging Face hub id, or `builtin:NAME`."""
    name: str = "engine-0"
    served_model_name: str | None = None
    device: Device = "auto"
    dtype: Dtype = "auto"
    max_model_len: int | None = None
    page_size: int | None = None
    """Tokens shared or evicted as one."""
    kv_tokens: int | None = None
    """Tokens of KV held at once; rounded up to whole pages."""
    max_rows: int | None = None
    """Most sequences of one step."""
    step_tokens: int | None = None
    """Token budget of one step, so also the longest prefill chunk."""
    threads: int | None = None
    engines_here: int = 1
    """How many share this machine's cores and memory, this one among them."""
    enable_prefix_caching: bool = True
    share_prefixes: bool = True
    """A prompt waits for a page that another computes now, and rows read what they have in common together."""
    enforce_eager: bool = False
    """No CUDA graphs: every kernel of a step is launched by itself."""
    async_scheduling: bool | None = None
    """Launch a step before the tokens of the one before are known, while the same rows go on drawing."""
    deterministic: bool = False
    """A row has the same bits whatever is computed beside it, on a CUDA device too; slower there."""
    gpu_memory_utilization: float = 0.9
    """Share of the free device memory, after the weights, that the KV may take."""
    log_level: str = "info"

    def __post_init__(self) -> None:
        for name, choices in (("device", get_args(Device)), ("dtype", get_args(Dtype)), ("log_level", LEVELS)):
            if getattr(self, name) not in choices:
                raise EngineError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name in ("max_model_len", "page_size", "kv_tokens", "max_rows", "step_tokens", "threads", "engines_here"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EngineError(f"{name} must be at least 1, not {value}")
        if not 0.0 < self.gpu_memory_utilization <= 1.0:
            raise EngineError(f"gpu_memory_utilization must be in (0, 1], not {self.gpu_memory_utilization}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EngineConfig:
        """The inverse of `to_json`; a field this version does not know is an error, never ignored."""
        unknown = sorted(set(value) - {item.name for item in fields(cls)})
        if unknown:
            raise EngineError(f"unknown engine config fields: {', '.join(unknown)}")
        return cls(**value)


@dataclass(frozen=True, slots=True)
class RopeGrowth:
    """A rotary scaling that depends on the length of the text, once that is beyond `original_tokens`."""

    kind: Literal["dynamic", "longrope"]
    original_tokens: int

    def salt(self, prompt_tokens: int) -> str:
        """Prompts with the same tokens and salt have the same keys and values."""
        if prompt_tokens <= self.original_tokens:
            return ""
        return self.kind if self.kind == "longrope" else f"{self.kind} {prompt_tokens}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """What a checkpoint's small files say (`models/weights.read_facts`)."""

    path: str
    model_type: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    """Numbers of a token's state, so also of an embedding."""
    intermediate_size: int = 0
    """Numbers of a token between the two halves of an MLP."""
    has_fast_decoder: bool = True
    """Its family has a row (`models/families.py`); else transformers' own modules run it, which take more memory."""
    pooling: Pooling = "mean"
    """How an embedding is made unless its caller says so."""
    rope_growth: RopeGrowth | None = None
    dtype: str | None = None
    """As config.json states it; `None` if it does not."""
    eos_token_ids: tuple[int, ...] = ()
    defaults: Sampling = field(default_factory=Sampling)
    notes: tuple[str, ...] = ()
    """What of the files this engine leaves, or does otherwise than transformers; shown with the resolved config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the device has to give, measured once the weights are loaded."""

    device: Literal["cpu", "cuda"]
    free_bytes: int
    cores: int
    """Physical cores this process may use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedConfig:
    """What was decided; every field has a value. `str()` is what an engine prints once at its start."""

    name: str
    model: str
    checkpoint: CheckpointFacts
    served_model_name: str
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16", "float16"]
    """Of the weights and the KV, whatever the files have."""
    context_tokens: int
    """Most tokens of prompt and output together."""
    page_size: int
    pages: int
    max_rows: int
    step_tokens: int
    threads: int
    enable_prefix_caching: bool
    share_prefixes: bool
    enforce_eager: bool
    async_scheduling: bool
    deterministic: bool

    @property
    def kv_tokens(self) -> int:
        return self.pages * self.page_size

    def salt(self, prompt_tokens: int) -> str:
        """What the keys and values of a prompt hang on beside its tokens."""
        growth = self.checkpoint.rope_growth
        return "" if growth is None else growth.salt(prompt_tokens)

    def __str__(self) -> str:
        of = self.checkpoint
        asked = {key: value for key, value in asdict(of.defaults).items() if value not in (None, (), False, 0)}
        lines = [
            f"{self.name}: {self.served_model_name} ({of.model_type}, {self.dtype}) on {self.device}, "
            f"{self.threads} threads",
            f"  model {of.path}: {of.layers} layers, {of.heads} heads / {of.kv_heads} kv of {of.head_dim}, "
            f"vocabulary {of.vocab_size}, ends at {list(of.eos_token_ids)}",
            f"  context {self.context_tokens} tokens; KV {self.kv_tokens} tokens in {self.pages} pages of "
            f"{self.page_size}; prefix cache {'on' if self.enable_prefix_caching else 'off'}",
            f"  steps of at most {self.max_rows} rows and {self.step_tokens} tokens; sampling defaults {asked}",
            f"  embeddings of {of.hidden_size} numbers, {of.pooling} pooling",
        ]
        return "\n".join(lines + [f"  note: {note}" for note in of.notes])


def choose_dtype(config: EngineConfig, checkpoint: CheckpointFacts) -> Literal["float32", "bfloat16", "float16"]:
    """The asked dtype, else the checkpoint's, else float32."""
    chosen = config.dtype if config.dtype != "auto" else checkpoint.dtype or "float32"
    if chosen not in DTYPE_BYTES:
        served = ", ".join(DTYPE_BYTES)
        raise ModelRefused(f"config.json of {checkpoint.path} has dtype {chosen!r}; served are {served}")
    return cast(Literal["float32", "bfloat16", "float16"], chosen)


def resolve(config: EngineConfig, checkpoint: CheckpointFacts, machine: Machine) -> ResolvedConfig:
    """What an engine asked for as `config` is, with this checkpoint on this machine. What was asked is taken as it is,
    but for a context that the checkpoint's positions or the pages do not hold.

    Errors: `ModelRefused` for a dtype that is not served, and where not one page of KV fits into what is free.
    """
    dtype = choose_dtype(config, checkpoint)
    on_cpu = machine.device == "cpu"
    page_size = config.page_size or PAGE_SIZE
    wanted = min(config.max_model_len or checkpoint.max_position_embeddings, checkpoint.max_position_embeddings)
    max_rows = config.max_rows or (64 if on_cpu else most_rows(checkpoint, machine.free_bytes))
    longest = min(wanted, config.kv_tokens or machine.free_bytes // token_bytes(checkpoint, dtype))
    step_tokens = config.step_tokens or (
        512 if on_cpu else most_tokens(checkpoint, dtype, machine.free_bytes, context=longest)
    )
    if config.kv_tokens is not None:
        pages = -(-config.kv_tokens // page_size)
    else:
        page_bytes = page_size * token_bytes(checkpoint, dtype)
        pages = _pages(
            config,
            machine,
            page_bytes=page_bytes,
            step=step_bytes(checkpoint, dtype, tokens=step_tokens, rows=max_rows, context=longest),
            one_context=-(-wanted // page_size),
            useful=max_rows * -(-min(wanted, MOST_KV_TOKENS_PER_ROW) // page_size),
        )
        if pages < 1:
            raise ModelRefused(
                f"{machine.free_bytes} bytes are free on {machine.device}: too few for one page of KV "
                f"({page_bytes} bytes) of {checkpoint.path}"
            )
    return ResolvedConfig(
        name=config.name,
        model=config.model,
        checkpoint=checkpoint,
        served_model_name=config.served_model_name or config.model,
        device=machine.device,
        dtype=dtype,
        context_tokens=min(wanted, pages * page_size),
        page_size=page_size,
        pages=pages,
        max_rows=max_rows,
        step_tokens=step_tokens,
        threads=threads_of(config, machine.cores),
        enable_prefix_caching=config.enable_prefix_caching,
        share_prefixes=config.share_prefixes,
        enforce_eager=config.enforce_eager,
        async_scheduling=not on_cpu if config.async_scheduling is None else config.async_scheduling,
        deterministic=config.deterministic,
    )


def threads_of(config: EngineConfig, cores: int) -> int:
    return config.threads or max(1, cores // config.engines_here)


def _pages(config: EngineConfig, machine: Machine, *, page_bytes: int, step: int, one_context: int, useful: int) -> int:
    """As many as the engine's share of the memory holds beside the bytes of a `step`, on a CPU no more than are
    `useful`; 0 where there is no room for one. A full context gets its pages, share or no share, where half of what is
    free holds those of every engine here."""
    half = machine.free_bytes // 2
    if machine.device == "cuda":
        left = machine.free_bytes - min(step, half)
        # Whoever starts several engines has divided this share by them.
        share = min(int(left * config.gpu_memory_utilization), left - spare_bytes(machine.free_bytes))
        pages = share // page_bytes
    else:
        share = min(int(machine.free_bytes * CPU_KV_SHARE), CPU_KV_BYTES) // config.engines_here
        pages = min(share // page_bytes, useful)
    return max(pages, one_context) if one_context * page_bytes <= half // config.engines_here else pages
