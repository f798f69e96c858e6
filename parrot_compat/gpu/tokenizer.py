"""The tokenizer port over a Hugging Face folder: its own chat template, its own vocabulary.

Knows transformers and tokenizers; nothing of engines, sessions or HTTP. A chat is rendered and tokenised as one
text, as `apply_chat_template` does.

The invariant: a control id (a special added token) in a chat's prompt was written by the chat template, never by a
value. By construction: the template is rendered with an unguessable alias in place of each control string, and the
text is encoded by a clone of the tokenizer to which only the aliases are control tokens. `<|im_end|>` inside a value
is then ordinary text.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ..core.errors import BadPrompt, ModelRefused
from ..core.prompt import Chat, Content, Text
from .text_stream import TextDecoder, TextStream

__all__ = ["HuggingFaceTokenizer"]

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython"})
"""The roles that a template may build control strings from (`'<|' + role + '|>'`)."""

_TEMPLATE_FAILURES = (jinja2.TemplateError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What a template raises on messages it cannot take: by itself, or by stumbling over a field."""


class HuggingFaceTokenizer:
    """Implements `core.tokenizer.Tokenizer`. Errors: `ModelRefused` where the folder has no usable fast tokenizer."""

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._hf = _load(self._path)
        self._vocabulary = _vocabulary_size(self._path, self._hf)
        self._decoder = TextDecoder(self._hf.backend_tokenizer)
        self._aliases = _Aliases(self._hf.backend_tokenizer)

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

    def text_stream(self, stop: tuple[str, ...] = ()) -> TextStream:
        return self._decoder.stream(stop)

    def _encode_chat(self, chat: Chat) -> tuple[int, ...]:
        messages = [_for_template(message) for message in chat.messages]
        tools = [dict(tool) for tool in chat.tools] or None
        text = self._render(messages, tools)
        strange = self._aliases.count_control(text)
        if not strange:
            return self._aliases.encode(text)
        # Control strings that are no aliases came from values, or the template builds them: '<|' + role + '|>'.
        harmless = self._aliases.without_control((messages, tools))
        built = self._aliases.count_control(self._render(*harmless))
        if not built:
            return self._aliases.encode(text)
        if built != strange:
            raise BadPrompt("a value contains a control string, and this model's chat template builds some from parts")
        unknown = sorted({str(message.get("role")) for message in messages} - _ROLES)
        if unknown:
            raise BadPrompt(f"this model's chat template builds control strings from roles; unknown: {unknown}")
        return self._as_hugging_face(self._aliases.original(text), add_special_tokens=False)

    def _render(self, messages: list[dict[str, Any]], tools: list[Any] | None) -> str:
        if self._hf.chat_template is None:
            raise BadPrompt(f"the model in {self._path.name!r} has no chat template; use a text prompt")
        try:
            rendered = self._hf.apply_chat_template(
                messages,
                tools=tools,
                chat_template=self._aliases.template(self._hf.get_chat_template(tools=tools)),
                add_generation_prompt=True,
                tokenize=False,
                **self._aliases.replaced(dict(self._hf.special_tokens_map)),
            )
        except _TEMPLATE_FAILURES as error:
            raise BadPrompt(f"the chat template refuses the messages: {self._aliases.original(str(error))}") from None
        assert isinstance(rendered, str)
        return rendered

    def _as_hugging_face(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        return tuple(self._hf(_encodable(text), add_special_tokens=add_special_tokens, verbose=False)["input_ids"])


class _Aliases:
    """Unguessable stand-ins for the control strings, and the tokenizer that reads them."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        nonce = secrets.token_hex(12)
        controls = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items()) if token.special]
        self._alias_of = {content: f"x{nonce}n{index:05d}x" for index, content in enumerate(controls)}
        self._content_of = {alias: content for content, alias in self._alias_of.items()}
        self._control = _any_of(controls)
        self._alias = _any_of(self._content_of)
        self._edges = _edge_fragments(controls)
        self._harmless = f"x{nonce}x"
        self._tokenizer = _renamed(tokenizer, self._alias_of)
        self._templates: dict[str, str] = {}

    def template(self, source: str) -> str:
        """The template with its control strings aliased."""
        return self._templates.setdefault(source, self.replaced(source))

    def replaced(self, value: Any) -> Any:
        """Every control string in the strings of `value` as its alias."""
        return _map_strings(value, lambda text: self._control.sub(lambda found: self._alias_of[found[0]], text))

    def original(self, text: str) -> str:
        return self._alias.sub(lambda found: self._content_of[found[0]], text)

    def count_control(self, text: str) -> int:
        return sum(1 for _ in self._control.finditer(text))

    def without_control(self, values: Any) -> Any:
        """The same values with no control string in them, nor the beginning or end of one at their edges."""
        return _map_strings(
            values, lambda text: self._edges.sub(self._harmless, self._control.sub(self._harmless, text))
        )

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(_encodable(text), add_special_tokens=False).ids)


def _any_of(strings: Any) -> re.Pattern[str]:
    """Matches any of the strings, the longest first, as the tokenizer does."""
    longest_first = sorted(strings, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _edge_fragments(controls: Sequence[str]) -> re.Pattern[str]:
    """Matches what could join with a neighbour into a control string: a tail of one in front, a head at the end."""
    heads = sorted({control[:n] for control in controls for n in range(1, len(control))}, key=len, reverse=True)
    tails = sorted({control[n:] for control in controls for n in range(1, len(control))}, key=len, reverse=True)
    if not heads:
        return re.compile(r"(?!)")
    return re.compile(rf"\A(?:{'|'.join(map(re.escape, tails))})|(?:{'|'.join(map(re.escape, heads))})\Z")


def _map_strings(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_map_strings(key, change): _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_strings(item, change) for item in value]
    return value


def _renamed(tokenizer: tokenizers.Tokenizer, alias_of: Mapping[str, str]) -> tokenizers.Tokenizer:
    """A clone whose control tokens are called by their aliases: same ids, same flags."""
    state = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:
        token["content"] = alias_of.get(token["content"], token["content"])
    model = state["model"]
    if "merges" in model:  # no text may grow into a control token
        model["merges"] = [pair for pair in model["merges"] if not {*pair, "".join(pair)} & alias_of.keys()]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {alias_of.get(content, content): token_id for content, token_id in model["vocab"].items()}
    else:  # unigram: the id is the place in the list
        model["vocab"] = [[alias_of.get(content, content), score] for content, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = alias_of.get(model["unk_token"], model["unk_token"])
    # Chats are encoded without the post-processor's tokens, whole, and never decoded by the clone.
    state |= {"post_processor": None, "decoder": None, "truncation": None, "padding": None}
    return tokenizers.Tokenizer.from_str(json.dumps(state))


# ---- messages as templates want them ---------------------------------------------------------------


def _for_template(message: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's wire form → what templates read: text parts joined, tool-call arguments as objects."""
    changed = dict(message)
    if isinstance(message.get("content"), (list, tuple)):
        changed["content"] = "".join(_texts(message["content"]))
    if message.get("tool_calls"):
        changed["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    return changed


def _texts(parts: Sequence[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
            yield part["text"]
        else:
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise BadPrompt(f"content part of type {kind!r} is not text; this model takes text only")


def _tool_call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except ValueError as error:
        raise BadPrompt(f"arguments of tool call {function.get('name')!r} are not JSON: {error}") from None
    return {**call, "function": {**function, "arguments": arguments}}


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadPrompt(f"the text has half a surrogate pair at character {error.start}") from None
    return text


# ---- loading ---------------------------------------------------------------------------------------


def _load(path: Path) -> PreTrainedTokenizerFast:
    try:
        loaded = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, TypeError, LookupError, ImportError) as error:
        raise ModelRefused(f"no tokenizer could be loaded from {path}: {error}") from error
    if not isinstance(loaded, PreTrainedTokenizerFast):
        raise ModelRefused(f"{path} has no fast tokenizer (tokenizer.json), but a {type(loaded).__name__}")
    return loaded


def _vocabulary_size(path: Path, tokenizer: PreTrainedTokenizerFast) -> int:
    """The model may have more rows than the tokenizer has words, and may draw any of them."""
    words = max(tokenizer.get_vocab().values(), default=-1) + 1
    config = path / "config.json"
    asked = json.loads(config.read_text()).get("vocab_size") if config.is_file() else None
    return max(words, asked or 0)
