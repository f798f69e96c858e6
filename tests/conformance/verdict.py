"""Verdicts: what a judge found, beside what we know of.

    verdict = Verdict("resources 3.57.0", passed=70, findings=("test_x[strict]",))
    print(verdict.line(exceptions)); verdict.is_good(exceptions)

The invariant: a finding is either covered by an exception with a reason, or it makes the run fail. So does a judge of
which nothing passed: it judged nothing.
"""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EXCEPTIONS = Path(__file__).with_name("exceptions.toml")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why findings whose name matches are not mended."""

    judge: str
    match: str
    why: str

    def covers(self, judge: str, finding: str) -> bool:
        return re.match(self.judge, judge) is not None and re.search(self.match, finding) is not None


@dataclass(frozen=True, slots=True)
class Verdict:
    judge: str
    passed: int
    skipped: int = 0
    findings: tuple[str, ...] = ()

    def unknown(self, reasons: Sequence[Reason]) -> list[str]:
        return [name for name in self.findings if not any(reason.covers(self.judge, name) for reason in reasons)]

    def stale(self, reasons: Sequence[Reason]) -> list[str]:
        """Exceptions of this judge that nothing needs any more."""
        own = [reason for reason in reasons if re.match(reason.judge, self.judge)]
        return [reason.match for reason in own if not any(reason.covers(self.judge, name) for name in self.findings)]

    def lines(self, reasons: Sequence[Reason]) -> list[str]:
        known = len(self.findings) - len(self.unknown(reasons))
        lines = [f"{self.judge}: {self.passed} passed, {known} known exceptions, {self.skipped} skipped"]
        lines += ["  NOTHING PASSED"] if not self.passed else []
        lines += [f"  NEW    {name}" for name in self.unknown(reasons)]
        return lines + [f"  STALE  {match}" for match in self.stale(reasons)]

    def is_good(self, reasons: Sequence[Reason]) -> bool:
        return self.passed > 0 and not self.unknown(reasons) and not self.stale(reasons)


def known_reasons() -> list[Reason]:
    data = tomllib.loads(EXCEPTIONS.read_text())
    return [Reason(item["judge"], item["match"], item["why"]) for item in data.get("exception", [])]


def of_junit(judge: str, report: Path) -> Verdict:
    """Of a JUnit file, as pytest and schemathesis write it."""
    passed, skipped, findings = 0, 0, []
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            name = f"{case.get('classname', '')}::{case.get('name', '')}"
            kinds = {child.tag for child in case}
            if kinds & {"failure", "error"}:
                findings += [f"{name}: {_said(suite, child)}" for child in case if child.tag in ("failure", "error")]
            elif "skipped" in kinds:
                skipped += 1
            else:
                passed += 1
    return Verdict(judge, passed, skipped, tuple(findings))


def _said(suite: ElementTree.Element, failure: ElementTree.Element) -> str:
    """The beginning of what a judge says of a failure, in one line. Pytest has the error in `message`, and a text that
    begins with the test's source; schemathesis has codes alone in `message`, and the error in the text."""
    said = failure.get("message") if suite.get("name") == "pytest" else failure.text
    return " ".join((said or "").split())[:300]
