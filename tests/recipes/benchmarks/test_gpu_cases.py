"""What fails, in a case, in a part or with the device, hides nothing else that a run of the GPU suite found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from parrot_compat.gpu.kernels.sharing import Sharing
from parrot_compat.gpu.kernels.strips import HeadShape, Tiling
from parrot_compat.gpu.runner import ModelRunner
from recipes.benchmarks import gpu_cases, gpu_exact, gpu_identity, gpu_kernels, gpu_models, gpu_shared, gpu_suite
from recipes.benchmarks.gpu_budget import Budget
from recipes.benchmarks.gpu_cases import Cases, CasesFailed, means_lost
from recipes.benchmarks.gpu_rows import ROOT, GpuRow, Where, read
from recipes.benchmarks.gpu_shapes import made, runner_of
from recipes.benchmarks.gpu_shared import Told
from recipes.benchmarks.gpu_steps import Launches
from tests.identity import measure
from tests.identity.checkpoints import FAMILIES
from tests.identity.oracle import Answer, Comparison, Difference
from tests.identity.scenarios import SCENARIOS

WHERE = Where(device="d", versions="v", commit="c", date="2026-01-01")
CPU = torch.device("cpu")
COSTS = "parrot_compat/gpu/kernels/devices.json"
LOST = torch.AcceleratorError("CUDA error: an illegal memory access\nCUDA kernel errors might be reported later")


def row(part: str = "p", case: str = "c", metric: str = "m") -> GpuRow:
    return GpuRow.of(WHERE, part, case, "ours", metric, "1", [1.0])


def failing(error: BaseException) -> Callable[..., Any]:
    def fails(*given: object, **more: object) -> Any:
        raise error

    return fails


def one_row_each(failing: str | None = None, error: BaseException = LOST) -> Callable[..., Iterator[GpuRow]]:
    """In place of `measured`."""

    def measured(part: str, *given: object, **more: object) -> Iterator[GpuRow]:
        yield row(part)
        if part == failing:
            raise error

    return measured


# ---- the device ----------------------------------------------------------------------------------------


def run(folder: Path, *more: str, parts: str = "exactness,engine,kernels") -> tuple[int, dict[tuple[str, str], str]]:
    """The exit code, and the notes of the file's rows by part and metric."""
    code = gpu_suite.main(["--part", parts, "--tiny", "--csv", str(folder / "gpu.csv"), *more])
    return code, {(row.part, row.metric): row.note for row in read(folder / "gpu.csv")}


def test_a_device_that_is_lost_behind_a_part_ends_the_run_and_nothing_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_suite, "measured", one_row_each())
    monkeypatch.setattr(gpu_suite, "give_back", failing(LOST))
    code, notes = run(tmp_path, "--costs", str(tmp_path / "devices.json"))
    note = (
        "failed: the device is lost: AcceleratorError: CUDA error: an illegal memory access; not run: engine, kernels"
    )
    assert code == 1 and notes == {("exactness", "m"): "", ("exactness", "wall time"): note}
    assert note in (tmp_path / "gpu.md").read_text()
    told = capsys.readouterr()
    assert f"exactness: 0 s; {note}" in told.out and "costs are not noted" in told.err


def test_an_error_of_the_device_amid_a_part_ends_the_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_suite, "measured", one_row_each(failing="engine"))
    code, notes = run(tmp_path)
    assert code == 1 and {part for part, _ in notes} == {"exactness", "engine"} and not notes["exactness", "wall time"]
    assert notes["engine", "wall time"].startswith("failed: the device is lost: ")
    assert "; not run: kernels; failed: AcceleratorError" in notes["engine", "wall time"]


def test_a_part_without_room_ends_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_room = torch.AcceleratorError("CUDA error: out of memory")
    assert means_lost(LOST) and not means_lost(no_room) and not means_lost(RuntimeError("illegal"))
    monkeypatch.setattr(gpu_suite, "measured", one_row_each("engine", no_room))
    code, notes = run(tmp_path)
    assert code == 1 and notes["engine", "wall time"] == "failed: AcceleratorError: CUDA error: out of memory"
    assert notes["kernels", "wall time"] == ""


def test_costs_that_cannot_be_noted_take_nothing_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_suite, "measured", one_row_each())
    monkeypatch.setattr(gpu_suite, "note_costs", failing(KeyError("ceiling")))
    code, _ = run(tmp_path, "--costs", str(tmp_path / "devices.json"))
    assert code == 1 and (tmp_path / "gpu.md").exists()
    told = capsys.readouterr()
    assert "\nkernels: 0 s\n" in told.out and "KeyError: 'ceiling'" in told.err


