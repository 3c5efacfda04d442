import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from loadtests.faults import Event
from loadtests.page import page
from loadtests.plots import plots
from loadtests.sample import Outcome
from loadtests.search import Backlog, Search, search
from loadtests.search import Probe as Probed
from tests.loadtests.samples_made import answered, failed, queued, reported

KILLED = {"name": "killed", "says": "", "seed": 1, "warmup_s": 2.0}


def probe(rate: float) -> Probed:
    share = min(1.0, 100 / rate)
    return Probed(rate, share, Backlog(1, 0, True), False, share >= 0.99, figures={"ttft_p99": rate / 1000})


@pytest.fixture(scope="module")
def full() -> str:
    return page(reported(queued(1), 40.0, scenario=KILLED, found=search(probe, Search())))


class _Tags(HTMLParser):
    """Which elements are open, and whether each is closed in its turn."""

    EMPTY = ("meta", "br", "path", "use", "rect", "image")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


def test_every_element_is_closed(full: str) -> None:
    tags = _Tags()
    tags.feed(full)
    assert ([], []) == (tags.open, tags.wrong)


def test_the_page_needs_nothing_from_elsewhere(full: str) -> None:
    assert [] == re.findall(r"<script|<link|<iframe|@import|url\((?!#)|src=|href=\"(?!#)", full)


def test_it_says_the_verdict_the_command_and_how_to_read_it(full: str) -> None:
    assert "<strong>Verdict:</strong> ok." in full
    assert "<code>hotswap bench run steady</code>" in full
    assert "How to read this" in full


def test_every_plot_has_words_for_those_who_cannot_see_it(full: str) -> None:
    assert full.count("<svg") == full.count('role="img" aria-label="') == 7


def test_the_plots_are_in_the_order_of_what_matters() -> None:
    report = reported(queued(1), 40.0, found=search(probe, Search()))
    assert [
        "The knee: what each rate came to",
        "Time to first token, by percentile",
        "Whole answer, by percentile",
        "Time to first token, over time",
        "Load, over time",
        "Time to first token, by route",
        "Between chunks, by percentile",
    ] == [plot.title for plot in plots(report)]


def test_each_plot_is_well_formed_svg_of_text_not_outlines() -> None:
    for plot in plots(reported(queued(1), 40.0)):
        root = ET.fromstring(plot.svg)
        texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert texts, plot.title


def test_faults_and_warm_up_are_marked() -> None:
    events = [Event(5.0, "kill", "ENGINE_PID", 4711), Event(6.0, "stop", "ENGINE_PID", None, "no process")]
    report = reported(queued(1), 40.0, scenario=KILLED, events=events)
    (plot,) = (p for p in plots(report) if p.title.endswith("token, over time"))
    assert ">kill</text>" in plot.svg
    assert ">stop</text>" not in plot.svg
    assert "no process" in page(report)


def test_no_label_is_markup_that_nobody_renders() -> None:
    drawn = plots(reported(queued(1), 40.0, scenario=KILLED, found=search(probe, Search())))
    assert [] == [plot.title for plot in drawn if "mathdefault" in plot.svg]


def test_the_same_report_makes_the_same_page() -> None:
    report = reported(queued(1, n=200), 4.0)
    assert page(report) == page(report)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [failed()],
        [failed(outcome=Outcome.DROPPED, sent=None)],
        [answered()],
        [answered(arrivals=(), first=None)],
        [answered(slow=True)],
    ],
    ids=["none", "an error", "a drop", "one", "a whole answer", "a slow client"],
)
def test_a_run_of_almost_nothing_has_a_page(samples: list[object]) -> None:
    assert "Verdict" in page(reported(samples, 1.0))  # type: ignore[arg-type]


def test_names_that_look_like_html_are_text() -> None:
    nasty = '<script>alert("x")</script> & $\\frac{1}$ _{'
    samples = [answered(float(i), route=(nasty, "b")[i % 2], version=nasty, phase=nasty) for i in range(10)]
    shown = page(reported(samples, 10.0, scenario={**KILLED, "name": nasty, "says": nasty}))
    assert "<script" not in shown
    tags = _Tags()
    tags.feed(shown)
    assert ([], []) == (tags.open, tags.wrong)
