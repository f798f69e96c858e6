"""The tokenizer port over a Hugging Face folder: its own chat template, its own vocabulary.

Knows transformers and tokenizers; nothing of engines, sessions or HTTP. A chat is rendered and tokenised as one
text, as `apply_chat_template` does.

The invariant: a control id (a special added token) in a chat's prompt was written by the chat template, never by a
value (`control_tokens` says how); every chat without control strings in its values has exactly Hugging Face's ids.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from parrot_compat.core.errors import BadPrompt, BadSchema, ModelRefused
from parrot_compat.core.output_format import OutputFormat, ReasoningStyle, ToolStyle
from parrot_compat.core.prompt import Chat, Content, Text
from parrot_compat.core.tool_styles import shown_style

from .control_tokens import ControlTokens, encodable
from .messages import for_template, with_all_contents
from .text_stream import TextDecoder, TextStream

if TYPE_CHECKING:
    from parrot_compat.gpu.forms.grammar import Grammars
    from parrot_compat.gpu.sequence import Forms

__all__ = ["HuggingFaceTokenizer"]

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython"})
"""The roles that a template may build control strings from (`'<|' + role + '|>'`)."""

_TEMPLATE_FAILURES = (
    jinja2.TemplateError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What a template raises on messages it cannot take: by itself, or by stumbling over a field."""


_GIVEN = frozenset({"messages", "raise_exception", "strftime_now"})
"""What every template has from transformers, beside the parameters of `apply_chat_template`."""


