from pathlib import Path

import pytest

from loadtests.sample import Outcome
from loadtests.samples import SamplesError, read_samples, save_samples
from tests.loadtests.samples_made import answered, failed


def test_samples_are_read_as_they_were_saved(tmp_path: Path) -> None:
    samples = [
        answered(
            0.5, 0, session="s1", turn=2, loaded_s=0.25, finish_reason="stop", cached_tokens=3, slow=True
        ),
        failed(1.25, Outcome.RATE_LIMITED, status=429, detail='said "no"\nthen ended, ü'),
        failed(2.0, Outcome.DROPPED, sent=None),
    ]
    save_samples(tmp_path / "samples.jsonl", samples)
    read = read_samples(tmp_path / "samples.jsonl")
    assert [s.outcome for s in samples] == [s.outcome for s in read]
    assert samples[1:] == read[1:]
    assert samples[0].arrivals == pytest.approx(read[0].arrivals)
    assert (samples[0].session, samples[0].turn, samples[0].slow) == (
        read[0].session,
        read[0].turn,
        read[0].slow,
    )


def test_times_are_rounded_to_the_microsecond(tmp_path: Path) -> None:
    save_samples(tmp_path / "samples.jsonl", [answered(1.00000049, arrivals=(1.1234567, 1.2345678))])
    (read,) = read_samples(tmp_path / "samples.jsonl")
    assert (1.0, (1.123457, 1.234568)) == (read.at, read.arrivals)


def test_defaults_take_no_room(tmp_path: Path) -> None:
    save_samples(tmp_path / "samples.jsonl", [failed(0.0, Outcome.CONNECT, sent=None)])
    line = '{"index":0,"at":0.0,"route":"support","phase":"run","outcome":"connect"}\n'
    assert line == (tmp_path / "samples.jsonl").read_text()


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    save_samples(file, [answered(), answered(1.0)])
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(SamplesError, match=r"samples\.jsonl, line 2: not a sample"):
        read_samples(file)
