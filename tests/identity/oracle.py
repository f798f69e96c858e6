"""The oracle: what Hugging Face `generate` says, unpadded, batch 1, float32, greedy; and the rule of comparing.

It knows nothing of engines: it takes prompts and outputs as token ids.
The rule (`Oracle.compare`): greedy tokens are equal, except that a first difference counts as a *tie* where the same
model in float64 puts both tokens within TIE of the largest logit. After a tie nothing more is compared: the two texts
have parted for a reason that neither is wrong about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

__all__ = ["MARGIN", "TIE", "Answer", "Comparison", "Difference", "Oracle"]

TIE = 1e-4
MARGIN = 1e-3
"""Where a token's logit is further than this above all others, rounding does not decide which is the largest: the
logits of one pass and of `generate` are less than half of it apart (test_oracle.py)."""

_FIXED_ROPES = {"default", "linear", "llama3", "yarn"}
"""Scalings in which a position is rotated the same however long the text is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an engine drew after the whole token prefix `prompt`."""

    prompt: tuple[int, ...]
    output: tuple[int, ...]
    text: str = ""
    cached_tokens: int = 0
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first place where an answer leaves the oracle's."""

    answer: Answer
    index: int
    expected: int
    drawn: int | None
    """None: the answer ended here, the oracle's did not."""
    gap: float
    """Largest float64 logit less that of the worse of the two tokens; infinite where the lengths differ."""

    def __str__(self) -> str:
        return (
            f"{self.answer.label or 'answer'}: prompt of {len(self.answer.prompt)} tokens, output token {self.index} "
            f"is {self.drawn}, Hugging Face draws {self.expected} (float64 gap {self.gap:.2e})"
        )


@dataclass(slots=True)
class Comparison:
    """Counts over many answers."""

    prompts: set[tuple[int, ...]] = field(default_factory=set)
    answers: int = 0
    exact: int = 0
    tokens: int = 0
    """Tokens that were compared: up to the first difference, it included."""
    ties: list[Difference] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    def add(self, other: Comparison) -> None:
        self.prompts |= other.prompts
        self.answers += other.answers
        self.exact += other.exact
        self.tokens += other.tokens
        self.ties += other.ties
        self.differences += other.differences

    def __str__(self) -> str:
        lines = [f"{self.exact} of {self.answers} answers exact, {self.tokens} tokens compared"]
        lines += [f"  tie: {tie}" for tie in self.ties] + [f"  DIFFERENT: {found}" for found in self.differences]
        return "\n".join(lines)


class Oracle:
    """One checkpoint as Hugging Face runs it. Every continuation is computed once and remembered."""

    def __init__(self, folder: Path) -> None:
        self.model = _load(folder, torch.float32)
        self._judge = _load(folder, torch.float64)
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._one_pass_will_do = _looks_only_back(self.model)

    def output(self, prompt: Sequence[int], tokens: int) -> tuple[int, ...]:
        """The first `tokens` tokens that Hugging Face draws after `prompt`; end-of-sequence tokens end nothing."""
        key = tuple(prompt)
        if len(self._known.get(key, ())) < tokens:
            ids = torch.tensor([key])
            config = GenerationConfig(max_new_tokens=tokens, do_sample=False, pad_token_id=0)
            drawn = self.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
            self._known[key] = tuple(drawn[0, len(key) :].tolist())
            assert len(self._known[key]) == tokens
        return self._known[key][:tokens]

    def forget(self) -> None:
        """Drop the remembered continuations."""
        self._known.clear()

    def compare(self, answers: Iterable[Answer], *, tokens: int | None = None, by_generate: bool = False) -> Comparison:
        """Compare outputs in full; `tokens` is how many each must have (None: as many as it has).

        Answers that are plainly right are seen to be in one pass each, unless `by_generate`.
        """
        result = Comparison()
        for answer in answers:
            wanted = tokens if tokens is not None else len(answer.output)
            plain = not by_generate and len(answer.output) == wanted and self._draws(answer)
            expected = answer.output if plain else self.output(answer.prompt, wanted)
            found = self._first_difference(answer, expected)
            result.prompts.add(answer.prompt)
            result.answers += 1
            result.tokens += len(expected) if found is None else found.index + 1
            result.exact += found is None
            if found is not None:
                (result.ties if found.gap <= TIE else result.differences).append(found)
        return result

    def _draws(self, answer: Answer) -> bool:
        """Whether `output` would plainly be the answer; False where only `output` itself can tell.

        Token by token: let `generate` have drawn the answer's first i tokens. Its logits after them are those of this
        pass at that place, up to rounding, for the text up to there is the same and what comes after it is not seen.
        Rounding moves two logits by less than MARGIN together, so what is the largest here by more is the largest
        there, and `generate` draws it: greedily, ended by no token, with nothing that changes logits (`_load`).
        """
        known = self._known.get(answer.prompt, ())
        if not self._one_pass_will_do or not answer.output or len(known) >= len(answer.output):
            return False
        ids = torch.tensor([answer.prompt + answer.output[:-1]])
        with torch.inference_mode():
            logits = self.model(ids, logits_to_keep=len(answer.output), use_cache=False).logits[0]
        values, drawn = logits.topk(2)
        # Numbers that are none exceed nothing: they are left to `generate`.
        return drawn[:, 0].tolist() == list(answer.output) and bool((values[:, 0] - values[:, 1] > MARGIN).all())

    def _first_difference(self, answer: Answer, expected: tuple[int, ...]) -> Difference | None:
        if answer.output == expected:
            return None
        both = zip(answer.output, expected, strict=False)
        shorter = min(len(answer.output), len(expected))
        index = next((i for i, (drawn, wanted) in enumerate(both) if drawn != wanted), shorter)
        if index == shorter:
            wanted = expected[index] if index < len(expected) else -1
            given = answer.output[index] if index < len(answer.output) else None
            return Difference(answer=answer, index=index, expected=wanted, drawn=given, gap=float("inf"))
        drawn, wanted = answer.output[index], expected[index]
        with torch.no_grad():
            logits = self._judge(torch.tensor([answer.prompt + expected[:index]]), logits_to_keep=1).logits[0, -1]
        gap = float(logits.max() - torch.minimum(logits[drawn], logits[wanted]))
        return Difference(answer=answer, index=index, expected=wanted, drawn=drawn, gap=gap)


def _looks_only_back(model: PreTrainedModel) -> bool:
    """Whether a token's logits hang on the tokens up to it, and smoothly.

    Ropes that grow rotate a whole text by its length, `generate` each step by the length it has then. A router that
    rounds the other way sends a token to another expert, whose logits are no little distance away.
    """
    ropes = getattr(model.config, "rope_parameters", None) or {}
    kinds = [
        ropes,
        *(kind for kind in ropes.values() if isinstance(kind, dict)),
    ]  # Gemma 3 has one for each kind of layer
    return all(kind.get("rope_type", "default") in _FIXED_ROPES for kind in kinds) and not any(
        "experts" in name for name, _ in model.named_modules()
    )


def _load(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    # Cast after loading: the config's float32 would otherwise win over the asked dtype in some buffers.
    # Older releases choose "sdpa" for Gemma 2, which leaves its soft cap out; only "eager" has it in all of them.
    capped = getattr(AutoConfig.from_pretrained(folder), "attn_logit_softcapping", None) is not None
    how = {"attn_implementation": "eager"} if capped else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how).to(dtype).eval()
    model.generation_config.eos_token_id = None
    return model  # type: ignore[no-any-return]
