from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.traffic.redact import Kind, redact_json

ADA = "ada@example.com"


def clean(value: Any) -> Any:
    return redact_json(value)[0]


def test_every_string_and_every_name_is_redacted() -> None:
    assert {"a": ["[EMAIL]", {"[EMAIL]": "x"}]} == clean({"a": [ADA, {ADA: "x"}]})


def test_names_that_become_the_same_keep_their_values() -> None:
    assert {"[EMAIL]": 1, "[EMAIL] (2)": 2} == clean({ADA: 1, "bob@example.com": 2})


def test_many_names_that_become_the_same_take_linear_time() -> None:
    begun = time.process_time()
    assert 20_000 == len(clean({f"ada{number}@example.com": number for number in range(20_000)}))
    assert 5.0 > time.process_time() - begun


def test_what_holds_nothing_is_returned_equal() -> None:
    body = {"model": "support", "messages": [{"role": "user", "content": "hi"}], "n": 1, "t": 0.5, "s": None}
    assert (body, 0) == ((found := redact_json(body))[0], found[1].total)


@pytest.mark.parametrize("number", [4111111111111111, -4111111111111111, 4111111111111111.0])
def test_a_number_that_is_a_card_number_is_replaced(number: float) -> None:
    assert ["[CARD]"] == clean([number])


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        ('{"to":"[EMAIL]"}', '{"to":"ada\\u0040example.com"}'),
        ('{"url": "https:\\/\\/x.example\\/a"}', '{"url": "https:\\/\\/x.example\\/a"}'),
        ('{"card":"[CARD]"}', '{"card":4111111111111111}'),
        ('{"[EMAIL]": {"deep": "[CARD]"}}', '{"ada@example.com": {"deep": "4111 1111 1111 1111"}}'),
        ('{"line":"x\\n[EMAIL]"}', '{"line":"x\\nada@example.com"}'),
        ('{"inner":"{\\"to\\":\\"[EMAIL]\\"}"}', '{"inner":"{\\"to\\":\\"ada\\\\u0040example.com\\"}"}'),
        ('{"a":"x"}', '{"a":"ada@example.com","a":"x"}'),
    ],
)
def test_json_in_a_string_stays_json_and_hides_nothing(expected: str, arguments: str) -> None:
    assert expected == clean({"arguments": arguments})["arguments"]
    json.loads(clean({"arguments": arguments})["arguments"])


def test_json_cut_short_is_redacted_as_text() -> None:
    assert '{"to": "[EMAIL]", "na' == clean([f'{{"to": "{ADA}", "na'])[0]


@pytest.mark.parametrize(
    ("expected", "body"),
    [
        ({"password": "[SECRET]"}, {"password": "swordfish"}),
        ({"client_secret": "[SECRET]"}, {"client_secret": "abc"}),
        ({"db_password": "[SECRET]"}, {"db_password": 123456}),
        ({"phone": "[PHONE]"}, {"phone": "8123 4567"}),
        ({"phone_number": "[PHONE]"}, {"phone_number": 4915112345678}),
        ({"password": {"type": "string"}}, {"password": {"type": "string"}}),
        ({"max_tokens": 4096}, {"max_tokens": 4096}),
        ({"token": "Hello"}, {"token": "Hello"}),
    ],
)
def test_a_members_name_tells_what_its_value_is(expected: Any, body: Any) -> None:
    assert expected == clean(body)


@pytest.mark.parametrize(
    ("expected", "body"),
    [
        ({"logprobs": "[TOKENS]"}, {"logprobs": {"content": [{"token": "ada", "bytes": [97]}]}}),
        ({"token_ids": "[TOKENS]"}, {"token_ids": [1, 2]}),
        ({"prompt": "[TOKENS]"}, {"prompt": [[1, 2], [3]]}),
        ({"logprobs": True, "top_logprobs": 5}, {"logprobs": True, "top_logprobs": 5}),
        ({"prompt": ["hi"]}, {"prompt": ["hi"]}),
    ],
)
def test_tokens_that_spell_the_text_again_go(expected: Any, body: Any) -> None:
    assert expected == clean(body)


def test_images_and_sound_go_whole() -> None:
    sound = {"input_audio": {"data": "UklGRiQAAABXQVZFZm10IBAAAAABAAEA" * 8, "format": "wav"}}
    image = {"image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    body, counts = redact_json([sound, image])
    assert ("[BASE64]", "[BASE64]") == (body[0]["input_audio"]["data"], body[1]["image_url"]["url"])
    assert 2 == counts[Kind.BASE64]


@pytest.mark.parametrize("levels", [100, 100_000])
def test_what_lies_too_deep_is_replaced(levels: int) -> None:
    assert "[TOO DEEP]" in json.dumps(clean(["[" * levels + f'"{ADA}"' + "]" * levels]))
    value: Any = ADA
    for _ in range(500):
        value = [value]
    assert ADA not in json.dumps(clean(value))


def test_a_redacted_body_still_encodes() -> None:
    body = msgspec.json.decode(f'{{"n": 4111111111111111, "to": "{ADA}", "x": 1e40}}')
    assert b'{"n":"[CARD]","to":"[EMAIL]","x":1e40}' == msgspec.json.encode(clean(body))


@pytest.mark.parametrize("number", [10**5000, float("nan"), float("inf"), 1e300], ids="abcd")
def test_a_number_beyond_all_measure_is_left_alone(number: float) -> None:
    assert number is clean([number])[0]


def test_what_no_json_holds_is_replaced() -> None:
    assert ["[UNKNOWN]", "[UNKNOWN]"] == clean([b"x", object()])


LEAVES = st.one_of(
    *(st.none(), st.booleans(), st.floats(), st.integers(-(10**40), 10**40)),
    st.text(st.characters(), max_size=30),
    st.sampled_from(
        [ADA, f'{{"a": "{ADA}"}}', "[4111111111111111]", '{"password": "x1"}', '"[', "8123 4567"]
    ),
)
NAMES = st.sampled_from(["a", ADA, "password", "phone", "prompt", "logprobs", "[EMAIL]"])
BODIES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(BODIES)
@example({"password": "[SECRET]", "a": '{"password":"[SECRET]"}'})
def test_any_body_is_redacted_once_and_for_all(body: Any) -> None:
    once = clean(body)
    again, counts = redact_json(once)
    assert (repr(once), 0) == (repr(again), counts.total)
