"""Load by version, sampled and smoothed."""

from __future__ import annotations

import pytest

from gateway.fleet.demand import Demand


def test_load_is_the_mean_of_the_samples_over_all_engines() -> None:
    demand = Demand(keep=0.0)
    demand.sample([{"a": 3}, {"a": 1, "b": 2}])
    demand.sample([{}, {"b": 2}])
    assert {"a": 2.0, "b": 2.0} == demand.close_interval()


def test_old_load_fades_by_half_each_interval_until_it_is_forgotten() -> None:
    demand = Demand(keep=0.5)
    demand.sample([{"a": 8}])
    loads = [demand.close_interval().get("a")]
    for _ in range(12):
        demand.sample([{}])
        loads.append(demand.close_interval().get("a"))
    assert [4.0, 2.0, 1.0] == loads[:3]
    assert loads[-1] is None


def test_an_interval_without_samples_changes_nothing() -> None:
    demand = Demand()
    demand.sample([{"a": 4}])
    before = demand.close_interval()
    assert before == demand.close_interval()
    assert pytest.approx(2.0) == before["a"]
