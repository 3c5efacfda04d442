"""What is counted of an exchange, and how /metrics shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.fleet.events import Kind
from gateway.telemetry import Exchanges, exposition
from gateway.telemetry.exchanges import EVENTS


@dataclass
class Over:
    """An exchange that is over."""

    outcome: str = "complete"
    route: str | None = "support"
    status: int = 200
    streaming: bool = False
    began: float = 100.0
    first: float | None = 100.03
    ended: float | None = 100.3
    pieces: int = 1
    sent_bytes: int = 600
    loaded_s: float | None = None


def shown(exchanges: Exchanges) -> dict[tuple[str, ...], float]:
    """Sample name and label values -> value, as Prometheus's own parser reads it."""
    families = text_string_to_metric_families(exposition(exchanges.tally).decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def count(*ended: Over) -> dict[tuple[str, ...], float]:
    exchanges = Exchanges()
    for exchange in ended:
        exchanges.began()
        exchanges.ended(exchange)
    return shown(exchanges)


def test_an_exchange_is_counted_by_how_it_ended_and_by_status() -> None:
    found = count(
        Over(), Over(status=404), Over(status=503), Over("client_left", status=0), Over("engine_lost")
    )
    ends = {key[1:]: value for key, value in found.items() if key[0] == "hotswap_exchanges_total" and value}
    assert {
        ("complete", "2xx"): 1,
        ("complete", "4xx"): 1,
        ("complete", "5xx"): 1,
        ("client_left", "none"): 1,
        ("engine_lost", "2xx"): 1,
    } == ends


def test_an_exchange_is_in_flight_between_its_beginning_and_its_end() -> None:
    exchanges = Exchanges()
    exchanges.began()
    exchanges.began()
    exchanges.ended(Over())
    assert 1 == shown(exchanges)[("hotswap_exchanges_in_flight",)]


def test_a_duration_falls_into_the_first_bucket_that_holds_it() -> None:
    found = count(Over(ended=100.3), Over(ended=100.0 + 0.32), Over(ended=1000.0))
    name = "gen_ai_server_request_duration_seconds"
    assert (0, 2, 2, 3) == tuple(found[(f"{name}_bucket", le)] for le in ("0.16", "0.32", "81.92", "+Inf"))
    assert (3, 900.62) == (found[(f"{name}_count",)], round(found[(f"{name}_sum",)], 6))


def test_only_streams_have_a_first_token() -> None:
    found = count(Over(), Over(streaming=True))
    name = "gen_ai_server_time_to_first_token_seconds"
    assert (0, 1, 1) == (
        found[(f"{name}_bucket", "0.02")],
        found[(f"{name}_bucket", "0.04")],
        found[(f"{name}_count",)],
    )


@pytest.mark.parametrize("over", [Over(status=429), Over(route=None)], ids=["refused", "no engine's"])
def test_what_no_engine_answered_has_no_duration(over: Over) -> None:
    assert 0 == count(over)[("gen_ai_server_request_duration_seconds_count",)]


def test_cold_starts_pieces_and_bytes_add_up() -> None:
    found = count(Over(loaded_s=0.25), Over(loaded_s=0.5), Over(pieces=7, sent_bytes=1000))
    names = ("cold_starts_total", "cold_start_seconds_total", "answer_pieces_total", "answer_bytes_total")
    assert [2, 0.75, 9, 2200] == [found[(f"hotswap_{name}",)] for name in names]


def test_workers_are_added_up_and_a_restarted_one_goes_on_counting(tmp_path: Path) -> None:
    one, two = Exchanges(tmp_path / "1.tally"), Exchanges(tmp_path / "2.tally")
    for exchanges in (one, two, two):
        exchanges.began()
        exchanges.ended(Over())
    two.began()  # and then it is killed
    again = Exchanges(tmp_path / "2.tally")
    again.began()
    again.ended(Over())
    found = shown(one)
    assert 4 == found[("hotswap_exchanges_total", "complete", "2xx")]
    assert 0 == found[("hotswap_exchanges_in_flight",)]


def test_a_tally_of_another_layout_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "old.tally").write_bytes(b"\0" * 16)
    assert 0 == shown(Exchanges(tmp_path / "1.tally"))[("hotswap_answer_pieces_total",)]


def test_events_of_the_fleet_are_counted_by_kind() -> None:
    exchanges = Exchanges()
    for kind in ("loaded", "loaded", "ejected"):
        exchanges.fleet_event(kind)
    figures = shown(exchanges)
    assert 2 == figures["hotswap_fleet_events_total", "loaded"]
    assert 1 == figures["hotswap_fleet_events_total", "ejected"]


def test_every_kind_of_event_has_a_counter() -> None:
    assert list(Kind) == list(EVENTS)
