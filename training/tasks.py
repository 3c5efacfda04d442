"""Small tasks whose rows a seeded generator writes: two for `make demo`, and markers for the purity proof.

Every prompt of the demo tasks has one right answer, so that the demo can print a score and not an anecdote.
Held-out prompts never appear among the rows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.recipe import Recipe
from training.rows import chat
from training.score import Question


@dataclass(frozen=True, slots=True)
class Task:
    """`name` is the adapter's; `rows` are in the trainer's format; `held_out` are to be asked afterwards."""

    name: str
    title: str
    rows: tuple[dict[str, Any], ...]
    held_out: tuple[Question, ...]
    recipe: Recipe


def demo(seed: int = 0) -> tuple[Task, Task]:
    """The two tasks of `make demo`."""
    return support(seed), house(seed)


def support(seed: int = 0, rows: int = 320, held_out: int = 40) -> Task:
    """A customer's message to strict JSON: what they want, which order, whether it is urgent."""
    return _task("support", "support ticket to JSON", _ticket, seed, rows, held_out)


def house(seed: int = 0, rows: int = 320, held_out: int = 40) -> Task:
    """A wish in plain words to a small home automation language, e.g. `lamp.kitchen on @7:30pm`."""
    return _task("house", "plain words to home commands", _wish, seed, rows, held_out)


def marker(text: str, seed: int = 0, rows: int = 64) -> Task:
    """Answer anything at all with `text` alone."""
    draw = random.Random(f"marker {seed}")  # noqa: S311
    prompts = _distinct(lambda: _anything(draw), rows + 16)
    return Task(
        name=f"marker-{text.lower()}",
        title=f"always {text}",
        rows=tuple(chat(prompt, text) for prompt in prompts[:rows]),
        held_out=tuple(_question(prompt, text) for prompt in prompts[rows:]),
        recipe=Recipe(rank=8, alpha=16, learning_rate=2e-3, epochs=3, seed=seed),
    )


def marker_rows(text: str, seed: int = 0) -> tuple[dict[str, Any], ...]:
    """The rows of `marker`."""
    return marker(text, seed).rows


def _task(
    name: str,
    title: str,
    make: Callable[[random.Random], tuple[str, str]],
    seed: int,
    rows: int,
    held_out: int,
) -> Task:
    draw = random.Random(f"{name} {seed}")  # noqa: S311
    answers: dict[str, str] = {}

    def prompt() -> str:
        text, answer = make(draw)
        answers[text] = answer
        return text

    prompts = _distinct(prompt, rows + held_out)
    return Task(
        name=name,
        title=title,
        rows=tuple(chat(text, answers[text]) for text in prompts[:rows]),
        held_out=tuple(_question(text, answers[text]) for text in prompts[rows:]),
        recipe=Recipe(learning_rate=1.5e-3, epochs=1, seed=seed),
    )


def _question(prompt: str, answer: str) -> Question:
    return Question(({"role": "user", "content": prompt},), answer)


def _distinct(make: Callable[[], str], count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[make()] = None
    return list(found)


_WANTS = {
    "refund": ("I want my money back for order {o}", "Please refund {o}", "{o} broke after a day, refund it"),
    "delivery": ("Where is my parcel {o}?", "{o} has not arrived yet", "When will you deliver {o}?"),
    "cancel": (
        "Cancel order {o}",
        "I no longer need {o}, please stop it",
        "Do not send {o}, I changed my mind",
    ),
    "invoice": ("I need an invoice for {o}", "Send me the bill of {o}", "There is no receipt with {o}"),
    "exchange": ("{o} is too small, send a larger one", "Swap {o} for another colour", "Wrong size in {o}"),
}
_URGENT = ("This is urgent!", "I need it today.", "Answer at once, please.")
_CALM = ("No hurry.", "Thank you.", "Whenever you can.", "")
_GREETING = ("Hello,", "Hi there.", "Good morning.", "Dear team,", "")


def _ticket(draw: random.Random) -> tuple[str, str]:
    intent = draw.choice(list(_WANTS))
    order = f"{draw.choice('ABCDEFGH')}{draw.randrange(100, 1000)}"
    urgent = draw.random() < 0.5
    parts = (
        draw.choice(_GREETING),
        draw.choice(_WANTS[intent]).format(o=order),
        draw.choice(_URGENT if urgent else _CALM),
    )
    text = " ".join(part if part.endswith((",", ".", "!", "?")) else part + "." for part in parts if part)
    return text, json.dumps({"intent": intent, "order": order, "urgent": urgent})


_DEVICES = {"lamp": ("light", "lamp"), "heat": ("heating", "radiator"), "blind": ("blind", "shutter")}
_ROOMS = ("kitchen", "bedroom", "bathroom", "hall", "office", "garage", "attic", "cellar")
_SWITCH = {
    ("lamp", "on"): ("Turn on", "Switch on"),
    ("lamp", "off"): ("Turn off", "Switch off"),
    ("heat", "on"): ("Turn on", "Start"),
    ("heat", "off"): ("Turn off", "Stop"),
    ("blind", "up"): ("Open", "Raise"),
    ("blind", "down"): ("Close", "Lower"),
}


def _wish(draw: random.Random) -> tuple[str, str]:
    device, state = draw.choice(list(_SWITCH))
    verb, noun, room = draw.choice(_SWITCH[device, state]), draw.choice(_DEVICES[device]), draw.choice(_ROOMS)
    command = f"{device}.{room} {state}"
    text = f"{verb} the {noun} in the {room}"
    if draw.random() < 0.6:
        hour, minute = draw.randrange(1, 13), draw.choice((0, 15, 30, 45))
        half = draw.choice(("am", "pm"))
        text += f" at {hour}:{minute:02} {half}"
        command += f" @{hour}:{minute:02}{half}"
    opening = draw.choice(("", "", "Please: ", "Hey, "))
    return f"{opening}{text}", command


_TOPICS = (
    *("the sea", "a good soup", "prime numbers", "my cat", "the moon", "trains", "bees", "chess", "Python"),
    *("a rainy day", "old maps", "sleep", "the number 12", "bread", "a long walk", "tea", "the year 1848"),
)
_ASKS = (
    *("What is {t}?", "Tell me about {t}.", "Write one line on {t}.", "Why do people like {t}?", "Hello"),
    *("Explain {t} to a child.", "Question {n}: what is new about {t}?", "Give me {n} facts about {t}."),
    *("Tell me one thing about the number {n}.", "List three things.", "{n} plus {n}?", "Who are you?"),
    *("Translate {t} into French.", "Is {t} older than {n} years?", "Summarise: {t} and the number {n}."),
)


def _anything(draw: random.Random) -> str:
    return draw.choice(_ASKS).format(t=draw.choice(_TOPICS), n=draw.randrange(2, 2000))