class HuggingFaceTokenizer:
    """Implements `core.tokenizer.Tokenizer`. Errors: `ModelRefused` where the folder has no usable fast tokenizer."""

    def __init__(self, path: Path | str, *, reasoning: ReasoningStyle | None = None) -> None:
        self._path = Path(path)
        self._reasoning = reasoning
        self._hf = _load(self._path)
        self._vocabulary = _vocabulary_size(self._path, self._hf)
        self._decoder = TextDecoder(self._hf.backend_tokenizer)
        self._controls = ControlTokens(self._hf.backend_tokenizer)
        self._control_ids = {token.content: id for id, token in self._hf.added_tokens_decoder.items() if token.special}
        self._grammars_by_end: dict[tuple[int, ...], Grammars] = {}
        self._checking = threading.Lock()

    @property
    def vocabulary(self) -> int:
        """Ids are below this."""
        return self._vocabulary

    def encode(self, content: Content) -> tuple[int, ...]:
        if isinstance(content, Chat):
            return self._encode_chat(content)
        if isinstance(content, Text):
            return self._as_hugging_face(content.text, add_special_tokens=True)
        for position, token_id in enumerate(content.ids):
            if not 0 <= token_id < self._vocabulary:
                raise BadPrompt(f"token id {token_id} at {position} is outside the vocabulary of {self._vocabulary}")
        return content.ids

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """As `decode` of Hugging Face, always without its clean-up of spaces (which breaks code and BPE text)."""
        return self._hf.backend_tokenizer.decode(list(tokens), skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token: int) -> bytes:
        return self._decoder.token_bytes(token)

    def text_bytes(self, token: int) -> bytes:
        return self._decoder.text_bytes(token)

    def text_stream(self, stop: tuple[str, ...] = (), marks: tuple[str, ...] = ()) -> TextStream:
        return self._decoder.stream(stop, marks)

    @cached_property
    def tool_style(self) -> ToolStyle:
        """As the checkpoint shows it."""
        return shown_style(str(self._hf.chat_template or ""), self._control_ids)

    @cached_property
    def reasoning_style(self) -> ReasoningStyle:
        """What was asked for, else what the chat template shows: some end the prompt inside of the model's thoughts."""
        return self.reasoning_style_with({})

    def reasoning_style_with(self, values: Mapping[str, Any]) -> ReasoningStyle:
        """The same where the template is told `values`, which may turn thinking on or off. Errors: `BadPrompt`."""
        if self._reasoning is not None:
            return self._reasoning
        template = str(self._hf.chat_template or "")
        if "[/THINK]" in template:
            return "mistral"
        if "<think>" not in template and "</think>" not in template:
            return "none"
        asked = Chat(({"role": "user", "content": "?"},), template=values)
        prompt = self.decode(self.encode(asked), skip_special_tokens=False)
        if prompt.rstrip().endswith("<think>"):
            return "think_open"
        return "think" if "</think>" in template else "none"

    @cached_property
    def template_variables(self) -> frozenset[str]:
        """What the chat template can be told beside messages and tools, by its own names."""
        source = self._hf.chat_template
        sources = list(source.values()) if isinstance(source, dict) else [source or ""]
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(extensions=[jinja2.ext.loopcontrols, _Generation])
        try:
            found = [jinja2.meta.find_undeclared_variables(environment.parse(str(text))) for text in sources]
        except jinja2.TemplateError:  # rendering will say so
            return frozenset()
        given = {*inspect.signature(self._hf.apply_chat_template).parameters, *self._hf.special_tokens_map}
        named = frozenset[str]().union(*found) - given - environment.globals.keys() - _GIVEN
        return frozenset(name for name in named if not name.endswith("_token"))  # it may have none by this name

    def forms(self, eos_token_ids: Sequence[int]) -> Forms | None:
        """How answers in this vocabulary are held to forms; `None` where the library for it is not installed."""
        if importlib.util.find_spec("llguidance") is None:
            return None
        ends = tuple(eos_token_ids)
        return lambda sampling: self._grammars(ends).form(
            cast("OutputFormat", sampling.format), ends_at_eos=not sampling.ignore_eos
        )

    def check_format(self, format: OutputFormat) -> None:
        """Errors: `BadSchema`."""
        if importlib.util.find_spec("llguidance") is None:
            raise BadSchema("an output format needs llguidance, which is not installed (pip install llguidance)")
        end = self._hf.eos_token_id
        with self._checking:
            self._grammars(tuple(end) if isinstance(end, list) else (end or 0,)).check(format)

    def _grammars(self, ends: tuple[int, ...]) -> Grammars:
        if ends not in self._grammars_by_end:
            # here, not at the top: all else runs without the library, as on an image that has only torch
            from parrot_compat.gpu.forms.grammar import Grammars

            text = self._hf.backend_tokenizer.to_str()
            added = {token.content: id for id, token in self._hf.added_tokens_decoder.items()}
            self._grammars_by_end[ends] = Grammars(text, self._vocabulary, ends, added)
        return self._grammars_by_end[ends]

    def _encode_chat(self, chat: Chat) -> tuple[int, ...]:
        messages = [for_template(message) for message in chat.messages]
        tools = [dict(tool) for tool in chat.tools] or None
        values = {name: value for name, value in chat.template.items() if name in self.template_variables}
        text = self._render(messages, tools, values)
        if self._controls.are_all_control(text):
            return self._as_hugging_face(self._controls.original(text), add_special_tokens=False)
        # Other control strings came from values, or the template puts them together: '<|' + role + '|>'.
        others = self._controls.count_control(text)
        built = self._controls.count_control(self._render(*self._controls.plain_words((messages, tools, values))))
        if not built:
            return self._controls.encode(text)
        if built != others:
            raise BadPrompt("a value contains a control string, and this model's chat template builds some from parts")
        unknown = sorted({str(message.get("role")) for message in messages} - _ROLES)
        if unknown:
            raise BadPrompt(f"this model's chat template builds control strings from roles; unknown: {unknown}")
        return self._as_hugging_face(self._controls.original(text), add_special_tokens=False)

    def _render(self, messages: list[dict[str, Any]], tools: list[Any] | None, values: Mapping[str, Any]) -> str:
        if self._hf.chat_template is None:
            raise BadPrompt(f"the model in {self._path.name!r} has no chat template; use a text prompt")
        try:
            return self._apply_template(messages, tools, values)
        except _TEMPLATE_FAILURES as error:
            reason = self._controls.original(str(error))
        # Some join the content of every message to a text (Granite's, DeepSeek's), and beside calls there may be none.
        if (filled := with_all_contents(messages)) != messages:
            with suppress(*_TEMPLATE_FAILURES):
                return self._apply_template(filled, tools, values)
        raise BadPrompt(f"the chat template refuses the messages: {reason}")

    def _apply_template(
        self, messages: list[dict[str, Any]], tools: list[Any] | None, values: Mapping[str, Any]
    ) -> str:
        rendered = self._hf.apply_chat_template(
            messages,
            tools=tools,
            chat_template=self._controls.template(self._hf.get_chat_template(tools=tools)),
            add_generation_prompt=True,
            tokenize=False,
            **self._controls.replaced(dict(self._hf.special_tokens_map)),
            **values,
        )
        assert isinstance(rendered, str)
        return rendered

    def _as_hugging_face(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        return tuple(self._hf(encodable(text), add_special_tokens=add_special_tokens, verbose=False)["input_ids"])


class _Generation(jinja2.ext.Extension):
    """The tag around what an assistant has said, which transformers knows and training uses."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


# ---- loading ---------------------------------------------------------------------------------------


def _load(path: Path) -> PreTrainedTokenizerFast:
    # A tokenizer.json that transformers 4 saved beside Mistral's own tekken.json splits words by a wrong pattern. Where
    # mistral_common is installed, transformers would read tekken.json in its place, with another class.
    mended = {"fix_mistral_regex": True} if (path / "tekken.json").is_file() else {}
    try:
        loaded = AutoTokenizer.from_pretrained(path, local_files_only=True, mistral_format=False, **mended)
    except Exception as error:  # the tokenizers library raises bare ones
        raise ModelRefused(f"no tokenizer could be loaded from {path}: {error}") from error
    if not isinstance(loaded, PreTrainedTokenizerFast):
        raise ModelRefused(f"{path} has no fast tokenizer (tokenizer.json), but a {type(loaded).__name__}")
    return loaded


def _vocabulary_size(path: Path, tokenizer: PreTrainedTokenizerFast) -> int:
    """The model may have more rows than the tokenizer has words, and may draw any of them."""
    words = max(tokenizer.get_vocab().values(), default=-1) + 1
    config = path / "config.json"
    if not config.is_file():
        return words
    try:
        facts = json.loads(config.read_text("utf-8"))
    except ValueError as error:
        raise ModelRefused(f"{config} is not JSON: {error}") from error
    rows = facts.get("vocab_size") or (facts.get("text_config") or {}).get("vocab_size")
    if not rows:  # Gemma 3's files leave out what transformers takes for granted
        with suppress(Exception):
            rows = AutoConfig.from_pretrained(path, local_files_only=True).get_text_config().vocab_size
    return max(words, rows or 0)
