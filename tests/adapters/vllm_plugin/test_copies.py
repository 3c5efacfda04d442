"""Copies of the weights: right at any rank, made anew when the weights change, and not before they rest."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.vllm_plugin.copies import PATIENCE, Copier, copy, real_rank
from adapters.vllm_plugin.kernel import FEW_ROWS, add_lora, add_lora_few, few, group
from tests.adapters.vllm_plugin.test_kernel import Case, bits, make, reference, rows, runs

PADDED = 32


def padded(case: Case, ranks: list[int]) -> Case:
    """As vLLM stacks: zeros beyond each slice's rank, up to `PADDED`."""

    def stack(weights: torch.Tensor, rank: int, axis: int) -> torch.Tensor:
        whole = weights.new_zeros([PADDED if at == axis else n for at, n in enumerate(weights.shape)])
        whole.narrow(axis, 0, rank).copy_(weights.narrow(axis, 0, rank))
        return whole

    a = tuple(stack(each, rank, 2) for each, rank in zip(case.a, ranks, strict=True))
    b = tuple(stack(each, rank, 3) for each, rank in zip(case.b, ranks, strict=True))
    return Case(case.slots, a, b, case.x, case.y)


def applied(case: Case, scale: float = 1.0) -> torch.Tensor:
    y = case.y.clone()
    add_lora_few(y, case.x, copy(case.a, case.b), scale, group(case.slots))
    return y


def settled(copier: Copier, case: Case) -> None:
    for _ in range(PATIENCE):
        copier.of(case.a, case.b)


@settings(max_examples=150, deadline=None)
@given(
    slots=st.one_of(rows, runs),
    ranks=st.tuples(*3 * [st.sampled_from([0, 1, 8, 32])]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    scale=st.sampled_from([1.0, 0.5]),
    seed=st.integers(0, 99),
)
def test_every_row_gets_the_delta_of_its_own_adapter_rounded_once(slots, ranks, dtype, scale, seed):
    case = padded(make(slots, of=7, rank=32, dtype=dtype, seed=seed), list(ranks))
    expected = reference(case, scale)
    unit = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 2**-19}[dtype]
    assert torch.allclose(expected, applied(case, scale).double(), rtol=unit, atol=1e-3)


@settings(max_examples=100, deadline=None)
@given(slots=st.one_of(rows, runs), seed=st.integers(0, 99))
def test_a_base_row_keeps_every_bit_beside_any_adapters(slots, seed):
    case = make(slots, of=7, rank=8, seed=seed)
    case.y[::2] *= -0.0
    base = [row for row, slot in enumerate(slots) if slot < 0]
    assert bits(case.y[base]) == bits(applied(case)[base])


def test_weights_of_slots_that_no_row_uses_reach_no_row():
    case = make([0, 2, 0, 2, 0, 2], of=3, rank=8)
    expected = bits(applied(case))
    for weights in (*case.a, *case.b):
        weights[1].fill_(float("nan"))
    assert expected == bits(applied(case))


def test_rows_beyond_the_mapping_are_left_alone():
    case = make([0, 1, 2, 0, 1, 2], of=3, rank=8)
    y = case.y.clone()
    add_lora_few(y, case.x, copy(case.a, case.b), 1.0, group([0, 1, 2, 0]))
    assert bits(case.y[4:]) == bits(y[4:])


@settings(max_examples=50, deadline=None)
@given(slots=st.one_of(rows, runs), ranks=st.tuples(*3 * [st.sampled_from([0, 1, 8, 32])]))
def test_a_large_step_that_knows_the_real_ranks_does_not_read_beyond_them(slots, ranks):
    case = padded(make(slots, of=7, rank=32), list(ranks))
    expected = whole(case)
    for a, b, rank in zip(case.a, case.b, ranks, strict=True):
        a[:, :, rank:] = b[..., rank:] = float("nan")
    assert torch.allclose(expected, whole(case, ranks), rtol=2**-6, atol=1e-2)


