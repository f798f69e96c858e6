"""What a suite was asked for: lanes, rows, and what they need to be there."""

from __future__ import annotations

import pytest

from parrot_compat.core.policy import MECHANISMS, Policy
from parrot_compat.settings import Settings
from recipes.benchmarks.lanes import LANES, MISSING
from recipes.benchmarks.plan import Asked, asked_of, is_installed, missing, name_of, parse, planned


def lanes(*arguments: str) -> tuple[str, ...]:
    return asked_of(parse(arguments)).lanes


def test_an_ablation_is_everything_beside_the_same_without_one_mechanism() -> None:
    assert lanes("--ablation", "slack,no-pushes") == ("ours", "no-slack", "no-pushes")
    assert lanes("--ablation") == ("ours", *MISSING)
    assert lanes() == ("vllm", "s0", "s1", "ours")
    assert lanes("--lanes", "s0,ours") == ("s0", "ours")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ablation", "slack", "--lanes", "ours"), "leave --lanes out"),
        (("--ablation", "magic"), r"nothing called 'magic' can be left out; there are plans, .*prefix-caching"),
    ],
)
def test_lanes_that_cannot_be_are_refused(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        lanes(*arguments)


def test_runs_of_other_lanes_have_names_of_their_own() -> None:
    assert name_of(Asked()) == "suite-l25-fp32-0.25"
    assert name_of(Asked(lanes=("ours", "no-slack"), replay=True)) == "ours-no-slack-l25-fp32-0.25-replay"


def test_what_was_asked_comes_back_from_a_run() -> None:
    asked = Asked(lanes=("ours", "no-slack"), scale=0.5)
    assert Asked.from_json(asked.to_json()) == asked


def policy_of(lane: str) -> Policy:
    """As `parrot serve` takes the lane's options."""
    options = dict(zip(LANES[lane].options[::2], LANES[lane].options[1::2], strict=False))
    return Policy.read(Settings(policy=options.get("--policy", "all")).policy)


def test_each_lane_leaves_out_what_its_name_says_and_nothing_else() -> None:
    assert policy_of("ours") == Policy()
    assert policy_of("s1") == Policy.read("paper")
    for mechanism in MECHANISMS:
        assert policy_of(f"no-{mechanism}").left_out == (mechanism,)
        assert LANES[f"no-{mechanism}"].chat_class == "parrot"


def test_all_variants_of_a_workload_are_those_that_run_in_this_environment() -> None:
    variants = [row.variant for row in planned(["w03:all"], [0.0], [])]
    assert len(variants) == 7 and "llamaindex" not in variants
    assert [row.variant for row in planned(["w03:llamaindex", "w01:llamaindex"], [0.0], [])] == ["llamaindex"] * 2


@pytest.mark.parametrize(
    ("there", "asked", "said"),
    [
        ((), Asked(lanes=("ours",)), "scripts/bench-setup-llamaindex"),
        (("llama_index.core",), Asked(lanes=("ours",)), None),
        (("llama_index.core",), Asked(lanes=("s0", "ours")), "scripts/bench-setup-llamaindex"),
        (("llama_index.core", "llama_index.llms.openai_like"), Asked(lanes=("vllm", "ours")), None),
        (("llama_index.core",), Asked(lanes=("ours",), replay=True), "no --replay"),
    ],
)
def test_a_llamaindex_app_says_what_it_needs(there: tuple[str, ...], asked: Asked, said: str | None) -> None:
    why = missing(planned(["w01", "w03:llamaindex"], [0.0], []), asked, there.__contains__)
    assert (why is None) == (said is None) and (said or "") in (why or "")
    assert missing(planned(["w01"], [0.0], []), asked, there.__contains__) is None


def test_packages_are_found_and_those_whose_parent_is_missing_are_not() -> None:
    assert is_installed("recipes.benchmarks") and is_installed("importlib.util")
    assert not is_installed("recipes.no_such_thing") and not is_installed("no_such_parent.child")
