"""The tokenizer port: from contents to token ids and back, exactly as Hugging Face does it.

Prompt ids are the chat template applied to the real values and tokenised as one text, never pieces put
together. One exception, for safety: text inside values (message contents) never encodes to control ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from .output_format import OutputFormat, ReasoningStyle, ToolStyle
from .prompt import Content

__all__ = ["FormatChecker", "Reasoned", "Templated", "Tokenizer", "ToolStyled"]


class Tokenizer(Protocol):
    def encode(self, content: Content) -> tuple[int, ...]:
        """Prompt ids of a chat (with the generation prompt), a raw text or given ids.

        Errors: `BadPrompt` where the chat template refuses the messages or an id is out of the vocabulary.
        """
        ...

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str: ...

    def token_bytes(self, token: int) -> bytes:
        """What one token writes behind other text, perhaps a part of a character; of a control token its name."""
        ...

    def text_bytes(self, token: int) -> bytes:
        """The same as it stands in a text: of a control token nothing."""
        ...


@runtime_checkable
class FormatChecker(Protocol):
    """A tokenizer that knows whether there are texts of a form in its vocabulary."""

    def check_format(self, format: OutputFormat) -> None:
        """Errors: `BadSchema`. Takes milliseconds for what people write, and is bounded for the rest."""
        ...


@runtime_checkable
class ToolStyled(Protocol):
    """A tokenizer whose chat template shows how the model calls tools."""

    @property
    def tool_style(self) -> ToolStyle: ...


@runtime_checkable
class Reasoned(Protocol):
    """A tokenizer whose chat template shows how the model writes what it thinks."""

    @property
    def reasoning_style(self) -> ReasoningStyle: ...


@runtime_checkable
class Templated(Protocol):
    """A tokenizer whose chat template can be told more than messages and tools (`Chat.template`)."""

    @property
    def template_variables(self) -> frozenset[str]:
        """The names that it has for what it can be told; any other is passed over."""
        ...

    def reasoning_style_with(self, values: Mapping[str, Any]) -> ReasoningStyle:
        """How the model writes what it thinks where the template is told these. Errors: `BadPrompt`."""
        ...
