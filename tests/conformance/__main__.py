"""Run judges, one after the other, and say what is new."""

from __future__ import annotations

import argparse
import sys

from .judges import JUDGES, Options
from .verdict import known_reasons


def main() -> int:
    lines = [
        f"  {name:14}{(judge.__doc__ or 'A third client: completions, tools, errors.').strip()}"
        for name, judge in JUDGES.items()
    ]
    parser = argparse.ArgumentParser(
        prog="scripts/conformance",
        epilog="\n".join(["judges:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which judges (default: all)")
    parser.add_argument("--openai", default="3.57.0", help="newest openai package to judge with")
    parser.add_argument("--anthropic", default="2.10.0", help="anthropic package to judge with")
    parser.add_argument("--openai-document", help="OpenAI's published OpenAPI document: a file or URL")
    parser.add_argument("--examples", type=int, default=30, help="of each operation, for schemathesis (default 30)")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(JUDGES):
        parser.error(f"no such judge: {', '.join(sorted(unknown))}")
    options = Options(asked.openai, asked.anthropic, asked.openai_document, asked.examples, asked.seed)
    reasons, report, is_good = known_reasons(), [], True
    for name in asked.names or JUDGES:
        for verdict in JUDGES[name](options):
            report += verdict.lines(reasons)
            is_good = is_good and verdict.is_good(reasons)
    print("\n".join(["", *report]))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
