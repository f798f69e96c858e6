"""The runner against Hugging Face, for every family served, and against itself in other batches."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from parrot_compat.core.call import ResolvedSampling, TokenLogprobs
from parrot_compat.core.errors import EngineError, ModelRefused
from parrot_compat.gpu import runner as runner_module
from parrot_compat.gpu.batch import Batch, BatchRow
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.drawing.draw import Draw
from parrot_compat.gpu.drawing.drawn import Drawn
from parrot_compat.gpu.kernels.cpu.table import cpu_kernels
from parrot_compat.gpu.kernels.table import REFERENCE
from parrot_compat.gpu.layers.linear import can_pack
from parrot_compat.gpu.models import decoder as decoder_module
from parrot_compat.gpu.models.families import FAMILIES
from parrot_compat.gpu.runner import ModelRunner
from tests.gpu.drawing.computed import Computed
from tests.gpu.models.tiny import save_tiny

Checkpoint = Callable[[str], Path]
PAGE = 4
OUTPUT = 24
GREEDY = ResolvedSampling(max_tokens=OUTPUT)


@dataclass
class Sequence_:
    """A text being extended, the way an engine would do it."""

    tokens: list[int]
    pages: list[int]
    sampling: ResolvedSampling = GREEDY
    computed: int = 0
    output: list[int] = field(default_factory=list)

    def row(self, most: int = 10_000) -> BatchRow:
        end = min(len(self.tokens), self.computed + most)
        draw = Draw(sampling=self.sampling, index=len(self.output)) if end == len(self.tokens) else None
        return BatchRow(tokens=self.tokens[self.computed : end], start=self.computed, pages=self.pages, draw=draw)

    def advance(self, row: BatchRow, token: Drawn | None) -> None:
        self.computed += len(row.tokens)
        if isinstance(token, int):
            self.output.append(token)
            self.tokens.append(token)


def make_runner(path: Path, **asked: object) -> ModelRunner:
    return ModelRunner(EngineConfig(model=str(path), device="cpu", page_size=PAGE, kv_tokens=2048, **asked))  # type: ignore[arg-type]


def prompts(lengths: Sequence[int], seed: int = 1) -> list[list[int]]:
    chooser = random.Random(seed)
    return [[chooser.randrange(3, 256) for _ in range(length)] for length in lengths]


def sequences(texts: Sequence[list[int]], sampling: ResolvedSampling = GREEDY, seed: int = 2) -> list[Sequence_]:
    """Every text gets pages from all over the storage."""
    pages = list(range(2048 // PAGE))
    random.Random(seed).shuffle(pages)
    return [Sequence_(list(text), [pages.pop() for _ in range(40)], sampling) for text in texts]


def generate(runner: ModelRunner, running: Sequence[Sequence_], chunk: int = 10_000) -> list[list[int]]:
    while unfinished := [sequence for sequence in running if len(sequence.output) < OUTPUT]:
        rows = [sequence.row(chunk) for sequence in unfinished]
        for sequence, row, token in zip(unfinished, rows, runner.run(rows), strict=True):
            sequence.advance(row, token)
    return [sequence.output for sequence in running]


def generate_with_transformers(path: Path, texts: Sequence[list[int]]) -> list[list[int]]:
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval()
    outputs = []
    for text in texts:
        ids = torch.tensor([text])
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=OUTPUT, do_sample=False, eos_token_id=None
            )
        outputs.append(out[0, len(text) :].tolist())
    return outputs


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_greedy_tokens_equal_hugging_face_generate(family: str, tiny_checkpoint: Checkpoint) -> None:
    path = tiny_checkpoint(family)
    texts = prompts([1, 4, 17, 33, 60])
    expected = generate_with_transformers(path, texts)
    assert len({token for output in expected for token in output}) >= 30, "the checkpoint's text must vary"

    assert generate(make_runner(path), sequences(texts)) == expected


def test_heads_wider_than_the_kernels_hold_are_computed_by_those_that_hold_any(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path / "wide", head_dim=320)
    texts = prompts([4, 33])

    assert generate(make_runner(path), sequences(texts)) == generate_with_transformers(path, texts)


@pytest.mark.parametrize("shards_are_there", [True, False])
def test_one_file_goes_before_the_index_of_shards_that_it_was_saved_over(
    tmp_path: Path, shards_are_there: bool
) -> None:
    path = save_tiny("qwen3", tmp_path / "saved", shard_size="100KB")
    if not shards_are_there:
        for shard in path.glob("*.safetensors"):
            shard.unlink()
    shutil.copy(save_tiny("qwen3", tmp_path / "whole", seed=1) / "model.safetensors", path)
    texts = prompts([4, 33])
    assert generate(make_runner(path), sequences(texts)) == generate_with_transformers(path, texts)


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_a_deterministic_model_gives_a_row_the_same_logits_in_any_chunk_and_any_company(
    family: str, tiny_checkpoint: Checkpoint
) -> None:
    if cpu_kernels() is None:
        pytest.skip("there is no C++ compiler")
    runner = make_runner(tiny_checkpoint(family), deterministic=True)
    text, other = prompts([20, 17])
    draw = Draw(sampling=GREEDY, index=0)

    def logits(*rows: BatchRow) -> torch.Tensor:
        with torch.inference_mode():
            found = runner._decoder.logits(Batch.build(rows, PAGE, runner.device), runner._storage)
        assert found is not None
        return found

    whole = logits(BatchRow(tokens=text, start=0, pages=[0, 1, 2, 3, 4], draw=draw))
    logits(BatchRow(tokens=text[:1], start=0, pages=[5, 6, 7, 8, 9], draw=draw))
    logits(BatchRow(tokens=text[1:-1], start=1, pages=[5, 6, 7, 8, 9], draw=draw))
    decoded = logits(
        BatchRow(tokens=other, start=0, pages=[10, 11, 12, 13, 14], draw=draw),
        BatchRow(tokens=text[-1:], start=19, pages=[5, 6, 7, 8, 9], draw=draw),
    )
    assert torch.equal(decoded[1], whole[0])


def test_products_are_tried_on_the_threads_that_they_run_on(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, tried_on = runner_module.FastDecoder.load, []

    def noted(*asked: object, **options: object) -> object:
        tried_on.append(torch.get_num_threads())
        return load(*asked, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(runner_module.FastDecoder, "load", noted)
    before = torch.get_num_threads()
    try:
        make_runner(tiny_checkpoint("llama"), threads=before + 1)
        assert tried_on == [before + 1]
    finally:
        torch.set_num_threads(before)


def test_what_no_deterministic_kernels_hold_is_refused_where_that_was_asked(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "choose_device", lambda config: torch.device("cuda"))
    decoder = SimpleNamespace(kernels=REFERENCE)
    monkeypatch.setattr(runner_module.FastDecoder, "load", lambda *paths, **options: decoder)
    with pytest.raises(ModelRefused, match="no Triton kernels hold its heads"):
        make_runner(tiny_checkpoint("llama"), deterministic=True)


def test_what_torch_alone_computes_on_a_cpu_is_refused_where_one_order_was_asked(tmp_path: Path) -> None:
    """Its attention goes another way for one token than for several, and its experts' products are torch's."""
    with pytest.raises(ModelRefused, match="cannot be deterministic on this CPU: its family has no fast decoder"):
        make_runner(save_tiny("mixtral", tmp_path), deterministic=True)


def test_heads_that_no_kernels_of_ours_hold_are_refused_where_one_order_was_asked(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"cannot be deterministic on this CPU: no C.* hold its heads of 320"):
        make_runner(save_tiny("llama", tmp_path, head_dim=320), deterministic=True)


def test_without_a_compiler_one_order_is_refused_on_a_cpu(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parrot_compat.gpu.kernels.cpu.table.library", lambda: None)
    with pytest.raises(ModelRefused, match=r"cannot be deterministic on this CPU: there are no C.* kernels"):
        make_runner(tiny_checkpoint("llama"), deterministic=True)


def test_numbers_that_a_cpu_has_no_packed_product_for_are_refused_where_one_order_was_asked(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cpu_kernels(torch.bfloat16) is None:
        pytest.skip("there is no C++ compiler, or it knows no bfloat16")
    packs = decoder_module.can_pack
    monkeypatch.setattr(decoder_module, "can_pack", lambda dtype: dtype is torch.float32 and packs(dtype))
    with pytest.raises(ModelRefused, match="this CPU: there is no packed product for bfloat16"):
        make_runner(tiny_checkpoint("llama"), deterministic=True, dtype="bfloat16")


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_a_prompt_in_chunks_gives_the_tokens_of_the_prompt_at_once(
    family: str, chunk: int, tiny_checkpoint: Checkpoint
) -> None:
    path = tiny_checkpoint(family)
    texts = prompts([5, 33, 60], seed=chunk)
    runner = make_runner(path)

    assert generate(runner, sequences(texts), chunk=chunk) == generate(runner, sequences(texts, seed=7))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "granite", "cohere2"])
def test_logits_of_a_row_are_the_same_bits_alone_and_in_a_batch(
    family: str, dtype: str, tiny_checkpoint: Checkpoint
) -> None:
    if not can_pack(getattr(torch, dtype)):
        pytest.skip(f"this CPU has no packed product for {dtype}, which docs/status.md names")
    runner = make_runner(tiny_checkpoint(family), dtype=dtype)
    texts = prompts([7, 40, 21, 1, 33, 12], seed=3)
    together = sequences(texts)
    with torch.inference_mode():
        for _ in range(3):  # the prompts, then two steps of decode
            rows = [sequence.row() for sequence in together]
            in_batch = runner._decoder.logits(Batch.build(rows, PAGE), runner._storage)
            assert in_batch is not None
            for number, row in enumerate(rows):
                alone = runner._decoder.logits(Batch.build([row], PAGE), runner._storage)
                assert alone is not None
                assert torch.equal(alone[0], in_batch[number]), f"row {number} depends on its neighbours"
            for sequence, row, logits in zip(together, rows, in_batch, strict=True):
                sequence.advance(row, int(logits.argmax()))


def test_sampled_tokens_do_not_depend_on_neighbours_chunks_or_pages(tiny_checkpoint: Checkpoint) -> None:
    runner = make_runner(tiny_checkpoint("llama"))
    sampling = ResolvedSampling(max_tokens=OUTPUT, temperature=0.9, top_p=0.95, top_k=40, seed=1234)
    text, *others = prompts([20, 9, 31, 2], seed=4)
    [alone] = generate(runner, sequences([text], sampling))

    neighbours = sequences(others, ResolvedSampling(max_tokens=OUTPUT, temperature=1.5, seed=9), seed=6)
    mixed = [neighbours[0], *sequences([text], sampling, seed=5), *neighbours[1:]]
    mixed[1].pages = [page for page in range(512) if all(page not in other.pages for other in neighbours)][-40:]
    outputs = generate(runner, mixed, chunk=6)

    assert outputs[1] == alone
    assert len(set(alone)) > OUTPUT // 3


def test_a_fill_draws_nothing_and_leaves_its_keys_for_the_next_step(tiny_checkpoint: Checkpoint) -> None:
    runner = make_runner(tiny_checkpoint("qwen3"))
    [text] = prompts([30])
    [whole] = sequences([text])
    row = whole.row()
    expected = runner.run([row])[0]

    [filled] = sequences([text])
    first = BatchRow(tokens=text[:29], start=0, pages=filled.pages, draw=None)
    assert runner.run([first]) == [None]
    filled.computed = 29
    assert runner.run([filled.row()]) == [expected]


def test_a_copied_page_reads_as_its_source(tiny_checkpoint: Checkpoint) -> None:
    runner = make_runner(tiny_checkpoint("llama"))
    [text] = prompts([15])
    [source] = sequences([text])
    expected = runner.run([source.row()])

    pages = [page for page in range(512) if page not in source.pages][:4]
    runner.copy_pages(list(zip(source.pages[:4], pages, strict=True)))
    again = BatchRow(tokens=text[-1:], start=14, pages=pages, draw=Draw(sampling=GREEDY, index=0))

    assert runner.run([again]) == expected


def test_a_stale_page_would_change_the_tokens(tiny_checkpoint: Checkpoint) -> None:
    """The test of the test above: pages that were not copied do not read as the source."""
    runner = make_runner(tiny_checkpoint("llama"))
    [text] = prompts([15])
    [source] = sequences([text])
    runner.run([source.row()])
    with torch.inference_mode():
        logits = [
            runner._decoder.logits(
                Batch.build([BatchRow(tokens=text[-1:], start=14, pages=pages, draw=source.row().draw)], PAGE),
                runner._storage,
            )
            for pages in (source.pages, [source.pages[0], source.pages[0], source.pages[2], source.pages[3]])
        ]
    assert logits[0] is not None and logits[1] is not None
    assert (logits[0] - logits[1]).abs().max() > 1e-2


def test_bfloat16_stays_close_to_float32(tiny_checkpoint: Checkpoint) -> None:
    """On the float32 model's own text, the bfloat16 model's logits point the same way."""
    path = tiny_checkpoint("qwen2")
    [text] = prompts([40])
    row = sequences([text])[0].row()
    logits = []
    for dtype in ("float32", "bfloat16"):
        runner = make_runner(path, dtype=dtype)
        with torch.inference_mode():
            out = runner._decoder.logits(Batch.build([row], PAGE), runner._storage)
        assert out is not None
        logits.append(out[0].float())
    assert torch.cosine_similarity(logits[0], logits[1], dim=0) > 0.99


def test_a_token_outside_the_vocabulary_is_an_error_that_names_it(tiny_checkpoint: Checkpoint) -> None:
    runner = make_runner(tiny_checkpoint("llama"))
    row = BatchRow(tokens=[5, 256], start=0, pages=[0], draw=None)

    with pytest.raises(EngineError, match=r"token 256; the vocabulary has 256"):
        runner.run([row])


def test_log_probabilities_are_computed_when_a_step_is_launched_so_that_the_step_behind_it_is_not_in_their_way(
    tiny_checkpoint: Checkpoint,
) -> None:
    runner = make_runner(tiny_checkpoint("llama"))
    texts, tables = prompts([5, 9, 2]), [[0, 1], [2, 3, 4], [5]]
    rows = [
        BatchRow(tokens=text, start=0, pages=pages, draw=Draw(sampling=replace(GREEDY, logprobs=top), index=0))
        for text, pages, top in zip(texts, tables, (3, None, 0), strict=True)
    ]
    flight = runner.launch(rows)
    ahead = [
        BatchRow(tokens=[0], start=len(text), pages=[*pages, 6 + number], draw=row.draw, drawn_by=number)
        for number, (text, pages, row) in enumerate(zip(texts, tables, rows, strict=True))
    ]
    behind = runner.launch(ahead, flight)
    with Computed() as computed:
        first = runner.collect(flight)
        second = runner.collect(behind)
    assert computed.operations == []
    plain = [replace(row, draw=Draw(sampling=GREEDY, index=0)) for row in rows]
    tokens = runner.run(plain)
    assert [item.token if isinstance(item, TokenLogprobs) else item for item in first] == tokens
    assert [len(item.top) for item in (*first, *second) if isinstance(item, TokenLogprobs)] == [3, 0, 3, 0]


def test_an_empty_step_is_no_step(tiny_checkpoint: Checkpoint) -> None:
    assert make_runner(tiny_checkpoint("llama")).run([]) == []


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_greedy_tokens_on_a_gpu_equal_those_on_the_cpu(family: str, tiny_checkpoint: Checkpoint) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    path = tiny_checkpoint(family)
    texts = prompts([1, 4, 17, 33, 60])
    on_gpu = ModelRunner(EngineConfig(model=str(path), device="cuda", page_size=PAGE, kv_tokens=2048))

    assert generate(on_gpu, sequences(texts), chunk=16) == generate(make_runner(path), sequences(texts))
