"""presidio in earnest: its recognizers on a blank pipeline, and names by a pipeline from a folder."""

from __future__ import annotations

import logging
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import presidio_analyzer.pattern_recognizer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from presidio_analyzer import Pattern, PatternRecognizer

from gateway.traffic.presidio import PIECE, Found, Presidio, pieces
from gateway.traffic.second import Examining, Unexamined
from tests.traffic.pipelines import pipeline
from tests.traffic.redact.lookalikes import LOOKALIKES

SSN = "219-09-9999"


@pytest.fixture(scope="module")
def patterns() -> Presidio:
    return Presidio(Examining())


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Presidio:
    return Presidio(Examining(models={"en": pipeline(tmp_path_factory.mktemp("pipeline"))}))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"My SSN is {SSN}.", "My SSN is [US_SSN]."),
        ("passport number 912803456, please", "passport number [US_PASSPORT], please"),
        ("my insurance number: AB123456C", "my insurance number: [UK_NINO]"),
        ("driver license is H12234567", "driver license is [US_DRIVER_LICENSE]"),
        ("order 912803456 is late", "order 912803456 is late"),
        ("Alice Johnson is late", "Alice Johnson is late"),
        ("", ""),
        (" \n…", " \n…"),
    ],
)
def test_a_blank_pipeline_finds_patterns_and_what_the_words_around_them_tell(
    patterns: Presidio, text: str, clean: str
) -> None:
    assert clean == patterns.rewrite(text)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Alice Johnson lives in Springfield.", "[PERSON] lives in Springfield."),
        ("for ten dollars, Zoë Garcia", "for ten dollars, [PERSON]"),
        (f"Bob Miller: SSN {SSN}", "[PERSON]: SSN [US_SSN]"),
    ],
)
def test_a_pipeline_from_a_folder_finds_names(names: Presidio, text: str, clean: str) -> None:
    assert clean == names.rewrite(text)


def test_other_entities_of_a_pipeline_are_taken_out_when_they_are_wanted(tmp_path: Path) -> None:
    wanted = Examining(models={"en": pipeline(tmp_path)}, entities=("LOCATION",))
    text = f"Alice Johnson, {SSN}, lives in Springfield."
    assert f"Alice Johnson, {SSN}, lives in [LOCATION]." == Presidio(wanted).rewrite(text)


def test_a_short_texts_member_says_what_it_is(patterns: Presidio) -> None:
    assert "[US_PASSPORT]" == patterns.rewrite("912803456", "passport_number")
    for name in ("order_number", "content", "text", "description", "arguments", "value", "prompt", "stop"):
        assert "912803456" == patterns.rewrite("912803456", name)


@pytest.mark.parametrize(
    "text", ["[EMAIL] and [TOO DEEP]", "[PERSON]", "Alice Johnson [CARD]", f"{SSN} [US_SSN]"]
)
def test_what_was_replaced_is_not_replaced_again(names: Presidio, text: str) -> None:
    once = names.rewrite(text)
    assert once == names.rewrite(once)
    assert [each for each in ("[EMAIL]", "[CARD]", "[TOO DEEP]") if each in text] == [
        each for each in ("[EMAIL]", "[CARD]", "[TOO DEEP]") if each in once
    ]


