"""Which engines are good enough."""

from __future__ import annotations

import pytest

from gateway.fleet.plugin import Report, objection
from tests.fleet.stub import report


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
