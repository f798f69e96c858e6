"""Coding: small functions of a few kinds, tests for them, and what a team of agents says of a program."""

from __future__ import annotations

from random import Random

from recipes.train_builtin import words
from recipes.train_builtin.example import Example, asked
from recipes.train_builtin.source import Source

_KINDS: tuple[tuple[str, str, str, str, str], ...] = (
    # what it does, name, body, a test's input, its output
    ("sort a list of {n}s by {k}", "sort_{n}s", "sorted({n}s, key=lambda {n}: {n}.{k})", "[]", "[]"),
    ("sort {n}s by length", "sort_{n}s", "sorted({n}s, key=len)", '["bb", "a"]', '["a", "bb"]'),
    ("sort a list of {n}s by length", "sort_{n}s", "sorted({n}s, key=len)", '["ccc", "a"]', '["a", "ccc"]'),
    ("sort a list of {n}s", "sort_{n}s", "sorted({n}s)", "[2, 1]", "[1, 2]"),
    ("reverse a list of {n}s", "reverse_{n}s", "list(reversed({n}s))", "[1, 2]", "[2, 1]"),
    ("count the {n}s", "count_{n}s", "len({n}s)", "[1, 2]", "2"),
    ("count the {n}s in a list", "count_{n}s", "len({n}s)", "[5]", "1"),
    ("sum the {n}s", "sum_{n}s", "sum({n}s)", "[1, 2]", "3"),
    ("find the largest of the {n}s", "largest_{n}", "max({n}s)", "[1, 3]", "3"),
    ("find the longest {n}", "longest_{n}", "max({n}s, key=len)", '["a", "bb"]', '"bb"'),
    ("find the smallest {n}", "smallest_{n}", "min({n}s)", "[4, 2]", "2"),
    ("find the shortest of the {n}s", "shortest_{n}", "min({n}s, key=len)", '["aa", "b"]', '"b"'),
    ("remove {n}s that occur twice", "unique_{n}s", "list(dict.fromkeys({n}s))", "[1, 1]", "[1]"),
    ("join the {n}s with commas", "join_{n}s", '", ".join({n}s)', '["a", "b"]', '"a, b"'),
    ("write all {n}s in capital letters", "upper_{n}s", "[{n}.upper() for {n} in {n}s]", '["a"]', '["A"]'),
    ("keep the {n}s that are even", "even_{n}s", "[{n} for {n} in {n}s if {n} % 2 == 0]", "[1, 2]", "[2]"),
    ("double every {n}", "double_{n}s", "[2 * {n} for {n} in {n}s]", "[1, 2]", "[2, 4]"),
    ("the first {n} of a list", "first_{n}", "{n}s[0]", "[7, 8]", "7"),
    ("the last of the {n}s", "last_{n}", "{n}s[-1]", "[7, 8]", "8"),
    ("count how often a {n} occurs", "count_each_{n}", "{{{n}: {n}s.count({n}) for {n} in {n}s}}", "[1]", "{{1: 1}}"),
)  # fmt: skip
_ROLES = (
    "", "You are an expert software engineer.\n", "You are an experienced QA engineer.\n", "You write Python.\n",
)  # fmt: skip


def _function(rng: Random) -> tuple[str, str, str]:
    """A task, its code, and a test of it."""
    filled = {"n": words.noun(rng), "k": words.noun(rng)}
    does, name, body, given, gives = (part.format(**filled) for part in rng.choice(_KINDS))
    code = f"def {name}({filled['n']}s):\n    return {body}"
    return does, code, f"def test_{name}():\n    assert {name}({given}) == {gives}"


def write(source: Source, characters: int) -> Example:
    rng = source.rng
    does, code, _ = _function(rng)
    ask = rng.choice(
        (
            "Write a Python function for this task: {}.\nThe code:", "Write a Python function: {}. The code:",
            "Write a function to {}.", "Write Python code to {}.", "Write a Python function for this task: {}.",
        )
    )  # fmt: skip
    return asked("code", rng.choice(_ROLES) + ask.format(does), code)


def test(source: Source, characters: int) -> Example:
    rng = source.rng
    does, code, tested = _function(rng)
    ask = rng.choice(
        (
            "The task was: {does}. It was solved so:\n\n{code}\n\nWrite test code for it:",
            "Write a test for this code: {code} The test:", "Write a test for this code:\n\n{code}", 
            "{code}\n\nTest it.",
        )
    )  # fmt: skip
    return asked("code test", rng.choice(_ROLES) + ask.format(does=does, code=code), tested)


_PURPOSES = (
    "reads the arguments and starts the program", "does the work", "holds the tests", "prints the results",
    "keeps the settings", "reads and writes files", "checks the input",
)  # fmt: skip
_FILES = ("main.py", "work.py", "test_work.py", "report.py", "settings.py", "files.py", "check.py")


def _design(rng: Random, count: int) -> str:
    return "\n".join(f"{at + 1}. {_FILES[at]} {_PURPOSES[at]}." for at in range(count))


def team(source: Source, characters: int) -> Example:
    """An architect, a coder, a reviewer or a reviser, as `multi_agent_code.py` asks them."""
    rng = source.rng
    count = rng.randrange(1, len(_FILES) + 1)
    number, thing, verb = rng.randrange(1, count + 1), words.noun(rng), rng.choice(words.VERBS).replace("_", " ")
    wanted = rng.choice(
        (
            f"a program that can {verb} {thing}s",
            f"a command line tool that {verb}s the {thing}s of {words.noun(rng)}s",
            f"a tool to {verb} {words.word(rng)} {thing}s and print the {words.word(rng)} ones", f"a {thing} {verb}er",
        )
    )  # fmt: skip
    design, file = _design(rng, count), _FILES[number - 1]
    # answers of such agents are cut off at few tokens, so designs in prompts often are
    shown = design[: rng.randrange(30, len(design) + 1)] if rng.random() < 0.5 else design
    head = f"Task: {wanted}\n\nDesign:\n{shown}\n\n"
    code = f'"""{file}: {_PURPOSES[number - 1]}."""\n\ndef {file[:-3]}():\n    return "{wanted}"'
    cut = code[: rng.randrange(30, len(code) + 1)] if rng.random() < 0.5 else code
    kind = rng.randrange(4)
    if kind == 0:
        plural = rng.choice((f"{count} files", f"{count} parts"))
        ask = f"Design a Python program of {plural}.\n\nTask: {wanted}\n\nSay for each file what it holds."
        role, answer = "architect", design
    elif kind == 1:
        role, ask, answer = "coder", f"{head}Write file {number}. Answer with its code only.", code
    elif kind == 2:
        files = "\n\n".join(
            f"File {at}:\n{cut if at == number else source.function(200)}" for at in range(1, count + 1)
        )
        ask = f"{head}{files}\n\nReview file {number}: what is wrong in it, and what does not fit?"
        role, answer = "reviewer", f"File {number} begins with {cut.split(chr(10))[0]!r}. It has no comments."
    else:
        note = f"File {number} begins with {cut.split(chr(10))[0]!r}. It has no comments."
        ask = f"{head}File {number}:\n{cut}\n\nReview:\n{note}\n\nRewrite the file."
        role, answer = "reviser", f"# {file}\n{cut}"
    return asked("team", ask, answer, system=f"You are the {role} of a small team that writes Python.")
