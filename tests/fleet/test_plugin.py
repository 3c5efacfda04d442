"""Which engines are good enough."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.fleet.plugin import Listing, Report, degraded, objection
from tests.fleet.stub import report

NEW = {
    "plugin_version": "0.2.0",
    "base_fingerprint": "ab" * 32,
    "max_num_seqs": 128,
    "admission": {"enabled": True, "apart": False},
    "counters": {"disk_loads": 3, "activations": 5, "evictions": 1, "not_now": 7},
    "routes": ["adapters", "pin"],
}
APART = {
    "lora_kernel": "stock",
    "prompt_logprobs_fixed": False,
    "self_test": {"passed": False, "details": "vLLM 9.9.9 is not one that is known here"},
    "admission": {"enabled": True, "apart": True},
}


def read(**changes: Any) -> Report:
    """Of a plugin before 0.2, with `changes`."""
    older = {name: value for name, value in report().items() if name not in NEW}
    return Report.read(older | {"plugin_version": "0.1.0"} | changes)


def test_a_sound_cpu_engine_may_serve() -> None:
    assert objection(Report.read(report())) is None


def test_an_engine_without_the_plugin_may_not() -> None:
    assert "our plugin does not answer there" in (objection(None) or "")


def test_a_cpu_engine_with_vllms_own_kernel_may_not() -> None:
    assert "mixes adapters into base answers" in (objection(Report.read(report(lora_kernel="stock"))) or "")


def test_a_gpu_engine_with_vllms_own_kernel_may() -> None:
    assert objection(Report.read(report(device="cuda", lora_kernel="stock"))) is None


def test_an_engine_whose_self_test_failed_may_not_and_the_details_are_told() -> None:
    failed = report(self_test={"passed": False, "details": "row 3 differs"})
    assert "row 3 differs" in (objection(Report.read(failed)) or "")


def test_prompt_logprobs_are_unsafe_on_a_cpu_without_the_fix() -> None:
    assert not Report.read(report(prompt_logprobs_fixed=False)).prompt_logprobs_safe


def test_a_self_test_passes_only_by_saying_true() -> None:
    assert not Report.read(report(self_test={"passed": "yes"})).self_test_passed


def test_a_report_without_a_boot_id_is_not_one() -> None:
    body = report()
    del body["boot_id"]
    with pytest.raises(ValueError, match="boot_id"):
        Report.read(body)


def test_residents_are_read_with_their_slots() -> None:
    body = report(resident=[{"name": "a@1", "slot": 2}, {"name": "b@2", "slot": None}])
    assert {"a@1": 2, "b@2": None} == Report.read(body).resident


def test_the_fields_of_a_newer_plugin_are_read() -> None:
    told = read(**NEW)
    assert ("ab" * 32, 128, True, False) == (
        told.base_fingerprint,
        told.max_num_seqs,
        told.admission,
        told.apart,
    )
    assert NEW["counters"] == told.counters
    assert frozenset({"adapters", "pin"}) == told.routes


def test_an_older_plugin_without_them_is_read_too() -> None:
    told = read()
    assert (None, None, False, False, None, frozenset()) == (
        told.base_fingerprint,
        told.max_num_seqs,
        told.admission,
        told.apart,
        told.counters,
        told.routes,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_num_seqs": "many"},
        {"max_num_seqs": True},
        {"loras": {"max_loras": 1.5}},
        {"counters": {"disk_loads": "x"}},
        {"counters": [1]},
        {"admission": "on"},
        {"self_test": None},
        {"resident": [{"slot": 1}]},
    ],
    ids=str,
)
def test_a_report_with_a_field_of_another_kind_is_not_one(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the plugin's report is not one"):
        read(**NEW | wrong)


def test_an_engine_of_another_base_may_not_serve_and_both_fingerprints_are_told() -> None:
    problem = objection(read(**NEW), "cd" * 32) or ""
    assert "it serves another base" in problem
    assert ("ab" * 6 in problem, "cd" * 6 in problem) == (True, True)


def test_an_engine_of_the_same_base_may_serve() -> None:
    assert objection(read(**NEW), "ab" * 32) is None


@pytest.mark.parametrize(("theirs", "ours"), [(None, "ab" * 32), ("ab" * 32, None)])
def test_a_fingerprint_that_one_side_does_not_know_is_not_compared(theirs: Any, ours: Any) -> None:
    assert objection(read(**NEW | {"base_fingerprint": theirs}), ours) is None


def test_a_stock_kernel_that_is_kept_apart_may_serve_and_the_reason_is_told() -> None:
    told = read(**NEW | APART)
    assert objection(told) is None
    assert "'stock'" in (degraded(told) or "") and "vLLM 9.9.9 is not one" in (degraded(told) or "")


def test_a_stock_kernel_of_another_base_that_is_kept_apart_may_not() -> None:
    assert "another base" in (objection(read(**NEW | APART), "cd" * 32) or "")


def test_a_stock_kernel_with_admission_switched_off_may_not_serve() -> None:
    off = read(**NEW | APART | {"admission": {"enabled": False, "apart": True}})
    assert "mixes adapters into base answers" in (objection(off) or "")


def test_a_failed_self_test_on_a_gpu_is_still_an_objection() -> None:
    assert "self-test failed" in (objection(read(**NEW | APART | {"device": "cuda"})) or "")


def test_a_sound_engine_is_not_degraded() -> None:
    assert degraded(read(**NEW)) is None


def test_an_engine_without_the_plugin_or_with_an_old_one_is_degraded() -> None:
    assert "our plugin does not answer" in (degraded(None) or "")
    assert "version 0.1.0, without adapter routes" in (degraded(read()) or "")


def test_an_engine_of_an_untested_vllm_is_degraded() -> None:
    told = read(**NEW | {"device": "cuda", "lora_kernel": "stock", "vllm_version": "0.41.0"})
    assert objection(told) is None
    assert "vLLM 0.41.0" in (degraded(told) or "")


LISTING = {
    "boot_id": "b",
    "max_loras": 2,
    "max_cpu_loras": 4,
    "adapters": [
        {
            "name": "a@1",
            "slot": None,
            "pinned": False,
            "rank": 8,
            "bytes": 9,
            "last_used_s": None,
            "in_flight": 0,
        }
    ],
    "counters": {"disk_loads": 1},
}


def test_a_listing_is_read() -> None:
    told = Listing.read(LISTING)
    assert ("b", 2, 4, {"disk_loads": 1}) == (
        told.boot_id,
        told.max_loras,
        told.max_cpu_loras,
        told.counters,
    )
    (only,) = told.adapters
    assert ("a@1", None, False, None) == (only.name, only.slot, only.pinned, only.last_used_s)


@pytest.mark.parametrize(
    "wrong",
    [
        {"adapters": None},
        {"adapters": [{}]},
        {"counters": None},
        {"max_loras": "x"},
        {"counters": {"a": "x"}},
    ],
    ids=str,
)
def test_something_else_is_no_listing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="this is no list of adapters"):
        Listing.read(LISTING | wrong)
