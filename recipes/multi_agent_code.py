"""A team of agents writes a program, as MetaGPT does: an architect, then coders, reviewers and revisers.

    python recipes/multi_agent_code.py
    python recipes/multi_agent_code.py --files 4 --rounds 3 --task "a calculator for roman numerals"

Every reviewer reads all files, every reviser its own file and its review; what a round has revised is what the next
one reads. The whole team is one LangChain chain over a state (`assign` adds to it and replaces), so all calls of a
stage run side by side, and the planner sees the graph before the first call has ended.
"""

from __future__ import annotations

import argparse

from call_log import CallLog, show_answer
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from plan_view import watch_plans
from rich.console import Console
from serving import add_server_options, at_least_one, server

from parrot_compat.integrations.langchain import ChatParrot

State = dict[str, str]

TASK = "a command line tool that counts the words of text files and prints the most common ones"
DESIGN = "Design a Python program of {count} files.\n\nTask: {task}\n\nSay for each file what it holds."
CODE = "Task: {task}\n\nDesign:\n{design}\n\nWrite file {file}. Answer with its code only."
REVIEW = "Task: {task}\n\nDesign:\n{design}\n\n%s\n\nReview file {file}: what is wrong in it, and what does not fit?"
REVISE = "Task: {task}\n\nDesign:\n{design}\n\nFile {file}:\n{code}\n\nReview:\n{review}\n\nRewrite the file."


def team(llm: ChatParrot, files: int, rounds: int) -> Runnable[State, State]:
    """From {"task": …} to a state with the design and, under `code_N`, the last version of every file."""
    numbers = [str(number) for number in range(1, files + 1)]
    all_files = "\n\n".join(f"File {number}:\n{{code_{number}}}" for number in numbers)

    def agent(role: str, template: str, **given: str) -> Runnable[State, str]:
        messages = [("system", f"You are the {role} of a small team that writes Python."), ("human", template)]
        prompt = ChatPromptTemplate.from_messages(messages).partial(**given)
        return prompt | llm.with_config(run_name=role) | StrOutputParser()

    def stage(kind: str, role: str, template: str) -> Runnable[State, State]:
        agents = {f"{kind}_{number}": agent(role, of_file(template, number), file=number) for number in numbers}
        return RunnablePassthrough.assign(**agents)

    chain: Runnable[State, State] = RunnablePassthrough.assign(design=agent("architect", DESIGN, count=str(files)))
    chain = chain | stage("code", "coder", CODE)
    for _ in range(rounds):
        chain = chain | stage("review", "reviewer", REVIEW % all_files) | stage("code", "reviser", REVISE)
    return chain


def of_file(template: str, number: str) -> str:
    """The holes for one file's code and review, by their names in the state."""
    return template.replace("{code}", f"{{code_{number}}}").replace("{review}", f"{{review_{number}}}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A team of agents writes a program.")
    parser.add_argument("--task", default=TASK, help="what to write")
    parser.add_argument("--files", type=at_least_one, default=3, help="files, and so agents of each kind (3)")
    parser.add_argument(
        "--rounds", type=at_least_one, default=2, help="how often all files are reviewed and revised (2)"
    )
    parser.add_argument("--max-tokens", type=at_least_one, default=96, help="tokens of each answer")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()

    with server(options.base_url, options.model) as url:
        llm = ChatParrot(base_url=url, model=options.model, max_tokens=options.max_tokens, temperature=0)
        calls = 1 + options.files * (1 + 2 * options.rounds)
        log = CallLog(total=calls, console=console)
        chain = team(llm, options.files, options.rounds)
        with log.progress, watch_plans() as plans:
            state = chain.invoke({"task": options.task}, {"callbacks": [log]})

    plans.show(console, log)
    for number in range(1, options.files + 1):
        show_answer(console, f"file {number}", state[f"code_{number}"])
    log.say_if_random()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
