"""Scoring: examples of held-out text, and how many of them a model gets exactly right.

`held_out` is the test that training and `evaluate.py` share. `exact` scores without drawing: the greedy answer is the
right one just when every token of the right answer is the most likely one after those before it, so one pass tells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random

import torch
from tokenizers import Tokenizer

from recipes.train_builtin import mixture
from recipes.train_builtin.corpus import Document
from recipes.train_builtin.example import Example
from recipes.train_builtin.network import Network
from recipes.train_builtin.packing import END, PAD
from recipes.train_builtin.source import Source

LONG = {"copy 3K": (4200, 6300), "quote 3K": (7000, 11_000)}
"""Tasks on long texts, question and answer 2,400 to 3,900 tokens together, with the characters that give so many."""
_TASKS = (
    "copy", "quote", "recall", "question", "lookup", "edit", "extract", "nested", "tool", "tool result", "no tool",
    "summary", "merge", "refine", "docstring", "title", "code", "code test", "team", "debate", "talk",
)  # fmt: skip
_SEED = 7
_MOST_TOKENS = 512
_ROOM = 3900


def held_out(documents: Sequence[Document], tokenizer: Tokenizer, each: int) -> dict[str, list[Example]]:
    """By task, `each` examples, of documents that training never sees. The same every time."""
    hidden = [document for document in documents if document.is_held_out]
    found: dict[str, list[Example]] = {}
    for number, name in enumerate((*_TASKS, *LONG)):
        rng = Random(1000 * _SEED + number)
        source = Source(hidden, rng)
        make = mixture.TASKS[name.removesuffix(" 3K")][0]
        kept: dict[str, Example] = {}
        while len(kept) < each:
            characters = rng.randrange(*LONG[name]) if name in LONG else mixture.characters(rng, 0.3)
            example = make(source, characters)
            answer, prompt = (len(tokenizer.encode(text).ids) for text in (example.answer, example.prompt()))
            fits = prompt + answer <= _ROOM and (prompt + answer >= 2400 if name in LONG else answer <= _MOST_TOKENS)
            if fits and example.is_scored:
                kept[example.prompt()] = example
        found[name] = list(kept.values())
    return found


@torch.no_grad()
def exact(network: Network, tokenizer: Tokenizer, examples: Sequence[Example], device: torch.device) -> list[bool]:
    """Is the greedy answer the right one, token for token, its end included?"""
    rows = []
    for place, one in enumerate(examples):
        prompt, answer = tokenizer.encode(one.prompt()).ids, tokenizer.encode(one.answer).ids
        rows.append((place, len(prompt), [*prompt, *answer, END]))
    rows.sort(key=lambda row: len(row[2]))
    right = [False] * len(rows)
    groups: dict[int, list[tuple[int, int, list[int]]]] = defaultdict(list)
    for row in rows:
        groups[-(-len(row[2]) // 128) * 128].append(row)
    for width, group in groups.items():
        count = max(1, 32_768 // width)
        for start in range(0, len(group), count):
            some = group[start : start + count]
            ids = torch.full((len(some), width), PAD)
            for at, (_, _, tokens) in enumerate(some):
                ids[at, : len(tokens)] = torch.tensor(tokens)
            ids = ids.to(device)
            hidden = network(ids.reshape(-1), torch.arange(width, device=device).repeat(len(some)), [ids.shape])
            hidden = hidden.unflatten(0, ids.shape)
            for at, (place, begin, tokens) in enumerate(some):
                best = network.logits(hidden[at, begin - 1 : len(tokens) - 1]).argmax(-1)
                right[place] = bool((best == ids[at, begin : len(tokens)]).all())
    return right


def share(right: Sequence[bool]) -> float:
    return sum(right) / max(1, len(right))
