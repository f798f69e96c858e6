"""Several debaters argue over one brief for some rounds; a judge decides.

    python recipes/debate.py
    python recipes/debate.py --debaters 4 --rounds 3 --motion "Tabs are better than spaces"

Everybody hears everything that was said in the rounds before. All calls are handed over at once, each reading the
variables of others, and run as soon as these have their text; the app waits for the judge alone. What the
debaters of a round read is one text, which the server computes once.
"""

from __future__ import annotations

import argparse

from call_log import random_weights, show_answer
from reading import chapters
from rich.console import Console
from serving import add_server_options, at_least_one, server
from session_view import show_session

from parrot_compat import Output, Variable, connect
from parrot_compat.integrations.application.session import Session

MOTION = "Errors should never pass silently."
OPENING = "A debate is held on this motion: {{input:motion}}\n\nThe brief:\n\n{{input:brief}}\n\n"
SPEECH = "You are speaker {{input:speaker}}. Say in two sentences what the others have not said: {{output:speech}}"
VERDICT = "You are the judge. Who has argued best, and why? {{output:verdict}}"


def debate(
    session: Session,
    motion: str,
    brief: str,
    *,
    debaters: int,
    rounds: int,
    max_tokens: int,
    model: str | None = None,
) -> Variable:
    """The judge's verdict, as a variable: nothing is waited for here. Without a `model` it is the server's first."""
    shared: dict[str, str | Variable] = {"motion": motion, "brief": brief}
    speaker_of: dict[str, str] = {}  # by the name under which a speech is read
    sampling = Output(max_tokens=max_tokens, temperature=0)

    def call(function: str, template: str, **inputs: str) -> dict[str, Variable]:
        heard = "".join(f"{speaker} said: {{{{input:{name}}}}}\n\n" for name, speaker in speaker_of.items())
        text = OPENING + heard + template
        return session.call(text, {**shared, **inputs}, sampling=sampling, function=function, model=model)

    for number in range(rounds):
        speakers = [chr(ord("A") + index) for index in range(debaters)]
        speeches = {speaker: call("speech", SPEECH, speaker=speaker)["speech"] for speaker in speakers}
        for speaker, speech in speeches.items():
            name = f"speech_{number}_{speaker}"
            shared[name], speaker_of[name] = speech, speaker
    return call("verdict", VERDICT)["verdict"]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A debate with a judge.")
    parser.add_argument("--motion", default=MOTION, help="what is debated")
    parser.add_argument(
        "--topics", nargs="+", default=["exceptions"], metavar="NAME", help="chapters that make the brief"
    )
    parser.add_argument("--brief-characters", type=at_least_one, default=1500, help="how much of them is read")
    parser.add_argument("--debaters", type=int, default=3, choices=range(1, 27), metavar="1-26")
    parser.add_argument("--rounds", type=at_least_one, default=2)
    parser.add_argument("--max-tokens", type=at_least_one, default=64, help="tokens of each answer")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    brief = chapters(options.topics)[: options.brief_characters]

    sizes = {"debaters": options.debaters, "rounds": options.rounds, "max_tokens": options.max_tokens}
    with (
        server(options.base_url, options.model) as url,
        connect(url) as application,
        application.open_session("debate") as session,
    ):
        verdict = debate(session, options.motion, brief, **sizes, model=options.model)
        with console.status(f"{options.debaters * options.rounds} speeches, then the verdict"):
            text = verdict.get()
        description = session.describe()

    show_session(console, description)
    show_answer(console, "verdict", text)
    random_weights(console, {call["model"] for call in description["calls"]})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
