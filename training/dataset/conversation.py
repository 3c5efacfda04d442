"""Conversations as OpenAI's API knows them, brought into the shape that rows have: roles and text.

What the trainer cannot learn from is refused with a reason, never bent into something else.
"""

from __future__ import annotations

from typing import Any

from training.rows import ROLES, Message


class Unlearnable(ValueError):
    """`reason` is a code of the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def conversation(messages: Any, tools: Any = None) -> tuple[Message, ...]:
    """A conversation whose last message is the answer, and alone is learned: answers before it were given,
    and are rows of their own, in exchanges before it.

    Raises `Unlearnable`: `tools`, `no_text` (images, sounds, nothing), `roles`, `no_answer`.
    """
    if tools:
        raise Unlearnable("tools")
    if not isinstance(messages, list) or len(messages) < 2:
        raise Unlearnable("no_answer")
    found = [_message(message) for message in messages]
    if found[-1].role != "assistant":
        raise Unlearnable("no_answer")
    if any(message.role == "system" for message in found[1:]) or found[-2].role == "assistant":
        raise Unlearnable("roles")
    if found[0].role == "assistant" or all(message.role == "system" for message in found[:-1]):
        raise Unlearnable("roles")
    return (*found[:-1], Message("assistant", found[-1].content, learn=True))


def _message(message: Any) -> Message:
    if not isinstance(message, dict):
        raise Unlearnable("roles")
    role = "system" if message.get("role") == "developer" else message.get("role")
    if role in ("tool", "function") or message.get("tool_calls") or message.get("function_call"):
        raise Unlearnable("tools")
    if role not in ROLES:
        raise Unlearnable("roles")
    content = _text(message.get("content"))
    if role != "system" and not content.strip():
        raise Unlearnable("no_text")
    return Message(role, content)


def _text(content: Any) -> str:
    """Text, also where it comes in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if parts and all(isinstance(part, str) for part in parts):
            return "\n".join(map(str, parts))
    raise Unlearnable("no_text")
