import csv
import io

import pytest

from loadtests.figures import count, ms, number, percent, quantiles, usd
from loadtests.sample import Outcome
from loadtests.search import Backlog, Found, Limit, Probe
from loadtests.tables import Table, markdown, tables, terminal, tidy
from tests.loadtests.samples_made import answered, failed, queued, reported

REPORT = reported(queued(1), 40.0)


def titled(report: dict[str, object]) -> dict[str, Table]:
    return {table.title.split(" (")[0]: table for table in tables(report)}


def test_the_headline_comes_first_and_says_the_verdict() -> None:
    headline = tables(reported(queued(1), 40.0, thresholds=["ttft.p99>0.0001"]))[0]
    assert "steady: missed" == headline.title
    assert headline.rows[0][1].startswith("missed: ttft.p99>0.0001: it was")


def test_the_headline_names_the_errors_offered_answered_and_lag() -> None:
    samples = [*(answered(float(i)) for i in range(18)), failed(18.0), failed(19.0, Outcome.RESET)]
    rows = dict(tables(reported(samples, 20.0))[0].rows)
    assert "1 requests/s (20 requests)" == rows["offered"]
    assert "0.9 requests/s, 4.50 output tokens/s" == rows["answered"]
    assert "10.0% (1 status_5xx, 1 reset)" == rows["errors"]
    assert "late by p50 0.20 ms, p99 1.00 ms, max 2.00 ms; 0 sends dropped" == rows["generator"]
    assert "90.0% met it, 99.0% must (TTFT ≤ 200.0 ms); goodput 0.9 requests/s" == rows["SLO"]


def test_the_headline_warns_of_missing_usage_compression_and_cold_starts() -> None:
    samples = [answered(usage_known=False, compressed=True, loaded_s=0.5), answered(1.0)]
    rows = dict(tables(reported(samples, 2.0))[0].rows)
    assert "a lower bound: 50.0% of answers carried no usage; chunks were counted" == rows["tokens"]
    assert "1 streams: this delays their chunks" == rows["compressed"]
    assert "1 waited for an adapter: p50 500.0 ms, max 500.0 ms" == rows["cold starts"]


def test_a_percentile_of_too_few_samples_is_marked_and_the_mark_explained() -> None:
    table = titled(reported([answered(float(i)) for i in range(50)], 50.0))["Latency, ms"]
    assert ("100.0*", True) == (table.rows[0][5], any(note.startswith("* too few") for note in table.notes))


def test_no_mark_no_legend() -> None:
    table = titled(REPORT)["Latency, ms"]
    assert not any("*" in text for row in table.rows for text in (*row, *table.notes))


def test_routes_and_versions_have_rows_and_one_phase_has_none() -> None:
    shown = titled(REPORT)
    assert ["sql", "support"] == [row[0] for row in shown["By route"].rows]
    assert "By phase" not in shown


def test_several_phases_have_rows() -> None:
    samples = [answered(0.0, phase="warmup"), answered(1.0, phase="a"), answered(2.0, phase="b")]
    assert ["a", "b", "warmup"] == [row[0] for row in titled(reported(samples, 2.0))["By phase"].rows]


def test_slow_clients_have_a_table_of_their_own() -> None:
    assert "Slow clients" in titled(reported([answered(), answered(1.0, slow=True)], 2.0))


def test_a_report_without_cost_has_no_bill() -> None:
    assert not [
        title for title in titled(reported(queued(1), 40.0, cost=None)) if "bill" in title or "Cost" in title
    ]


def test_the_bill_by_route_starts_with_the_largest() -> None:
    rows = titled(REPORT)["The bill by route"].rows
    assert [float(row[2][:-1]) for row in rows] == sorted((float(row[2][:-1]) for row in rows), reverse=True)


def test_a_search_shows_its_probes_by_rate_and_what_was_found() -> None:
    probes = [
        Probe(rate, 1.0, Backlog(1, 0, True), False, rate < 3, "why" * (rate > 3)) for rate in (4.0, 2.0)
    ]
    report = reported(queued(1), 40.0, found=Found(2.0, 4.0, Limit.SERVER, tuple(probes)))
    table = next(table for table in tables(report) if table.title.startswith("Highest"))
    assert "Highest rate that holds: 2 requests/s, 4 did not (limit: server)" == table.title
    assert ["2", "4"] == [row[0] for row in table.rows]


def test_the_terminal_aligns_columns() -> None:
    table = Table("T", ("name", "n"), (("a", "1"), ("long", "1,234")), ("note",))
    assert "T\nname      n\na         1\nlong  1,234\n  note\n" == terminal([table])


def test_markdown_is_a_pipe_table_in_which_nothing_breaks_out() -> None:
    table = Table("T", ("name", "n"), (("a|b*", "1\n2"),))
    assert "### T\n\n| name | n |\n| --- | ---: |\n| a\\|b\\* | 1 2 |\n" == markdown([table])


def test_csv_has_one_figure_a_row() -> None:
    rows = list(csv.DictReader(io.StringIO(tidy(REPORT))))
    assert {"group", "name", "phase", "metric", "unit", "value"} == set(rows[0])
    found = {(row["group"], row["name"], row["phase"], row["metric"]): row["value"] for row in rows}
    assert len(rows) == len(found)
    assert str(REPORT["measures"]["all"]["ttft"]["p99"]) == found["all", "", "", "ttft.p99"]
    assert str(REPORT["measures"]["routes"]["sql"]["requests"]) == found["route", "sql", "", "requests"]
    assert ("route_phase", "sql", "run", "e2e.p50") in found
    assert str(REPORT["cost"]["usd_per_mtok"]) == found["all", "", "", "usd_per_mtok"]


def test_csv_leaves_empty_what_has_no_value() -> None:
    rows = list(csv.DictReader(io.StringIO(tidy(reported([failed()], 1.0)))))
    assert [""] == [row["value"] for row in rows if (row["group"], row["metric"]) == ("all", "ttft.p50")]


@pytest.mark.parametrize(
    ("expected", "shown"),
    [
        (["-", "0", "0.0123", "1.23", "12.3", "123", "1,235", "20"],
         [number(v) for v in (None, 0, 0.0123, 1.234, 12.34, 123.4, 1234.6, 20.0)]),
        (["-", "0.20", "12.3", "123.4", "1,234"], [ms(v) for v in (None, 0.0002, 0.0123, 0.1234, 1.2342)]),
        (["-", "0%", "100%", "12.3%", "0.01%", "99.99%", "0.001%", "99.999%"],
         [percent(v) for v in (None, 0.0, 1.0, 0.1234, 0.0001, 0.9999, 0.00001, 0.99999)]),
        (["-", "$0.00", "$0.0123", "$1.23", "$1,234.50"], [usd(v) for v in (None, 0, 0.0123, 1.234, 1234.5)]),
        (["-", "1,234"], [count(v) for v in (None, 1234)]),
    ],
)  # fmt: skip
def test_figures_have_as_many_digits_as_help(expected: list[str], shown: list[str]) -> None:
    assert expected == shown


def test_an_interval_shows_the_side_that_has_no_bound() -> None:
    spread = {
        "n": 200,
        "p99": 0.3,
        "p99_low": 0.2,
        "p99_high": None,
        "p50": 0.1,
        "p50_low": None,
        "p50_high": None,
    }
    assert ("300.0 [200.0, …]", "100.0") == quantiles(spread, ("p99", "p50"))
