"""A finding needs a reason, and a reason needs a finding."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.conformance import judges
from tests.conformance.verdict import Reason, Verdict, known_reasons, of_junit

JUNIT = """<testsuites><testsuite>
<testcase classname="a" name="good"/>
<testcase classname="a" name="later"><skipped/></testcase>
<testcase classname="a" name="bad"><failure message="no">it is
  not so</failure></testcase>
</testsuite></testsuites>"""


def test_a_finding_without_a_reason_fails_the_run_and_so_does_a_reason_without_a_finding(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(JUNIT)
    verdict = of_junit("judge 1", report)
    assert verdict == Verdict("judge 1", passed=1, skipped=1, findings=("a::bad: it is not so",))
    known, stale = Reason("judge", "bad: it is", "why"), Reason("judge", "worse", "why")
    other = Reason("another", "bad", "why")
    assert verdict.is_good([known, other])
    assert verdict.unknown([other]) == ["a::bad: it is not so"] and not verdict.is_good([other])
    assert verdict.stale([known, stale]) == ["worse"] and not verdict.is_good([known, stale])


RESOURCES = """<testsuites><testsuite name="pytest">
<testcase classname="tests.api_resources.chat.test_completions.TestCompletions" name="{name}">
<failure message="openai.{error}">@parametrize
def test(self, client):
    completion = client.chat.completions.create( messages=[{{"role": "developer"}}], model="gpt-5.4")</failure>
</testcase></testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("name", "error", "is_known"),
    [
        ("test_method_retrieve[loose]", "NotFoundError: Error code: 404 - there is no GET here", True),
        ("test_method_retrieve[loose]", "InternalServerError: Error code: 500 - Error code: 404 - ", False),
        ("test_method_list[strict]", "APIStatusError: Error code: 405 - it does not take GET", True),
        ("test_method_list[strict]", "APITimeoutError: Request timed out.", False),
        ("test_method_create_with_all_params_overload_1[loose]", "BadRequestError: Error code: 400 - max", True),
        ("test_method_create_with_all_params_overload_1[loose]", "InternalServerError: Error code: 500 - max", False),
        ("test_method_create_overload_1[loose]", "InternalServerError: Error code: 500 - oh", False),
    ],
)
def test_an_exception_holds_for_its_error_and_not_for_whatever_fails_in_the_same_test(
    name: str, error: str, is_known: bool, tmp_path: Path
) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(RESOURCES.format(name=name, error=error))
    verdict = of_junit("resources 1.2.3", report)
    assert [finding.endswith(f"::{name}: openai.{error.strip()}") for finding in verdict.findings] == [True]
    assert bool(verdict.unknown(known_reasons())) is not is_known


def test_what_schemathesis_says_is_read_from_the_text_beside_its_codes(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(
        """<testsuites><testsuite name="schemathesis"><testcase name="POST /x">
        <failure message="ST108">ST108 Response violates schema</failure></testcase></testsuite></testsuites>"""
    )
    assert of_junit("schemathesis", report).findings == ("::POST /x: ST108 Response violates schema",)


def test_a_judge_of_which_nothing_passed_judged_nothing() -> None:
    assert not Verdict("a judge", passed=0).is_good([]) and Verdict("a judge", passed=1).is_good([])
    assert Verdict("a judge", passed=0).lines([])[1:] == ["  NOTHING PASSED"]


GOOD = """<testsuites><testsuite name="pytest"><testcase classname="a" name="good"/></testsuite></testsuites>"""
WRITES = """#!{python}
import pathlib, sys
[report] = [given.removeprefix("--junitxml=") for given in sys.argv if given.startswith("--junitxml=")]
pathlib.Path(report).write_text({good!r})
sys.exit({status})
"""


def run_as(python: Path) -> Verdict:
    return judges.run_suites("a judge", python, "http://127.0.0.1:1", ["openai_sdk"])


@pytest.mark.parametrize(("status", "is_good"), [(0, True), (1, True), (2, False), (3, False), (5, False)])
def test_a_judge_that_broke_off_is_not_good_whatever_it_wrote(
    status: int, is_good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "WORK", tmp_path)
    python = tmp_path / "python"
    python.write_text(WRITES.format(python=sys.executable, good=GOOD, status=status))
    python.chmod(0o755)
    assert run_as(python).is_good([]) is is_good


def test_a_judge_that_did_not_run_is_not_taken_for_its_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "WORK", tmp_path)
    report = judges.folder_of("a-judge") / "junit.xml"
    report.write_text(GOOD)
    does_nothing = shutil.which("false")
    assert does_nothing is not None
    verdict = run_as(Path(does_nothing))
    assert verdict.findings == ("it did not run to its end: exit status 1",) and not verdict.is_good([])
    assert not report.exists()


def test_every_exception_has_a_reason() -> None:
    assert known_reasons() and all(len(reason.why) > 20 for reason in known_reasons())
