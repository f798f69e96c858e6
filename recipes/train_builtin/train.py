"""Train `builtin:tiny`: data, weights, scores, in one command under a budget of wall-clock time.

    python -m recipes.train_builtin.train --minutes 8 --out build/builtin

The corpus is what this CPython carries (or `--corpus`, as `corpus.py` writes it). On a GPU a few minutes are enough;
on a CPU say `--minutes 110 --tokens 12288 --compile`. Killed, it goes on from its last checkpoint with `--resume`;
`--start` goes on from the weights of another run. The learning rate and the mixture follow the clock, so a run ends
in time on any machine, and no two runs are the same to the bit.

In the folder: model.safetensors and config.json (a Hugging Face checkpoint, with the tokenizer beside it), train.csv,
scores.csv (held-out, exact), run.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from recipes.train_builtin import scoring
from recipes.train_builtin.corpus import load
from recipes.train_builtin.loading import Batch, Loader, batch
from recipes.train_builtin.mixture import TASKS, USUAL, Wish
from recipes.train_builtin.network import Network, Shape
from recipes.train_builtin.optimizer import Optimizer, has_bfloat16, multiplier
from recipes.train_builtin.packing import IN_PROMPT, SEGMENT, Segment
from recipes.train_builtin.sieving import Sieve

SHIPPED = "parrot_compat.gpu.models"
KEPT = torch.float16
"""What weights are rounded to: of the formats of two bytes the one that moves numbers of this size the least."""

LEAST_S = 5.0
"""So long a run trains, also where to begin has taken all the time it had."""

UNSURE = 0.5
"""A loss above this is a token foretold wrongly, or with less than 0.6."""


@dataclass(slots=True)
class Clock:
    """How much of the training's time has gone, over all its pieces."""

    seconds: float
    before: float = 0.0
    began: float = 0.0

    @property
    def progress(self) -> float:
        return min(1.0, self.before + (time.monotonic() - self.began) / self.seconds)


