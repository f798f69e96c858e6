"""The other families of the table, and decoders let in by the probe: a little of everything, and pages running out."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.gpu.models.tiny import save_tiny

from .bench import Bench
from .checkpoints import CONTEXT_TOKENS, VOCAB_SIZE, build_tokenizer
from .oracle import Comparison, Oracle
from .scenarios import SCENARIOS

TABLE = ("gemma", "gemma2", "gemma3_text", "phi3")
PROBED = ("mixtral", "cohere2")


@pytest.mark.parametrize("family", TABLE + PROBED)
async def test_tokens_equal_hugging_face(family: str, tmp_path: Path) -> None:
    folder = save_tiny(family, tmp_path / family, vocab_size=VOCAB_SIZE, max_position_embeddings=CONTEXT_TOKENS)
    build_tokenizer(("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "").save_pretrained(folder)
    oracle, total = Oracle(folder), Comparison()
    for scenario in ("a_little_of_everything", "preemption"):
        answers = await SCENARIOS[scenario](Bench(folder=folder, random=Random(f"{family}/{scenario}")))
        assert len({token for answer in answers for token in answer.output}) >= 20, "the checkpoint's text must vary"
        total.add(oracle.compare(answers))
    assert total.tokens > 300 and not total.differences, str(total)
    assert len(total.ties) <= 1, str(total)