def test_a_run_that_nobody_waits_for_any_longer_leaves_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_suite, "measured", one_row_each("engine", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert "| engine | c | ours | m [1] |" in (tmp_path / "gpu.md").read_text()
    assert "\nexactness: 0 s\n" in capsys.readouterr().out


# ---- a case --------------------------------------------------------------------------------------------


def test_a_case_that_fails_is_a_row_and_the_end_names_it() -> None:
    cases = Cases("p", CPU, WHERE, Budget())

    def nested() -> Iterator[GpuRow]:
        yield from cases.of("inner", failing(ValueError("no\nsuch row")))
        yield row(case="outer")

    rows = [*cases.of("outer", nested), *cases.of("right", lambda: [row(case="right")])]
    assert [(row.case, row.metric, row.p50, row.note) for row in rows] == [
        ("inner", "failures", 1.0, "failed: ValueError: no"),
        ("outer", "m", 1.0, ""),
        ("outer", "failures", 0.0, ""),
        ("right", "m", 1.0, ""),
        ("right", "failures", 0.0, ""),
    ]
    with pytest.raises(CasesFailed, match="1 of 3 cases failed: inner; the first failed: ValueError: no"):
        cases.end()


def test_nothing_more_is_asked_of_a_device_that_a_case_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = Cases("p", CPU, WHERE, Budget())
    with pytest.raises(torch.AcceleratorError):
        list(cases.of("c", failing(LOST)))
    monkeypatch.setattr(gpu_cases, "give_back", failing(LOST))  # the case heard of it by another error
    with pytest.raises(torch.AcceleratorError):
        list(cases.of("c", failing(RuntimeError("Triton Error [CUDA]"))))


def test_an_exactness_case_that_fails_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = gpu_kernels.attention

    def attention(step: gpu_kernels.Step, **options: Any) -> Callable[[], torch.Tensor]:
        if step.query.dtype == torch.float16 and "window" in options:
            raise RuntimeError("no kernel image")
        return right(step, **options)

    def beside_transformers(name: str, tokens: int, under: Path, device: torch.device, where: Where) -> list[GpuRow]:
        return [row("exactness", f"{name} greedy")]

    monkeypatch.setattr(gpu_kernels, "attention", attention)
    monkeypatch.setattr(gpu_exact, "over_a_prefix", failing(AssertionError("graphs change a text")))
    monkeypatch.setattr(gpu_exact, "_beside_transformers", beside_transformers)
    assert run(tmp_path, parts="exactness")[0] == 1
    rows = read(tmp_path / "gpu.csv")
    failed = {row.case: row.note for row in rows if row.metric == "failures" and row.p50}
    assert failed == {"tiny-llama over a prefix": "failed: AssertionError: graphs change a text"} | dict.fromkeys(
        [f"{mix} float16 window" for mix in ("decode", "forest", "prefill")], "failed: RuntimeError: no kernel image"
    )
    assert sum(row.metric == "largest difference to float64" for row in rows) == 24
    assert sum(row.metric == "launches that wait for the device" for row in rows) == 7
    assert {row.case for row in rows if row.metric == "m"} == {
        f"{name} greedy" for name in ("tiny-llama", "tiny-gemma3", "tiny-mixtral")
    }
    [note] = [row.note for row in rows if row.metric == "wall time"]
    assert note.startswith("failed: CasesFailed: 4 of 41 cases failed: tiny-llama over a prefix, decode float16 window")
    told = capsys.readouterr().out
    assert "exactness: tiny-llama over a prefix: failures 1: failed: AssertionError: graphs change a text" in told


LOST_SCENARIO, WRONG_SCENARIO = "forks", "preemption"


class LosingLab:
    """One scenario of the second checkpoint loses its engine, and another draws a wrong token."""

    def __init__(self, folder: Path, device: str) -> None:
        pass

    async def run(self, shape: str, scenario: str) -> SimpleNamespace:
        if (shape, scenario) == (FAMILIES[1], LOST_SCENARIO):
            raise RuntimeError("engine died")
        found = Comparison(answers=7, exact=7, tokens=70)
        if (shape, scenario) == (FAMILIES[1], WRONG_SCENARIO):
            answer = Answer(prompt=(1, 2), output=(3,), label="chat")
            found.differences.append(Difference(answer=answer, index=0, expected=4, drawn=3, gap=0.7))
            found.exact -= 1
        return SimpleNamespace(comparison=found)


def counts(rows: Sequence[GpuRow], metric: str) -> dict[str, tuple[float, str]]:
    return {row.case: (row.p50, row.note) for row in rows if row.metric == metric}


def test_a_scenario_that_fails_hides_no_other_and_no_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "Lab", LosingLab)

    def all_of_them(*given: Any, is_tiny: bool) -> Iterator[GpuRow]:
        return gpu_identity.identity(*given, is_tiny=False)

    monkeypatch.setattr(gpu_suite, "identity", all_of_them)
    assert run(tmp_path, parts="identity")[0] == 1
    rows = read(tmp_path / "gpu.csv")
    every = len(SCENARIOS)
    some = {FAMILIES[1]: (7.0 * every - 8, f"of {every - 1} of {every} scenarios")}
    assert counts(rows, "exact") == dict.fromkeys(FAMILIES, (7.0 * every, "")) | some
    found = {row.case: row.note for row in rows if row.metric == "failures"}
    assert set(found) == {f"{shape} {scenario}" for shape in FAMILIES for scenario in SCENARIOS}
    lost, wrong = (f"{FAMILIES[1]} {scenario}" for scenario in (LOST_SCENARIO, WRONG_SCENARIO))
    assert {case: note for case, note in found.items() if note} == {
        lost: "failed: RuntimeError: engine died",
        wrong: "failed: AssertionError: 1 of 7 answers differ from Hugging Face's; the first: chat: prompt of 2 "
        "tokens, output token 0 is 3, Hugging Face draws 4 (float64 gap 7.00e-01)",
    }
    [note] = [row.note for row in rows if row.metric == "wall time"]
    assert f"2 of {len(found)} cases failed: {lost}, {wrong}" in note


