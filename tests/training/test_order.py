"""In what order rows are learned: all of them, alike in length, and the same again after a kill."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from training.order import LengthOrder

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=300)


def padding(lengths: list[int], rows: list[int], batch: int) -> int:
    batches = [[lengths[row] for row in rows[at : at + batch]] for at in range(0, len(rows), batch)]
    return sum(max(each) * len(each) - sum(each) for each in batches)


@given(LENGTHS, st.integers(1, 16), st.integers(0, 5), st.integers(0, 5))
def test_every_row_comes_once_an_epoch(lengths: list[int], batch: int, seed: int, epoch: int) -> None:
    order = LengthOrder(lengths, batch, seed)
    order.set_epoch(epoch)
    assert list(range(len(lengths))) == sorted(order)


@given(LENGTHS, st.integers(1, 16), st.integers(0, 5))
def test_an_epoch_has_its_order_however_it_was_come_to(lengths: list[int], batch: int, seed: int) -> None:
    through, at_once = LengthOrder(lengths, batch, seed), LengthOrder(lengths, batch, seed)
    for epoch in range(3):
        through.set_epoch(epoch)
        last = list(through)
    at_once.set_epoch(2)
    assert last == list(at_once)


@given(LENGTHS, st.integers(1, 16))
def test_the_first_batch_holds_the_longest_row(lengths: list[int], batch: int) -> None:
    first = list(LengthOrder(lengths, batch, seed=0))[:batch]
    assert max(lengths) == max(lengths[row] for row in first)


@given(st.lists(st.integers(1, 200), min_size=64, max_size=300))
def test_little_is_padded(lengths: list[int]) -> None:
    grouped = list(LengthOrder(lengths, 8, seed=0))
    best = sorted(range(len(lengths)), key=lambda row: lengths[row])
    # Within one pool the order is by length; only where pools begin anew can more be padded.
    assert padding(lengths, grouped, 8) <= padding(lengths, best, 8) + 200 * 8


def test_epochs_differ_and_so_do_seeds() -> None:
    lengths = [n % 40 + 1 for n in range(400)]
    first, second, other = (LengthOrder(lengths, 8, seed) for seed in (0, 0, 1))
    for order, epoch in ((first, 1), (second, 2), (other, 1)):  # the first epoch begins in its own way
        order.set_epoch(epoch)
    assert 3 == len({tuple(order) for order in (first, second, other)})


def test_batches_do_not_run_from_long_to_short() -> None:
    lengths = list(range(1, 401))
    rows = list(LengthOrder(lengths, 8, seed=0))
    means = [sum(lengths[row] for row in rows[at : at + 8]) / 8 for at in range(0, 400, 8)]
    falls = sum(left > right for left, right in itertools.pairwise(means[1:]))
    assert 10 < falls < 40
