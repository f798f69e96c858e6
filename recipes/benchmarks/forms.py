"""What holding answers to a form costs a step: its share of the processor time at 16 rows.

    python -m recipes.benchmarks.forms builtin:tiny l25-fp32 --write

Sixteen answers of one JSON schema are drawn beside each other, and then sixteen plain ones. All numbers are processor
time, so a busy machine is all right; model and kernels run on one thread. `form_share` is what the grammar takes of a
step (which tokens may come, which was taken, where the end is); what the sampler then does with the mask is in the
difference to the plain step. Steps in which answers are brought to their end cost more and are reported apart.
"""

from __future__ import annotations

import json
import time
from typing import Any

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.engine import ContextId, Generate
from parrot_compat.core.engine_front import Command
from parrot_compat.core.output_format import JsonSchema, OutputFormat
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.sequence import Form, Forms
from parrot_compat.gpu.stepper import Stepper
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer

from .checkpoints import folder
from .measured import Measured, command_of_models

__all__ = ["main", "measured"]

ROWS = 16
TOKENS = 400
PROMPT = 128
STRETCH = 20
WARM = 8
"""Steps in which prompts are computed and forms are compiled."""
ITEM = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "score": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "kind": {"enum": ["fact", "guess", "question"]},
    },
    "required": ["title", "score", "tags", "kind"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {"summary": {"type": "string", "minLength": 200}, "items": {"type": "array", "items": ITEM}},
    "required": ["summary", "items"],
    "additionalProperties": False,
}


class _Timed:
    """A form that says what it took."""

    def __init__(self, form: Form, spent: list[float]) -> None:
        self._form = form
        self._spent = spent

    @property
    def is_complete(self) -> bool:
        return self._form.is_complete

    def allowed(self, may_end: bool) -> Any:
        began = time.thread_time()
        mask = self._form.allowed(may_end)
        self._spent[-1] += time.thread_time() - began
        return mask

    def take(self, token: int, left: int) -> int:
        began = time.thread_time()
        taken = self._form.take(token, left)
        self._spent[-1] += time.thread_time() - began
        return taken


def measured(model: str, tokens: int = TOKENS) -> list[Measured]:
    path = folder(model)
    config = EngineConfig(model=str(path), device="cpu", threads=1, kv_tokens=ROWS * (PROMPT + tokens + 16))
    runner, tokenizer = ModelRunner(config), HuggingFaceTokenizer(path)
    forms = tokenizer.forms(runner.config.checkpoint.eos_token_ids)
    assert forms is not None, "forms need llguidance"
    held = JsonSchema(schema=json.dumps(SCHEMA), strict=True)
    plain, _ = _steps(runner, tokenizer, forms, None, tokens)
    whole, spent = _steps(runner, tokenizer, forms, held, tokens)
    made: list[Measured] = []
    for steps, part in (("drawing", slice(WARM, tokens * 3 // 5)), ("closing", slice(tokens * 3 // 5, tokens))):
        workload = f"{model}, {ROWS} rows, {runner.config.checkpoint.vocab_size} tokens, {steps}"
        made.append(Measured(workload, "plain", "step_cpu", "ms", [1e3 * spent_s for spent_s in plain[part]]))
        made.append(Measured(workload, "formed", "step_cpu", "ms", [1e3 * spent_s for spent_s in whole[part]]))
        made.append(Measured(workload, "formed", "form_share", "", _shares(whole[part], spent[part])))
    return made


def _shares(whole: list[float], spent: list[float]) -> list[float]:
    """Of stretches of steps: a search for the end is one long step among many short ones."""
    starts = range(0, len(whole), STRETCH)
    return [sum(spent[start : start + STRETCH]) / sum(whole[start : start + STRETCH]) for start in starts]


def _steps(
    runner: ModelRunner, tokenizer: HuggingFaceTokenizer, forms: Forms, form: OutputFormat | None, tokens: int
) -> tuple[list[float], list[float]]:
    """Processor seconds of each step, and of the forms in it."""
    spent: list[float] = []
    stepper = Stepper(runner, tokenizer.text_stream, forms=lambda sampling: _Timed(forms(sampling), spent))
    commands = [Command(row + 1, _asked(row, form, tokens, runner.config.checkpoint.vocab_size)) for row in range(ROWS)]
    steps: list[float] = []
    while commands or stepper.has_work:
        spent.append(0.0)
        began = time.process_time()
        stepper.step(commands)
        steps.append(time.process_time() - began)
        commands = []
    return steps, spent


def _asked(row: int, form: OutputFormat | None, tokens: int, vocabulary: int) -> Generate:
    ids = tuple((7 * at * at + 31 * row + at) % vocabulary for at in range(PROMPT))
    sampling = ResolvedSampling(max_tokens=tokens, temperature=1.0, seed=row, ignore_eos=form is None, format=form)
    return Generate(context=ContextId(row + 1), content=Tokens(ids), sampling=sampling)


def main() -> int:
    return command_of_models("forms", __doc__, measured)


if __name__ == "__main__":
    raise SystemExit(main())
