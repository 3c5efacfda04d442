"""Request ids."""

from __future__ import annotations

import time
from itertools import islice
from uuid import RFC_4122, UUID

import pytest

from gateway.requestid import BATCH, RequestIds, when


def test_an_id_is_a_uuid_of_version_7_and_no_two_are_the_same() -> None:
    ids = list(islice(RequestIds(), 2 * BATCH + 1))
    assert {32} == {len(id) for id in ids}
    assert {(7, RFC_4122)} == {(UUID(id).version, UUID(id).variant) for id in ids}
    assert len(ids) == len({id[12:] for id in ids})


def test_all_random_bits_are_random() -> None:
    ones = zeros = 0
    for id in islice(RequestIds(), 1000):
        ones |= int(id[12:], 16)
        zeros |= ~int(id[12:], 16)
    free = (1 << 80) - 1 - (0xF << 76) - (0xF << 60)
    assert ones & zeros & free == free


def test_an_id_says_when_its_request_came() -> None:
    before = time.time()
    id = next(RequestIds())
    assert before - 0.002 < when(id).timestamp() < time.time() + 0.002


@pytest.mark.parametrize("id", ["", "7", "x" * 32, "0" * 32, "0" * 12 + "7" + "0" * 20])
def test_what_is_no_id_is_refused(id: str) -> None:
    with pytest.raises(ValueError):
        when(id)


def test_two_gateways_do_not_make_the_same_ids() -> None:
    assert next(RequestIds())[12:] != next(RequestIds())[12:]