def test_a_budget_that_ends_amid_a_checkpoint_leaves_what_was_done_and_windows_were_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0

    class SlowLab(LosingLab):
        async def run(self, shape: str, scenario: str) -> SimpleNamespace:
            nonlocal now_s
            now_s += 1.0
            return await super().run(shape, scenario)

    monkeypatch.setattr(measure, "Lab", SlowLab)
    budget = Budget(3.0, lambda: now_s)
    rows = list(gpu_identity.identity(Path(), CPU, WHERE, budget, is_tiny=False))
    note = f"of 3 of {len(SCENARIOS)} scenarios"
    assert counts(rows, "answers") == {"mistral": (21.0, note)}
    others = [shape for shape in FAMILIES if shape != "mistral"]
    assert budget.left_out == [*(f"mistral {scenario}" for scenario in [*SCENARIOS][3:]), *others]


# ---- time ----------------------------------------------------------------------------------------------


def test_parts_that_the_call_has_no_time_for_name_what_they_leave_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, measured = 0.0, gpu_suite.measured

    def first_takes_long(part: str, *given: Any, **more: Any) -> Iterator[GpuRow]:
        nonlocal now_s
        if part != "exactness":
            yield from measured(part, *given, **more)
            return
        yield row(part)
        now_s += 150.0

    monkeypatch.setattr(gpu_suite, "Budget", partial(Budget, clock=lambda: now_s))
    monkeypatch.setattr(gpu_suite, "measured", first_takes_long)
    limits = ["--budget-s", "exactness=100,engine=500", "--within-s", "140"]
    code, notes = run(tmp_path, *limits)
    assert code == 0 and not notes["exactness", "wall time"]
    left_out = {part: note for (part, _), note in notes.items() if part != "exactness"}
    assert left_out == {
        "engine": "left out 1: the device's limits, and what is measured against them",
        "kernels": "left out 1: all kernels",
    }


def test_a_part_ends_at_the_earlier_of_its_own_end_and_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, left = 0.0, {}

    def taken(part: str, *given: Any, **more: Any) -> Iterator[GpuRow]:
        nonlocal now_s
        left[part] = given[-1].left_s
        now_s += 50.0
        yield row(part)

    monkeypatch.setattr(gpu_suite, "Budget", partial(Budget, clock=lambda: now_s))
    monkeypatch.setattr(gpu_suite, "taken", taken)
    options = gpu_suite.asked(
        ["--part", "exactness,engine,kernels", "--tiny", "--within-s", "120", "--budget-s", "exactness=30,engine=99"]
    )
    assert len(list(gpu_suite.all_parts(options, CPU, WHERE, Path()))) == 3
    assert left == {"exactness": 30.0, "engine": 70.0, "kernels": 20.0}


