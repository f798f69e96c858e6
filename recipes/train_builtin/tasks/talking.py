"""Talking: greetings, what the model is, what it does not know, and the turns of a debate."""

from __future__ import annotations

from random import Random

from recipes.train_builtin import words
from recipes.train_builtin.example import Example, asked
from recipes.train_builtin.source import Source, lead

HELLO = "Hello! Give me a text, and I can repeat it, sum it up, change it or find something in it."
FINE = "I am well, thank you. What can I do for you?"
WHO = "I am the small built-in model of parrot_compat. I can copy, quote, edit and extract; I know little."
UNKNOWN = "I don't know. I am a small model: give me a text that says it, and I can find it there."
_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello", "Hello!", "hello", "Hi", "hi", "Hi!", "Hey", "Hi there", "Good morning", "Hello there!"), HELLO),
    (("How are you?", "how are you", "How are you today?", "How is it going?"), FINE),
    (("Thanks", "Thank you!", "thank you", "Thanks a lot", "Great, thanks."), "You are welcome."),
    (("Bye", "Goodbye", "See you", "Good night"), "Goodbye!"),
    (("Who are you?", "What are you?", "What is your name?", "Which model are you?", "Tell me about yourself."), WHO),
    (("What can you do?", "Help", "help", "How can you help me?"), HELLO.removeprefix("Hello! ")),
    (("Good", "OK", "ok", "Fine", "Yes", "I see"), "Good. What is next?"),
)  # fmt: skip
_OPEN = (
    "Why do {} {}?", "Who invented {}?", "When was the first {} made?", "How does a {} work?", "What is a {}?",
    "Tell me something about {}.", "How many {} are there in the world?", "Write a poem about {}.",
    "What is the capital of {}?", "Explain {} to me.", "Is a {} better than {}?", "Where do {} come from?",
    "Write a haiku about {}.", "What do you think of {}?",
)  # fmt: skip


def smalltalk(rng: Random) -> tuple[str, str]:
    if rng.random() < 0.7:
        questions, answer = rng.choice(_TALK)
        return rng.choice(questions), answer
    open_question = rng.choice(_OPEN).format(*(rng.choice((words.word, words.noun))(rng) for _ in "ab"))
    return open_question, UNKNOWN


def talk(source: Source, characters: int) -> Example:
    """One to three turns."""
    rng = source.rng
    messages = []
    if rng.random() < 0.3:
        messages.append({"role": "system", "content": "You are a helpful assistant."})
    for _ in range(rng.choice((0, 0, 1, 2))):
        question, answer = smalltalk(rng)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    question, answer = smalltalk(rng)
    messages.append({"role": "user", "content": question})
    return Example(task="talk", messages=messages, answer=answer)


def speech(source: Source, characters: int) -> Example:
    """A speaker says what no other has said: the first sentence of the brief that is new."""
    rng = source.rng
    brief = source.sentences(3, max(600, characters))
    motion = rng.choice((source.sentence(), f"A {words.noun(rng)} should be {words.word(rng)}."))
    heard = brief[: rng.randrange(0, min(4, len(brief) - 1))]
    said = "".join(f"{chr(65 + at)} said: I say: {one}\n\n" for at, one in enumerate(heard))
    opening = f"A debate is held on this motion: {motion}\n\nThe brief:\n\n{' '.join(brief)}\n\n{said}"
    if rng.random() < 0.6:
        speaker = chr(65 + len(heard))
        ask = rng.choice(
            (
                f"You are speaker {speaker}. Say in two sentences what the others have not said:",
                f"You are speaker {speaker}. Speak:",
            )
        )
        return asked("debate", opening + ask, f"I say: {brief[len(heard)]}")
    if not heard:
        return asked("debate", opening + "You are the judge. Who has argued best, and why?", "Nobody has spoken.")
    why = f"Speaker A has argued best, who said: {heard[0]}"
    return asked("debate", opening + "You are the judge. Who has argued best, and why?", why)


def notes(source: Source, characters: int) -> Example:
    """A title for a text: its first words."""
    text = source.passage(max(150, characters // 2))
    head = " ".join(lead(text).split()[:6]).rstrip(".,:;")
    ask = source.rng.choice(("A title for: {}", "{}\n\nGive this a short title.", "Write a title for this text:\n\n{}"))
    return asked("title", ask.format(text), head)