def test_a_placeholder_within_a_match_stays(patterns: Presidio, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Alice [EMAIL] Johnson"
    monkeypatch.setattr(patterns, "_found", lambda *_: (Found(0, len(text), "US_SSN", 1.0),))
    assert "[US_SSN] [EMAIL] [US_SSN]" == patterns.rewrite(text)


def test_matches_that_overlap_become_one_of_the_surest_kind(
    patterns: Presidio, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = (Found(0, 5, "US_ITIN", 0.5), Found(3, 9, "US_SSN", 0.8), Found(9, 10, "US_ITIN", 0.5))
    monkeypatch.setattr(patterns, "_found", lambda *_: found)
    assert "[US_SSN][US_ITIN]." == patterns.rewrite("012345678x.")


@pytest.mark.parametrize("space", [" ", ""])
def test_nothing_is_lost_where_a_long_text_is_cut(names: Presidio, space: str) -> None:
    filler = ("lorem" + space) * (3 * PIECE // 5)
    for at in range(PIECE - 60, PIECE + 20, 3):
        text = f"{filler[:at]} SSN {SSN} Alice Johnson {filler}"
        assert f"{filler[:at]} SSN [US_SSN] [PERSON] {filler}" == names.rewrite(text)


@given(st.text(alphabet="ab \n", max_size=3 * PIECE), st.integers(0, 3))
def test_pieces_cover_a_text_in_order_and_none_is_long(text: str, times: int) -> None:
    whole = text * (times + 1)
    cut = list(pieces(whole))
    assert (0, len(whole)) == (cut[0][0], cut[-1][1])
    assert all(end - start <= PIECE for start, end in cut)
    assert all(before[0] < after[0] <= before[1] < after[1] for before, after in pairwise(cut))


def test_what_only_looks_like_personal_data_mostly_stays(patterns: Presidio) -> None:
    dice = random.Random(7)
    texts = [make(dice) for make in LOOKALIKES for _ in range(20)]
    wrong = [text for text in texts if patterns.rewrite(text) != text]
    assert len(wrong) <= 0.01 * len(texts), wrong


def test_several_languages_look_at_each_text() -> None:
    both = Presidio(Examining(languages=("en", "de")))
    assert "SSN [US_SSN], Steuer-ID [DE_TAX_ID]" == both.rewrite(f"SSN {SSN}, Steuer-ID 86095742719")


def test_a_higher_score_leaves_what_is_less_sure() -> None:
    sure = Presidio(Examining(score=0.9))
    assert "passport number 912803456" == sure.rewrite("passport number 912803456")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Examining(entities=("PERSON",)), "nothing here finds 'PERSON'.*spaCy pipeline.*US_SSN"),
        (Examining(entities=("US_SNN",)), "nothing here finds 'US_SNN'"),
        (Examining(entities=("EMAIL_ADDRESS",)), "EMAIL_ADDRESS is not for here: the first tier"),
        (Examining(languages=("qq",)), "no language 'qq'"),
        (Examining(languages=("fr",)), "nothing is looked for; name `entities`"),
    ],
)
def test_what_cannot_be_looked_for_is_told(wanted: Examining, words: str) -> None:
    with pytest.raises(Unexamined, match=words):
        Presidio(wanted)


def test_a_pipeline_of_another_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unexamined, match=r"models.en = .* is a pipeline for 'de'"):
        Presidio(Examining(models={"en": pipeline(tmp_path, "de")}))


def test_a_pattern_that_takes_too_long_is_an_error_and_not_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(presidio_analyzer.pattern_recognizer, "REGEX_TIMEOUT_SECONDS", 0.05)
    slow = Presidio(Examining())
    endless = PatternRecognizer("US_SSN", patterns=[Pattern("endless", r"(?:x|xx)+\d", 0.9)])
    slow._analyzer.registry.add_recognizer(endless)
    for _ in range(2):  # it is not remembered as a text without anything
        with pytest.raises(TimeoutError, match="too long"):
            slow.rewrite("x" * 60)
    assert "[US_SSN]" == slow.rewrite(SSN)
    assert "xxx" not in caplog.text


def test_words_are_not_remembered(names: Presidio) -> None:
    """A pipeline keeps every word that it sees, unless it is told not to: in weeks, all memory."""
    (english,) = names._pipelines.values()
    names.rewrite("Ada said nothing that is new.")
    before = len(english.vocab.strings), len(list(english.vocab))
    for number in range(20):
        names.rewrite(f"Ada said zq{number}x and vv{number}w.")
    assert before == (len(english.vocab.strings), len(list(english.vocab)))


def test_a_text_that_comes_again_is_not_looked_at_again(
    patterns: Presidio, monkeypatch: pytest.MonkeyPatch
) -> None:
    patterns.rewrite(f"You help people. SSN {SSN}")

    def analyze(*_: Any, **__: Any) -> Any:
        raise AssertionError("looked at again")

    monkeypatch.setattr(patterns._analyzer, "analyze", analyze)
    assert "You help people. SSN [US_SSN]" == patterns.rewrite(f"You help people. SSN {SSN}")


def test_its_own_log_is_quiet(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """It would tell of every recognizer that it loads, and of every label that it does not know."""
    logging.getLogger("presidio-analyzer").setLevel(logging.NOTSET)
    with caplog.at_level(logging.INFO):
        Presidio(Examining(models={"en": pipeline(tmp_path)})).rewrite("for ten dollars")
    assert {"hotswap.traffic"} == {each.name for each in caplog.records}
    assert "the second tier looks for en: PERSON" in caplog.text
