"""The results as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from loadtests.tables import Table

Row = tuple[str, ...]
SHOWN = ("round robin", "homes", "homes, spill")


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Of what `results` holds: `spread` by exponents, `fleet` by groups of scenes."""
    shown = list(_spread(results["spread"])) if "spread" in results else []
    return shown + (list(_fleet(results["fleet"])) if "fleet" in results else [])


def popularity(exponent: float) -> str:
    return "uniform" if not exponent else f"Zipf({exponent:.1f})"


def times_n(events: Sequence[Mapping[str, Any]], kind: str) -> list[float]:
    """What moved at each event of this kind, as a multiple of 1/N of all placements."""
    return [each["moved"] * each["engines"] for each in events if each["kind"] == kind]


def _spread(studies: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    asked = studies[0]["asked"]
    size = f"{asked['engines']:,} engines, {asked['versions']:,} versions"
    yield Table(
        f"Load, by known demand: {size}",
        ("popularity", "worst load", "least", "placements", "spread", "most homes", "not at first choice"),
        tuple(_loads(study) for study in studies),
    )
    yield Table(
        "Moved when one engine joins or leaves, as a multiple of 1/N of all placements",
        ("popularity", "join: mean", "worst", "leave: mean", "worst", "parts from new: homes", "requests"),
        tuple(_moves(study) for study in studies),
    )
    yield Table(
        "Two gateways that see different samples",
        (
            "popularity",
            "seen per engine",
            "first home",
            "any home",
            "requests",
            "worst load",
            "of all together",
        ),
        tuple(_replicas(study, each) for study in studies for each in study["replicas"]),
    )
    yield Table(
        "One gateway, half of whose sample is new each time: placements that move",
        ("popularity", "seen per engine", "moved", "without memory", "parts from new: homes", "requests"),
        tuple(_calm(study, each) for study in studies for each in study["calm"]),
    )


def _loads(study: Mapping[str, Any]) -> Row:
    return (
        popularity(study["asked"]["exponent"]),
        f"{max(study['loads']):.3f}",
        f"{min(study['loads']):.2f}",
        f"{study['placements']:,}",
        f"{study['spread_versions']:,}",
        f"{study['most_homes']:,}",
        f"{study['not_at_first_choice']:.2%}",
    )


def _moves(study: Mapping[str, Any]) -> Row:
    joins, leaves = times_n(study["events"], "join"), times_n(study["events"], "leave")
    return (
        popularity(study["asked"]["exponent"]),
        f"{mean(joins):.2f}",
        f"{max(joins):.2f}",
        f"{mean(leaves):.2f}",
        f"{max(leaves):.2f}",
        f"{study['after_all']['any']:.2%}",
        f"{study['after_all']['requests']:.1%}",
    )


def _replicas(study: Mapping[str, Any], replicas: Mapping[str, Any]) -> Row:
    return (
        popularity(study["asked"]["exponent"]),
        f"{replicas['seen_per_engine']:,}",
        f"{replicas['first']:.2%}",
        f"{replicas['any']:.2%}",
        f"{replicas['requests']:.1%}",
        f"{replicas['worst_load_of_one']:.2f}",
        f"{replicas['worst_load_together']:.2f}",
    )


def _calm(study: Mapping[str, Any], calm: Mapping[str, Any]) -> Row:
    return (
        popularity(study["asked"]["exponent"]),
        f"{calm['seen_per_engine']:,}",
        f"{calm['moved_a_window']:.3%}",
        f"{calm['moved_without_memory']:.3%}",
        f"{calm['parts_from_a_new_gateway']['any']:.2%}",
        f"{calm['parts_from_a_new_gateway']['requests']:.1%}",
    )


def _fleet(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Table]:
    header = ("popularity", "clients", "slots", "cache", "tok/s", *SHOWN[1:], "queue alone")
    figures = ("loads a request", "activations", "TTFT p99, s", "over that with room for all")
    for name, title in (
        ("two engines", "2 engines of a CPU's proportions, 64 versions"),
        ("sixteen engines", "16 engines of a GPU's proportions, 1,000 versions"),
    ):
        rows = tuple(_scene(each) for each in groups[name])
        yield Table(title, (*header, *figures), rows, (f"a / b / c: {', '.join(SHOWN)}",))
    yield Table(
        "16 engines with 16 slots, Zipf(1.0): tok/s over round robin",
        ("tokens an answer", "a load takes", *SHOWN[1:], "stalled by loads: round robin", "homes"),
        tuple(_swept(each) for each in groups["sweep"]),
    )


def _scene(result: Mapping[str, Any]) -> Row:
    scene, ways = result["scene"], result["ways"]

    def three(key: str, digits: int) -> str:
        return " / ".join(f"{ways[way][key]:.{digits}f}" for way in SHOWN)

    return (
        popularity(scene["exponent"]),
        f"{scene['clients']}",
        f"{scene['proportions']['max_loras']}",
        f"{scene['proportions']['max_cpu_loras']}",
        f"{ways['round robin']['tokens_per_s']:,.0f}",
        *(f"{ways[way]['speed']:.2f}" for way in (*SHOWN[1:], "round robin, turns")),
        three("loads_per_request", 3),
        three("activations_per_request", 2),
        three("ttft_p99_s", 2),
        three("ttft_p99_over_roomy", 1),
    )


def _swept(result: Mapping[str, Any]) -> Row:
    scene, ways = result["scene"], result["ways"]
    return (
        f"{scene['tokens']}",
        f"{scene['proportions']['load_s'] * 1e3:.0f} ms",
        f"{ways['homes']['speed']:.2f}",
        f"{ways['homes, spill']['speed']:.2f}",
        f"{ways['round robin']['stalled']:.1%}",
        f"{ways['homes']['stalled']:.1%}",
    )
