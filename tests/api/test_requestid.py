"""Request ids."""

from __future__ import annotations

from itertools import islice

from gateway.api.requestid import BATCH, RequestIds


def test_an_id_is_32_hex_digits_and_no_two_are_the_same() -> None:
    ids = list(islice(RequestIds(), 2 * BATCH + 1))
    assert {32} == {len(id) for id in ids}
    assert set("0123456789abcdef") == set("".join(ids))
    assert len(ids) == len(set(ids))


def test_two_gateways_do_not_make_the_same_ids() -> None:
    assert next(RequestIds()) != next(RequestIds())
