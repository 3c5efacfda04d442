"""Which texts of a body somebody may rewrite, and that the body stays what it is."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.traffic.texts import rewritten
from gateway.traffic.unit import hashed


def masked(value: Any) -> Any:
    """With every text that is handed over in place of itself, in brackets."""
    return rewritten(value, lambda text, name: f"<{text}>")


def seen(value: Any) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []

    def rewrite(text: str, name: str) -> str:
        told.append((text, name))
        return text

    assert value == rewritten(value, rewrite)
    return told


def test_what_was_said_is_handed_over_and_what_says_what_it_is_is_not() -> None:
    message = {"role": "user", "name": "Alice", "content": "Hello"}
    assert {"role": "user", "name": "<Alice>", "content": "<Hello>"} == masked(message)


def test_parts_of_a_message_are_looked_into() -> None:
    content = [{"type": "text", "text": "Hello"}, {"type": "refusal", "refusal": "No"}]
    assert [{"type": "text", "text": "<Hello>"}, {"type": "refusal", "refusal": "<No>"}] == masked(content)


def test_a_functions_name_and_ids_stay_and_its_arguments_are_rewritten_as_json() -> None:
    call = {"id": "call_7", "type": "function", "function": {"name": "mail", "arguments": '{"to":"Alice"}'}}
    function = {"name": "mail", "arguments": '{"to":"<Alice>"}'}
    assert {"id": "call_7", "type": "function", "function": function} == masked(call)


def test_in_arguments_every_member_is_somebodys_words() -> None:
    assert '{"role": "<Alice>", "id": "<B7>"}' == masked('{"role": "Alice", "id": "B7"}')


def test_something_that_only_looks_like_a_role_is_handed_over() -> None:
    assert {"role": "<Alice Johnson>", "id": "<219-09-9999>"} == masked(
        {"role": "Alice Johnson", "id": "219-09-9999"}
    )


def test_hashes_of_units_stay() -> None:
    parameters = {"user": hashed(b"alice", b"salt"), "seed": 7}
    assert parameters == masked(parameters)


def test_names_that_are_more_than_identifiers_are_handed_over() -> None:
    assert {"<Alice Johnson>": {"city": "<Rome>"}} == masked({"Alice Johnson": {"city": "Rome"}})


def test_two_names_that_become_one_stay_two() -> None:
    clean = rewritten({"Ann B": 1, "Bob C": 2}, lambda text, name: "[PERSON]")
    assert {"[PERSON]": 1, "[PERSON] (2)": 2} == clean


def test_long_numbers_are_handed_over_with_the_name_that_tells_what_they_are() -> None:
    assert [("219099999", "ssn")] == seen(
        {"ssn": 219099999, "count": 12345, "yes": True, "share": 0.123456789}
    )
    assert {"ssn": "<219099999>"} == masked({"ssn": 219099999})


def test_json_in_a_string_that_nobody_changes_stays_as_it_was_written() -> None:
    text = ' {"a":  "b" } '
    assert [("b", "a")] == seen(text)


def test_of_a_member_that_is_there_twice_the_one_that_nobody_sees_goes() -> None:
    text = '{"who": "Alice Johnson", "who": "nobody"}'
    assert '{"who": "nobody"}' == rewritten(text, lambda text, name: text)


@pytest.mark.parametrize("text", ["{not json}", "[1, 2", "[PERSON]"])
def test_what_is_no_json_is_a_text(text: str) -> None:
    assert f"<{text}>" == masked(text)


def test_what_the_rewriter_raises_is_raised() -> None:
    def fail(text: str, name: str) -> str:
        raise OSError(name)

    with pytest.raises(OSError, match="content"):
        rewritten([{"content": "Hello"}], fail)
