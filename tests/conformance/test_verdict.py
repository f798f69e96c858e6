"""A finding needs a reason, and a reason needs a finding."""

from __future__ import annotations

from pathlib import Path

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


def test_every_exception_has_a_reason() -> None:
    assert known_reasons() and all(len(reason.why) > 20 for reason in known_reasons())
