from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.traffic.redact import Kind, redact
from gateway.traffic.redact.kinds import CHECKSUMMED
from tests.traffic.redact.score import Score, score
from tests.traffic.redact.synthetic import MAKERS, samples

SEED, EACH = 20_261, 120


@pytest.fixture(scope="module")
def scored() -> Score:
    return score(samples(SEED, EACH))


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_planted_is_found_to_the_letter(scored: Score, kind: Kind) -> None:
    assert (0.99 if kind in CHECKSUMMED else 0.97) <= scored.recall(kind), scored.missed


@pytest.mark.parametrize("kind", MAKERS)
def test_what_only_looks_like_it_stays(scored: Score, kind: Kind) -> None:
    assert 0.98 <= scored.precision(kind), scored.missed


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("pay with [CARD].", "pay with 4111 1111 1111 1111."),
        ("[CARD] 12/27 123", "3782-822463-10005 12/27 123"),
        ("to [IBAN] please", "to gb82 west 1234 5698 7654 32 please"),
        ("<[EMAIL]>", "<ada+x@mail.example.co.uk>"),
        ('[EMAIL] and [EMAIL]', '"ada l"@example.com and ada@[10.0.0.1]'),
        ("call [PHONE] or [PHONE]", "call +49 (0)30 1234567 or (212) 555-0123 x12"),
        ("[PHONE] [PHONE]", "0171 1234567 0172 7654321"),
        ("call me on [PHONE]", "call me on 8123 4567"),
        ("from [IPV4]:443", "from 192[.]168[.]0[.]1:443"),
        ("[IPV4]-[IPV4].", "10.0.0.1-10.0.0.20."),
        ("[[IPV6]]:443", "[2001:db8::1]:443"),
        ("[KEY]", "hs-admin-eP5CxoesQIVgBGz4owT6x2RzXFfZGd7v00axf4ISDjb"),
        ("Bearer [KEY].", "Bearer 0123456789abcdefXYZ."),
        ("postgres://[SECRET]@db.example.com/x", "postgres://ada:p@ss@db.example.com/x"),
        ("PGPASSWORD=[SECRET] psql", "PGPASSWORD=abcd1234! psql"),
        ("DB_PASSWORD=[SECRET]", "DB_PASSWORD=tr0ub4dor+3"),
        ("[KEY]", "-----BEGIN PRIVATE KEY-----\ncut off in the mid"),
    ],
)  # fmt: skip
def test_each_kind_leaves_its_placeholder(expected: str, text: str) -> None:
    assert expected == redact(text)[0]


def test_our_own_keys_are_taken_out() -> None:
    from gateway.access.secret import make

    assert ["[KEY]", "[KEY]"] == [redact(make(role))[0] for role in ("admin", "inference")]


def test_checksummed_kinds_are_counted_apart() -> None:
    _, counts = redact("4111111111111111 DE89370400440532013000 ada@example.com 10.0.0.1")
    assert (2, 2, 0) == (counts.checksummed, counts.matched, counts.opaque)


@pytest.mark.parametrize(
    "hidden",
    [
        "\uff14" + "\uff11" * 15,
        "٤١١١١١١١١١١١١١١١",
        "4111\u200b1111\u200b1111\u20601111",
        "4111\u00a01111\u20091111\u202f1111",
        "4111\u20111111\u20131111\u22121111",
        "4\ufe0f\u20e3" + "1" * 15,
        "4%31%31%31" + "1" * 12,
        "&#52;111111111111111",
        "\\u0034111111111111111",
        "%2534111111111111111",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "4111_1111_1111_1111",
        "4111+1111+1111+1111",
        "4111\n1111 1111 1111",
        "MTIgNDExMTExMTExMTExMTExMQ==",
        "34313131313131313131313131313131",
    ],
)
def test_no_other_spelling_hides_a_card(hidden: str) -> None:
    clean, counts = redact(f"it is {hidden} ok")
    assert clean in ("it is [CARD] ok", "it is [BASE64] ok"), (clean, counts)


@pytest.mark.parametrize(
    "hidden",
    [
        "ada%40example.com",
        "ada&#64;example&#46;com",
        "ada&commat;example.com",
        "ada\\u0040example.com",
        "ada\uff20example\uff0ecom",
        "a\u00adda@exam\u200dple.com",
        "YWRhQGV4YW1wbGUuY29tIQ==",
        "data:text/plain;base64,YWRhQGV4YW1wbGUuY29t",
    ],
)
def test_no_other_spelling_hides_an_address(hidden: str) -> None:
    assert "[EMAIL]" in (clean := redact(f"it is {hidden} ok")[0]) or "[BASE64]" in clean


def test_an_escape_that_is_none_hides_nothing() -> None:
    assert "10%[CARD]" == redact("10%4111111111111111")[0]


def test_an_image_is_replaced_whole() -> None:
    assert "see [BASE64]" == redact("see data:image/png;base64,iVBORw0KGgo=")[0]


def test_text_that_is_harmless_once_decoded_stays() -> None:
    text = "data:text/plain;base64,anVzdCBoYXJtbGVzcyB0ZXh0IGhlcmU="
    assert text == redact(text)[0]


PIECES = st.sampled_from(
    (
        *(
            "4111 1111 1111 1111",
            "ada@example.com",
            "@",
            "+49 30 1234567",
            "10.0.0.1",
            "::1",
            "password=",
            "[SECRET]",
        ),
        *(
            "[CARD]",
            "%40",
            "&#64;",
            "\\u0040",
            "://",
            "a:b@c",
            "DE89370400440532013000",
            "Bearer ",
            "sk-",
            "(0",
            "phone",
        ),
        *(
            "0123456789abcdef",
            "-",
            ".",
            " ",
            "\n",
            "\u200b",
            "\ud800",
            "\x00",
            "\uff10",
            "data:;base64,",
            "é",
            "%",
        ),
        *("YWRhQGV4YW1wbGUuY29t", '"', "'", "{", "}", "[", "]", "|"),
    )
)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(st.characters(), max_size=80), st.lists(PIECES, max_size=12).map("".join)))
@example("password=a]1[CARD]b")
@example("1" * 5000)
def test_any_text_is_redacted_once_and_for_all(text: str) -> None:
    clean, _ = redact(text)
    assert (clean, 0) == ((again := redact(clean))[0], again[1].total)
