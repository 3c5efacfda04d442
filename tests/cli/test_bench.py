"""`hotswap bench` as people type it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.bench import asked
from tests.conftest import FakeEngine

QUICK = ("--routes", "tiny", "--rate", "20", "--seconds", "1", "--set", "warmup_s=0.2", "--set", "output=4")


def bench(*words: str, cwd: Path, engine: FakeEngine | None = None) -> subprocess.CompletedProcess[str]:
    target = ("--url", engine.url, "--key-env", "THE_KEY") if engine else ()
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "bench", *words, *target],
        cwd=cwd,
        env={**os.environ, "THE_KEY": engine.key if engine else ""},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_run_prints_its_tables_and_keeps_its_folder(fake_engine: FakeEngine, tmp_path: Path) -> None:
    done = bench("run", "steady", *QUICK, "--usd-per-hour", "0.45", cwd=tmp_path, engine=fake_engine)
    assert 0 == done.returncode, done.stderr
    assert "verdict" in done.stdout and "first token" in done.stdout and "The bill by route" in done.stdout
    (folder,) = (tmp_path / "bench").iterdir()
    assert (folder / "report.html").is_file()
    assert "next:" in done.stderr and fake_engine.key not in done.stdout + done.stderr


def test_json_is_the_report_alone_on_stdout(fake_engine: FakeEngine, tmp_path: Path) -> None:
    done = bench("run", "many-short", *QUICK, "--json", cwd=tmp_path, engine=fake_engine)
    assert "ok" == json.loads(done.stdout)["verdict"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("run", "steady", *QUICK, "--threshold", "ttft.p50>0"), 4, "ttft.p50"),
        (("run", "steady", *QUICK, "--threshold", "ttfb.p50>0"), 2, "ttft.p50"),
        (("run", "stedy", *QUICK), 2, "steady"),
        (("run", "steady", *QUICK, "--set", "client.max_opn=4"), 2, "max_open"),
        (("run", "steady", *QUICK, "--api-price", "1"), 2, "IN,OUT"),
        (("run", "engine-killed", *QUICK), 2, "ENGINE_PID"),
        (("run", "steady", "--routes", "nobody", "--rate", "20", "--seconds", "1"), 6, "status_4xx"),
    ],
)
def test_exit_codes_and_messages_say_what_was_wrong(
    fake_engine: FakeEngine, tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    done = bench(*words, cwd=tmp_path, engine=fake_engine)
    assert code == done.returncode, done.stdout + done.stderr
    assert says in done.stdout + done.stderr


def test_a_search_without_an_slo_is_refused(fake_engine: FakeEngine, tmp_path: Path) -> None:
    text = 'name = "bare"\nseconds = 1\narrivals = {kind = "constant", rate = 5}\n'
    (tmp_path / "bare.toml").write_text(text + 'routes = {mix = "weights", weights = {tiny = 1}}\n')
    done = bench("search", "bare.toml", cwd=tmp_path, engine=fake_engine)
    assert (2, True) == (done.returncode, "needs an SLO" in done.stderr)


def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = bench("run", "steady", "--url", "http://127.0.0.1:9", "--key-env", "NO_SUCH_KEY", cwd=tmp_path)
    assert (2, True) == (done.returncode, "NO_SUCH_KEY" in done.stderr)


def test_a_server_that_is_not_there_is_counted_not_raised(tmp_path: Path) -> None:
    done = bench("run", "steady", *QUICK, "--url", "http://127.0.0.1:9", cwd=tmp_path)
    assert (6, True) == (done.returncode, "connect" in done.stdout)


def test_the_same_plan_is_written_byte_for_byte(tmp_path: Path) -> None:
    plans = [tmp_path / "one", tmp_path / "two"]
    digests = [bench("plan", "steady", "--out", str(plan), cwd=tmp_path).stdout for plan in plans]
    assert digests[0] == digests[1] and len(digests[0].strip()) == 64
    assert plans[0].read_bytes() == plans[1].read_bytes()


def test_scenarios_are_listed(tmp_path: Path) -> None:
    listed = {one["name"] for one in json.loads(bench("scenarios", "--json", cwd=tmp_path).stdout)}
    assert {"steady", "storm", "thrash", "fairness", "soak"} <= listed


def test_a_run_compared_with_itself_is_no_different(fake_engine: FakeEngine, tmp_path: Path) -> None:
    bench("run", "steady", *QUICK, "--out", "a", cwd=tmp_path, engine=fake_engine)
    (folder,) = (tmp_path / "a").iterdir()
    done = bench("compare", str(folder), str(folder), "--json", cwd=tmp_path)
    assert 0 == done.returncode, done.stderr
    verdicts = {each["verdict"] for each in json.loads(done.stdout)["differences"]}
    assert "worse" not in verdicts and "better" not in verdicts


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    done = bench("compare", "x", "y", cwd=tmp_path)
    assert (1, True) == (done.returncode, "x holds no run" in done.stderr)


def test_a_search_says_which_rate_holds(fake_engine: FakeEngine, tmp_path: Path) -> None:
    words = ("--routes", "tiny", "--seconds", "0.5", "--set", "warmup_s=0", "--set", "output=4")
    rates = ("--e2e", "5", "--from-rate", "10", "--to-rate", "20")
    done = bench("search", "many-short", *words, *rates, "--json", cwd=tmp_path, engine=fake_engine)
    assert 0 == done.returncode, done.stderr
    assert (20, "ceiling") == (json.loads(done.stdout)["rate"], json.loads(done.stdout)["limit"])
    assert "holds" in done.stderr


def test_missing_plots_are_told_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(asked, "PLOTS", "no_such_package")
    with pytest.raises(SystemExit, match="1"):
        asked.need_plots()
    assert "hotswap[loadtest]" in capsys.readouterr().err