def whole(case: Case, ranks: tuple[int, ...] | None = None) -> torch.Tensor:
    y = case.y.clone()
    add_lora(y, case.x, case.a, case.b, [b.size(-2) for b in case.b], 1.0, group(case.slots), ranks)
    return y


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_real_rank_is_that_of_the_largest_adapter(dtype):
    a = torch.zeros(3, 1, PADDED, 10, dtype=dtype)
    assert 0 == real_rank(a)
    a[1, 0, 7, 9] = 1e-5
    assert 8 == real_rank(a)
    a[2, 0, 15, 0] = float("nan")
    assert 16 == real_rank(a)


def test_a_layer_that_no_adapter_changes_costs_nothing():
    case = padded(make([0, 1, 2], of=3, rank=8), [0, 0, 0])
    copies = copy(case.a, case.b)
    assert (0, (), (0, 0, 0)) == (copies.bytes, copies.slices, copies.ranks)
    assert few(group(case.slots), copies)
    assert bits(case.y) == bits(applied(case))


def test_copies_are_taken_for_few_rows_of_small_rank_only():
    small, large = (copy(case.a, case.b) for case in (make([0], of=1, rank=8), make([0], of=1, rank=64)))
    assert (True, True) == (few(group([0] * 8), small), few(group([0] * FEW_ROWS), small))
    assert not few(group([0] * (FEW_ROWS + 1)), small)
    assert (True, False) == (few(group([0] * 8), large), few(group([0] * 9), large))
    assert few(group([0] * 8 + [-1] * 1000), large), "base rows cost nothing"


def test_copies_wait_until_the_weights_have_rested():
    case, copier = make([0], of=2, rank=8), Copier()
    assert [None] * (PATIENCE - 1) == [copier.of(case.a, case.b) for _ in range(PATIENCE - 1)]
    assert copier.of(case.a, case.b) is not None


def test_the_same_copies_serve_until_the_weights_change():
    case, copier = make([0], of=2, rank=8), Copier()
    settled(copier, case)
    assert copier.of(case.a, case.b) is copier.of(case.a, case.b)


@pytest.mark.parametrize("part", ["a", "b"])
@pytest.mark.parametrize("inside", [torch.inference_mode, torch.no_grad])
def test_a_write_as_vllm_does_it_ends_the_copies_at_once(part, inside):
    case, copier = make([0], of=2, rank=8), Copier()
    settled(copier, case)
    with inside():
        getattr(case, part)[1][1, 0, :4, :4].copy_(torch.ones(4, 4))
    assert copier.of(case.a, case.b) is None
    settled(copier, case)
    expected = copy(case.a, case.b)
    found = copier.of(case.a, case.b)
    assert bits(expected.a) == bits(found.a)
    assert [bits(each.b) for each in expected.slices] == [bits(each.b) for each in found.slices]


def test_weights_whose_writes_torch_does_not_count_are_never_copied():
    with torch.inference_mode():
        case = make([0], of=2, rank=8)
    copier = Copier()
    settled(copier, case)
    assert copier.of(case.a, case.b) is None


def test_layers_beyond_the_room_go_without_and_room_comes_back():
    first, second = (make([0], of=2, rank=8, seed=seed) for seed in range(2))
    copier = Copier(room=copy(first.a, first.b).bytes)
    settled(copier, first)
    settled(copier, second)
    assert copier.of(first.a, first.b) is not None
    assert copier.of(second.a, second.b) is None
    for weights in (*first.a, *second.a):
        weights[0].zero_()
    assert copier.of(first.a, first.b) is None, "its copies are gone, and their room is free"
    settled(copier, second)
    assert copier.of(second.a, second.b) is not None


def test_a_layer_without_room_is_not_copied_again_at_every_step(monkeypatch):
    case, made = make([0], of=2, rank=8), []
    monkeypatch.setattr("adapters.vllm_plugin.copies.copy", lambda a, b: made.append(1) or copy(a, b))
    copier = Copier(room=0)
    for _ in range(5 * PATIENCE):
        copier.of(case.a, case.b)
    assert [1] == made