def test_the_documented_calls_end_well_within_the_time_of_one_command_and_bring_the_costs_back() -> None:
    document = (ROOT / "docs/gpu.md").read_text()
    [script] = re.findall(r"```bash\n(suite=.*?)```", document, re.DOTALL)
    [common] = re.findall(r"gpu_suite ([^\"]*)\"", script)
    first, second = (
        gpu_suite.asked([*common.split(), *said.split()])
        for said in re.findall(r"^\$suite ([^&\n]*)", script, re.MULTILINE)
    )
    assert first.part == ("kernels",) and str(first.costs) == "$costs" and f"costs={COSTS}\n" in script
    assert "&& cp $costs $OUT/\n" in script
    assert set(second.budget_s) == set(second.part) and sum(second.budget_s.values()) == second.within_s
    assert first.within_s + second.within_s == 500
    for options in (first, second):
        assert str(options.csv) == "$OUT/gpu.csv" and options.commit == "HASH"


def test_a_long_case_is_not_begun_where_it_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0

    def runner_of_one(*given: Any, **more: Any) -> None:
        nonlocal now_s
        now_s = 60.0

    for name in ("shared_steps", "_steps"):
        monkeypatch.setattr(gpu_models, name, lambda *given: iter(()))
    monkeypatch.setattr(gpu_models, "made", lambda *given: Path())
    monkeypatch.setattr(gpu_models, "runner_of", runner_of_one)
    budget = Budget(80.0, lambda: now_s)
    list(gpu_models.engine(["qwen3-0.6b"], gpu_suite.TINY, (1.0, 1.0), Path(), CPU, WHERE, budget))
    assert budget.left_out == ["qwen3-0.6b 3 sequences", "qwen3-0.6b deterministic"]


# ---- texts over a prefix -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_runner(tmp_path_factory: pytest.TempPathFactory) -> ModelRunner:
    place = made("tiny-qwen3", torch.float32, tmp_path_factory.mktemp("tiny"), CPU)
    return runner_of(place, CPU, gpu_suite.TINY.kv_tokens)


def test_rows_whose_texts_are_compared_begin_and_end_together(
    tiny_runner: ModelRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of fewer rows than a graph has would be padded in one system and not in the other."""
    counts, launch = [], Launches.launch

    def counting(self: Launches, rows: Any, after: Any = None) -> Any:
        counts.append([len(row.tokens) for row in rows])
        return launch(self, rows, after)

    monkeypatch.setattr(Launches, "launch", counting)
    assert list(gpu_shared._texts("case", tiny_runner, gpu_suite.TINY, 4, WHERE))
    front, fills = [gpu_suite.TINY.front], [gpu_suite.TINY.private] * 4
    of_system = [front, fills, *[[1] * 4] * (gpu_shared.TEXT_TOKENS - 1)]
    assert [step for step in counts if step != [1]] == of_system * 2


def test_a_text_that_graphs_change_fails_its_case(tiny_runner: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"together": Told([[1], [2]], [1]), "together, no graphs": Told([[1], [3]], [1])}
    monkeypatch.setattr(gpu_shared, "over_a_prefix", lambda *given: told)
    cases = Cases("engine", CPU, WHERE, Budget())
    rows = list(cases.of("case", partial(gpu_shared._texts, "case", tiny_runner, gpu_suite.TINY, 2, WHERE)))
    assert [row.p50 for row in rows if row.metric in ("texts changed by graphs", "failures")] == [1.0, 1.0]
    assert rows[-1].note == "failed: AssertionError: CUDA graphs change 1 of 2 texts over a shared prefix"


@pytest.mark.parametrize(
    ("graphs", "plain", "sizes", "said"),
    [
        (47, 47, 2, None),
        (47, 47, 0, None),  # all were met before
        (47, 0, 2, "no prefix is read together"),
        (4, 47, 2, "nothing says that a graph was replayed"),
        (0, 47, 0, "nothing says that a graph was replayed"),
    ],
)
def test_a_device_on_which_nothing_was_compared_is_an_error(
    graphs: int, plain: int, sizes: int, said: str | None
) -> None:
    def check() -> None:
        gpu_shared._check_replayed(Told([], [1] * graphs), Told([], [1] * plain), sizes)

    if said is None:
        check()
    else:
        with pytest.raises(AssertionError, match=said):
            check()


def test_what_is_worth_sharing_is_the_engines_own_choice_again_behind_the_texts() -> None:
    tiling = Tiling(direct_queries=64, private_queries=4, shared_queries=16, split_keys=256, shared_strips=128)
    shape = HeadShape(heads=4, kv_heads=2, dim=16, element_bytes=2)
    chosen = Sharing(page_size=16, shape=shape, costs=None, tiling=tiling)
    runner: Any = SimpleNamespace(sharing=chosen)
    with pytest.raises(ValueError), gpu_shared._all_worth_it(runner):
        assert runner.sharing.costs is gpu_shared.WORTH_IT and runner.sharing.tiling.split_keys == 1
        raise ValueError
    assert runner.sharing is chosen
