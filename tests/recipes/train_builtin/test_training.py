"""The training itself: the network is a Llama, the optimiser learns, a run ends, is resumed, and is scored."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from parrot_compat.gpu.models.builtin import checkpoint
from recipes.train_builtin import corpus, mixture, train
from recipes.train_builtin.network import Network, Shape
from recipes.train_builtin.optimizer import Optimizer, multiplier, orthogonal
from recipes.train_builtin.scoring import exact

from .test_data import documents

SMALL = Shape(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_the_network_is_transformers_llama() -> None:
    network = Network(SMALL)
    model = LlamaForCausalLM(LlamaConfig(**SMALL.config("float32")))
    weights = {name: weight.detach() for name, weight in network.named()}
    model.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    ids = torch.randint(0, 96, (3, 20))
    rows = [(1, 20), (2, 20)]
    ours = network.logits(network(ids.reshape(-1), torch.arange(20).repeat(3), rows)).unflatten(0, (3, 20))
    torch.testing.assert_close(ours, model(ids).logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_the_optimiser_learns_a_text_by_heart(kind: str) -> None:
    network = Network(SMALL)
    optimizer = Optimizer(network, kind)
    ids, places = torch.randint(0, 96, (64,)), torch.arange(64)
    losses = []
    for step in range(40):
        hidden = network(ids, places, [(1, 64)])
        loss = F.cross_entropy(network.logits(hidden[:-1]), ids[1:])
        loss.backward()
        optimizer.step(multiplier(0.0, step, warm_steps=5))
        losses.append(loss.item())
    assert losses[0] > 4 and losses[-1] < 1


def test_orthogonal_matrices_have_singular_values_near_one() -> None:
    for shape in ((3, 8, 24), (3, 24, 8)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)).float())
        assert float(values.min()) > 0.5 and float(values.max()) < 1.4


def test_the_rate_rises_stays_and_falls_to_nearly_nothing() -> None:
    assert multiplier(0.0, 0) < 0.05 and multiplier(0.2, 1000) == 1.0
    assert multiplier(0.6, 1000) == pytest.approx(0.597, abs=0.01) and multiplier(1.0, 1000) == 0.01


def test_exact_agrees_with_greedy_generation() -> None:
    """A model that knows some answers by heart: one pass must tell which ones it would give."""
    tokenizer = Tokenizer.from_file(str(checkpoint("tiny") / "tokenizer.json"))
    network = Network(Shape(hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=1))
    trained = [document for document in documents() if not document.is_held_out]
    examples = [e for e in itertools.islice(mixture.examples(trained, 5, lambda: 0.0), 400) if len(e.answer) < 30][:12]
    known, optimizer = examples[:6], Optimizer(network)
    rows = [(tokenizer.encode(e.prompt()).ids, [*tokenizer.encode(e.answer).ids, 2]) for e in examples]
    for step in range(60):
        for prompt, answer in rows[: len(known)]:
            ids = torch.tensor(prompt + answer)
            hidden = network(ids, torch.arange(len(ids)), [(1, len(ids))])
            F.cross_entropy(network.logits(hidden[len(prompt) - 1 : -1]), ids[len(prompt) :]).backward()
        optimizer.step(multiplier(0.0, step, warm_steps=5))
    model = LlamaForCausalLM(LlamaConfig(**network.shape.config("float32"))).eval()
    weights = {name: weight.detach() for name, weight in network.named()}
    model.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    drawn = [
        model.generate(torch.tensor([prompt]), max_new_tokens=len(answer), do_sample=False)[0, len(prompt) :].tolist()
        for prompt, answer in rows
    ]
    told = exact(network, tokenizer, examples, torch.device("cpu"))
    assert told == [made == answer for made, (_, answer) in zip(drawn, rows, strict=True)]
    assert True in told and False in told


def test_a_run_ends_in_its_time_goes_on_from_its_checkpoint_and_another_from_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "LEAST_S", 0.5)
    texts, run, sieved = tmp_path / "corpus.json.xz", tmp_path / "run", tmp_path / "sieved"
    corpus.save(documents(), texts)
    said = ["--hidden", "64", "--layers", "1", "--tokens", "12288", "--workers", "1", "--each", "1", "--no-compile"]
    said += ["--corpus", str(texts), "--reserve", "0", "--show", "0", "--save-every", "0", "--minutes", "0.02"]
    train.main([*said, "--out", str(run)])
    first = json.loads((run / "run.json").read_text())
    assert first["steps"] >= 1
    weights = (run / "model.safetensors").read_bytes()
    train.main([*said, "--out", str(run), "--resume", "--rate", "0"])  # what it goes on from stays as it was
    steps = json.loads((run / "run.json").read_text())["steps"]
    shown = [int(line.split(",")[1]) for line in (run / "train.csv").read_text().splitlines()]
    assert shown == list(range(1, steps + 1)) and steps > first["steps"]
    assert (run / "model.safetensors").read_bytes() == weights
    state = torch.load(run / "checkpoint.pt", weights_only=True)["optimizer"]["adam"]["state"]
    assert {int(one["step"]) for one in state.values()} == {steps}
    model, report = AutoModelForCausalLM.from_pretrained(run, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.num_hidden_layers == 1
    assert "copy 3K" in (run / "scores.csv").read_text()
    # it reads on until what is not learnt yet fills a step
    train.main([*said, "--out", str(sieved), "--start", str(run), "--sieve"])
    assert json.loads((sieved / "run.json").read_text())["steps"] >= 1
    passed = (sieved / "train.csv").read_text().splitlines()[-1].split(",")[-1]
    assert 0 < float(passed) < 1
