"""The LoRA kernel against a float64 reference, row by row. In process: torch, no server."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.vllm_plugin.kernel import LONG, Grouping, Run, add_lora, expand, group, shrink

WIDTHS = (24, 8, 8)
BITS = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 2**-23}


@dataclass(frozen=True)
class Case:
    slots: list[int]
    a: tuple[torch.Tensor, ...]
    b: tuple[torch.Tensor, ...]
    x: torch.Tensor
    y: torch.Tensor


def make(slots: list[int], *, of: int, rank: int, widths=WIDTHS, dtype=torch.bfloat16, seed=0) -> Case:
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random).to(dtype)

    a = tuple(draw(of, 1, rank, 40) for _ in widths)
    b = tuple(draw(of, 1, width, rank) for width in widths)
    return Case(slots, a, b, draw(len(slots), 40), draw(len(slots), sum(widths)))


def reference(case: Case, scale: float) -> torch.Tensor:
    out = case.y.double()
    for row, slot in enumerate(case.slots):
        if slot >= 0:
            delta = [
                b[slot, 0].double() @ (a[slot, 0].double() @ case.x[row].double())
                for a, b in zip(case.a, case.b, strict=True)
            ]
            out[row] += scale * torch.cat(delta)
    return out


def applied(case: Case, scale: float = 1.0, by: Grouping | None = None) -> torch.Tensor:
    y = case.y.clone()
    widths = [b.size(-2) for b in case.b]
    add_lora(y, case.x, case.a, case.b, widths, scale, group(case.slots) if by is None else by)
    return y


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


rows = st.lists(st.integers(-1, 6), min_size=0, max_size=24)
runs = st.lists(st.tuples(st.integers(-1, 6), st.integers(1, 2 * LONG)), max_size=6).map(
    lambda parts: [slot for slot, length in parts for _ in range(length)]
)


@settings(max_examples=150, deadline=None)
@given(
    slots=st.one_of(rows, runs),
    rank=st.sampled_from([1, 8, 16, 32]),
    dtype=st.sampled_from(sorted(BITS, key=str)),
    widths=st.sampled_from([(24,), (24, 8, 8), (16, 16)]),
    scale=st.sampled_from([1.0, 0.5]),
    seed=st.integers(0, 99),
)
def test_every_row_gets_the_delta_of_its_own_adapter(slots, rank, dtype, widths, scale, seed):
    case = make(slots, of=7, rank=rank, widths=widths, dtype=dtype, seed=seed)
    expected = reference(case, scale)
    # x·A is rounded once, then the sum: a few units in the last place of the largest term.
    size = (40**0.5) * rank**0.5 * 8
    assert torch.allclose(expected, applied(case, scale).double(), rtol=0, atol=4 * size * BITS[dtype])


@settings(max_examples=150, deadline=None)
@given(slots=st.one_of(rows, runs), seed=st.integers(0, 99))
def test_a_base_row_keeps_every_bit_beside_any_adapters(slots, seed):
    case = make(slots, of=7, rank=8, seed=seed)
    case.y[::2] *= -0.0  # -0.0 + 0.0 is 0.0: adding nothing is not the same as not adding
    y = applied(case)
    base = [row for row, slot in enumerate(slots) if slot < 0]
    assert bits(case.y[base]) == bits(y[base])


def test_a_base_row_keeps_every_bit_when_all_weights_are_not_finite():
    case = make([0, -1, 2, -1, 3, 0, -1], of=4, rank=8)
    for weights in (*case.a, *case.b):
        weights.fill_(float("nan"))
    assert bits(case.y[[1, 3, 6]]) == bits(applied(case)[[1, 3, 6]])


def test_weights_of_slots_that_no_row_uses_reach_no_row():
    case = make([0, 2, 0, 2, 0, 2], of=3, rank=8)
    expected = bits(applied(case))
    for weights in (*case.a, *case.b):
        weights[1].fill_(float("nan"))
    assert expected == bits(applied(case))


def test_rows_beyond_the_mapping_are_left_alone():
    case = make([0, 1, 2, 0, 1, 2], of=3, rank=8)
    assert bits(case.y[4:]) == bits(applied(case, by=group([0, 1, 2, 0]))[4:])


def test_fewer_rows_than_the_mapping_are_an_error_that_says_both_numbers():
    case = make([0, 1], of=3, rank=8)
    with pytest.raises(ValueError, match="called with 2 rows; the LoRA mapping of this step has 5"):
        applied(case, by=group([0, 1, 1, 1, 1]))


def test_the_input_is_not_changed():
    case = make([0, -1, 2, 2, 1, 0], of=4, rank=8)
    before = bits(case.x)
    applied(case)
    assert before == bits(case.x)


def test_a_prefill_beside_decoding_rows_is_one_run_and_the_rest_are_batched():
    by = group([0, -1, 1, *[2] * LONG, 0, 1])
    assert (Run(2, 3, 3 + LONG),) == by.runs
    assert [0, 2, 3 + LONG, 4 + LONG] == by.scattered.rows.tolist()
    assert (0, 2, 2) == (by.scattered.padded.first, by.scattered.padded.slots, by.scattered.padded.height)


def test_many_streams_of_one_adapter_are_one_run():
    assert (Run(3, 0, 32),) == group([3] * 32).runs


def test_a_step_of_base_rows_alone_has_nothing_to_do():
    assert group([-1] * 9).empty


def test_distant_slots_are_not_read_through():
    by = group([0, 60, 0, 60])
    assert by.scattered.padded is None


def test_a_crowded_adapter_beside_lone_rows_is_not_padded_out():
    by = group([0, -1] * 200 + [1, -1, 2, -1, 3])
    assert by.scattered.padded is None


@settings(max_examples=60, deadline=None)
@given(slots=st.one_of(rows, runs), seed=st.integers(0, 99))
def test_shrink_then_expand_is_the_whole_delta(slots, seed):
    case = make(slots, of=7, rank=8, widths=(24,), seed=seed)
    low = torch.zeros(len(slots), 8)
    shrink(low, case.x, case.a[0], 0.5, group(slots))
    y = case.y.clone()
    expand(y, low, case.b[0], group(slots))
    assert torch.allclose(reference(case, 0.5), y.double(), rtol=0, atol=size_of(case) * 2**-8)
    base = [row for row, slot in enumerate(slots) if slot < 0]
    assert bits(case.y[base]) == bits(y[base])


def test_expand_writes_only_the_columns_that_both_have():
    case = make([0, 1], of=2, rank=8, widths=(24,))
    y = torch.zeros(2, 30, dtype=torch.bfloat16)
    expand(y, torch.ones(2, 8), case.b[0], group(case.slots), add=False)
    assert (True, False) == (bool(y[:, :24].any()), bool(y[:, 24:].any()))


def size_of(case: Case) -> float:
    return 4 * 8 * (40 * case.a[0].size(-2)) ** 0.5
