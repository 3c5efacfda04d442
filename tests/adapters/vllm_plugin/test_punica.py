"""The wrapper that vLLM gets: its self-test, run in the worker, sees what could go wrong with copies."""

from __future__ import annotations

import vllm

from adapters.vllm_plugin.copies import Copier, copy
from adapters.vllm_plugin.punica import GroupedPunica
from adapters.vllm_plugin.selftest import check


def wrapper(copier: type[Copier]) -> type[GroupedPunica]:
    class Other(GroupedPunica):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._copier = copier()

    return Other


def test_copies_that_outlive_an_adapters_change_fail_the_self_test():
    class Stale(Copier):
        first = None

        def of(self, a, b):
            self.first = self.first or copy(a, b)
            return self.first

    assert "is off by" in check(wrapper(Stale), vllm.__version__).details


def test_copies_with_too_small_a_rank_fail_the_self_test(monkeypatch):
    monkeypatch.setattr("adapters.vllm_plugin.copies.real_rank", lambda a: 7)
    assert "is off by" in check(GroupedPunica, vllm.__version__).details


def test_without_copies_the_self_test_passes_too():
    class Never(Copier):
        def of(self, a, b):
            return None

    assert check(wrapper(Never), vllm.__version__).passed