def loss_of(hidden: Tensor, places: Tensor, embedding: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    logits = F.linear(hidden[places], embedding).float()
    return (F.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum().clamp(min=1.0)


class Training:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        text = Path(options.tokenizer).read_text("utf-8") if options.tokenizer else _shipped("tokenizer.json")
        documents = load(options.corpus)
        self.loader = Loader(
            documents, text, seed=options.seed, workers=options.workers, device=self.device, tokens=options.tokens,
            wish=Wish(drawn=dict(options.draw), noise=options.noise, long=options.long, more=options.more),
            in_prompt=options.in_prompt,
        )  # fmt: skip
        torch.manual_seed(options.seed)
        torch.set_float32_matmul_precision("high")
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        self.tokenizer = Tokenizer.from_str(text)
        shape = Shape(
            hidden_size=options.hidden,
            intermediate_size=options.hidden * 11 // 4,
            num_hidden_layers=options.layers,
            num_attention_heads=options.hidden // 64,
        )
        self.network = Network(shape, is_compiled=options.compile).to(self.device)
        if options.start:
            self.begin_with(load_file(Path(options.start) / "model.safetensors"))
        self.optimizer = Optimizer(self.network, options.optimizer, options.rate)
        self.sieve = Sieve(self.wrong, options.seed) if options.sieve else None
        self._loss = torch.compile(loss_of, dynamic=False) if options.compile else loss_of
        self.step = self.tokens = 0
        self.out = Path(options.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.test = scoring.held_out(documents, self.tokenizer, options.each)

    @torch.no_grad()
    def begin_with(self, weights: dict[str, Tensor]) -> None:
        for name, weight in self.network.named():
            weight.copy_(weights[name])

    def autocast(self) -> torch.autocast:
        is_enabled = self.device.type == "cuda" or (torch.is_grad_enabled() and has_bfloat16())
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_enabled)

    def batch(self, progress: float) -> Batch:
        maturity = self.maturity(progress)
        if self.sieve is None:
            return self.loader.batch(maturity)
        some: list[Segment] = []
        while len(some) < self.options.tokens // SEGMENT:
            sieved = self.sieve.push(self.loader.segment(maturity))
            some += [] if sieved is None else [sieved]
        return batch(some, self.device)

    @torch.no_grad()
    def wrong(self, segment: Segment) -> npt.NDArray[np.bool_]:
        one = batch([segment], self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda" or has_bfloat16()):
            hidden = self.network(one.ids, one.positions, one.rows, is_usual=True)
            losses = F.cross_entropy(self.network.logits(hidden[one.places]).float(), one.labels, reduction="none")
        return (losses > UNSURE).cpu().numpy()

    def gradients(self, batch: Batch) -> Tensor:
        with self.autocast():
            hidden = self.network(batch.ids, batch.positions, batch.rows)
            embedding = self.network.weights["model/embed_tokens/weight"]
            loss = self._loss(hidden, batch.places, embedding, batch.labels, batch.weights)
        loss.backward()
        return loss.detach()

    def scores(self, most: int | None = None) -> dict[str, float]:
        with self.autocast():
            return {
                task: scoring.share(scoring.exact(self.network, self.tokenizer, examples[:most], self.device))
                for task, examples in self.test.items()
            }

    # ---- what is kept ------------------------------------------------------------------------------

    def save(self, dtype: torch.dtype = KEPT) -> None:
        weights = {name: weight.detach().to("cpu", dtype).contiguous() for name, weight in self.network.named()}
        save_file(weights, self.out / "model.safetensors", metadata={"format": "pt"})
        config = self.network.shape.config("float32")  # what is computed in, unless somebody asks for less
        (self.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (self.out / "tokenizer.json").write_text(self.tokenizer.to_str())

    def checkpoint(self, progress: float) -> None:
        state = {
            "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
            "step": self.step, "tokens": self.tokens, "progress": progress,
        }  # fmt: skip
        draft = self.out / "checkpoint.draft"
        torch.save(state, draft)
        draft.replace(self.out / "checkpoint.pt")

    def resume(self) -> float:
        """Returns the progress that was made."""
        state = torch.load(self.out / "checkpoint.pt", map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.tokens = state["step"], state["tokens"]
        return float(state["progress"])

    def maturity(self, progress: float) -> float:
        """Where in the mixture: a model that has learnt to copy gets all of it at once."""
        return 1.0 if self.options.start else progress

    # ---- the run -----------------------------------------------------------------------------------

    def run(self, began: float) -> None:
        options = self.options
        before = self.resume() if options.resume else 0.0
        self.gradients(self.batch(before))  # compiles, before the clock runs
        self.network.zero_grad(set_to_none=True)
        now = time.monotonic()
        left_s = 60 * options.minutes * (1 - before) - (now - began) - options.reserve
        clock = Clock(max(LEAST_S, left_s) / max(1e-6, 1 - before), before, now)
        print(f"{now - began:.0f} s to begin; {left_s:.0f} s of training on {self.device}", flush=True)
        log = csv.writer((self.out / "train.csv").open("a", newline="", buffering=1))
        score_log = csv.writer((self.out / "scores.csv").open("a", newline="", buffering=1))
        shown, saved, scored = now, now, now
        while (progress := clock.progress) < 1.0:
            loss = self.gradients(self.batch(progress))
            norm = self.optimizer.step(multiplier(progress, self.step))
            self.step += 1
            self.tokens += options.tokens
            now = time.monotonic()
            if now - shown > options.show:
                row = [f"{now - began:.1f}", self.step, self.tokens, f"{progress:.3f}", f"{loss.item():.4f}"]
                row += [f"{norm.item():.3f}", f"{self.loader.echoes / self.loader.taken:.3f}", self._passed()]
                log.writerow(row)
                rate = options.tokens * (self.step - self._shown_step) / (now - shown)
                said = "s {} step {} tokens {} done {} loss {} norm {} echoed {} passed {}".format(*row)
                print(said, f"{rate:,.0f} tokens/s")
                shown, self._shown_step = now, self.step
            if now - saved > options.save_every:
                self.checkpoint(progress)
                saved = now
            if now - scored > options.score_every:
                self._score(score_log, progress, 24)
                scored = time.monotonic()
        self.loader.close()
        self.save()
        self._rounded()
        self._score(score_log, 1.0, None)

    _shown_step = 0

    def _passed(self) -> str:
        """Of the rows that were read, those that are trained on."""
        return "1" if self.sieve is None else f"{self.sieve.passed / max(1, self.sieve.seen):.3f}"

    def _rounded(self) -> None:
        """What is scored is what is kept."""
        with torch.no_grad():
            for _, weight in self.network.named():
                weight.copy_(weight.to(KEPT).float())

    def _score(self, log: Any, progress: float, most: int | None) -> None:
        found = self.scores(most)
        log.writerows([f"{progress:.3f}", self.step, task, f"{score:.4f}"] for task, score in found.items())
        print(
            f"exact at {progress:.2f}: " + ", ".join(f"{task} {score:.2f}" for task, score in found.items()), flush=True
        )


def _shipped(name: str) -> str:
    return (resources.files(SHIPPED) / "builtin_tiny" / name).read_text("utf-8")


def _drawn(text: str) -> tuple[str, float]:
    task, _, weight = text.partition("=")
    if task not in TASKS:
        raise argparse.ArgumentTypeError(f"no task {task!r}; there are {', '.join(TASKS)}")
    return task, float(weight)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--minutes", type=float, default=8.0, help="wall-clock time of all of it (8)")
    add("--out", default="build/builtin", help="the folder that is written")
    add("--corpus", type=Path, default=None, help="a file that corpus.py wrote; else this CPython's own texts")
    add("--tokenizer", default=None, help="a tokenizer.json; else the shipped one")
    add("--start", default=None, help="a folder whose model.safetensors is trained on")
    add("--draw", nargs="*", type=_drawn, default=[], metavar="TASK=WEIGHT", help="how often a task is drawn")
    add("--noise", type=float, default=USUAL.noise, help=f"share of texts with words replaced ({USUAL.noise})")
    add("--long", type=float, default=USUAL.long, help=f"share of long texts ({USUAL.long})")
    add("--more", type=float, default=USUAL.more, help=f"share of passages from comments and strings ({USUAL.more:g})")
    add("--sieve", action="store_true", help="read on until what is not learnt yet fills a step; with --start")
    add("--in-prompt", type=int, default=IN_PROMPT, help=f"what a prompt's token counts, of 64 ({IN_PROMPT})")
    add("--rate", type=float, default=1.0, help="multiplies the learning rates (1)")
    add("--seed", type=int, default=1)
    add("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="processes that make data")
    add("--tokens", type=int, default=4 * SEGMENT, help="tokens of a step")
    add("--hidden", type=int, default=256)
    add("--layers", type=int, default=8)
    add("--optimizer", choices=("muon", "adamw"), default="muon")
    add("--device", default=None)
    add("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    add("--resume", action="store_true", help="go on from the folder's checkpoint")
    add("--each", type=int, default=200, help="held-out examples of each task")
    add("--reserve", type=float, default=25.0, help="seconds kept for the last scores")
    add("--show", type=float, default=5.0, help="seconds between lines")
    add("--score-every", type=float, default=60.0, help="seconds between scores")
    add("--save-every", type=float, default=60.0, help="seconds between checkpoints")
    return made


def main(argv: list[str] | None = None) -> None:
    began = time.monotonic()
    options = parser().parse_args(argv)
    training = Training(options)
    parameters = sum(weight.numel() for weight in training.network.parameters())
    print(f"{parameters:,} parameters; {len(training.test)} tasks to score", flush=True)
    training.run(began)
    facts = {
        "parameters": parameters, "steps": training.step, "tokens": training.tokens, "echoed": training.loader.echoes,
        "seconds": round(time.monotonic() - began, 1), "torch": torch.__version__, "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if training.device.type == "cuda" else platform.processor() or "cpu",
        "options": {name: str(value) for name, value in vars(options).items()},
    }  # fmt: skip
    (training.out / "run.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(f"{training.out}: {facts['steps']} steps, {facts['seconds']} s")


if __name__ == "__main__":
    main()
