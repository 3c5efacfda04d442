"""kill -9 of every part, and of everything at once: it comes back, complete, with nothing left over."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx
import psutil

from tests.house import House, wait_for
from tests.proofs.adapters import variants
from tests.proofs.result import Result, median
from tests.proofs.swap import house_base

ADAPTERS, ENGINE_KILLS, GATEWAY_KILLS, POSTGRES_KILLS, EVERYTHING_KILLS = 20, 3, 3, 100, 3


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "kills",
        f"Real vLLM and Postgres, {ADAPTERS} adapters. After each kill -9 every one of them must answer.",
    )
    house = House(folder / "house", base)
    with house:
        paths = variants(base, folder / "variants", ADAPTERS)
        names = [house.add(f"adapter-{number}", path)["name"] for number, path in enumerate(paths)]
        _all_answer(house, names)
        _engine(house, names, result)
        _postgres(house, names, result)
        _gateway(house, names, result)
        _everything(house, names, result)
    return result


def _engine(house: House, names: list[str], result: Result) -> None:
    outages, statuses = [], []
    for _ in range(ENGINE_KILLS):
        psutil.Process(house.fleet()[0]["pid"]).kill()
        began = time.monotonic()
        while (status := _answer(house, names[0])) != 200:
            statuses.append(status)
            assert time.monotonic() - began < 240, "the engine has not come back"
            time.sleep(0.2)
        outages.append(time.monotonic() - began)
        statuses += [status for status in _all_answer(house, names) if status != 200]
    result.figure("engine back after", f"median {median(outages):.0f} s of {ENGINE_KILLS}")
    result.must(
        "engine killed: requests meanwhile get 503 + Retry-After, then every adapter answers, none 404",
        bool(statuses) and set(statuses) == {503},
        f"{ENGINE_KILLS} kills: {len(statuses)} answers meanwhile, all {sorted(set(statuses))}; "
        f"then {ENGINE_KILLS * len(names)} of {ENGINE_KILLS * len(names)} adapters answered 200",
    )


def _postgres(house: House, names: list[str], result: Result) -> None:
    failed = 0
    backs = []
    for number in range(POSTGRES_KILLS):
        [postmaster] = [p for p in house.processes() if _is_postmaster(p)]
        postmaster.kill()
        began = time.monotonic()
        failed += _answer(house, names[number % len(names)]) != 200
        wait_for("the control plane answers again", lambda: _control(house) == 200, 60)
        backs.append(time.monotonic() - began)
    result.must(
        "Postgres killed: /v1 goes on answering, the control plane comes back",
        failed == 0,
        f"{POSTGRES_KILLS} kills: {failed} failed requests, control plane back after median "
        f"{median(backs):.2f} s, max {max(backs):.2f} s",
    )


def _gateway(house: House, names: list[str], result: Result) -> None:
    times = [_up_again(house, names, everything=False) for _ in range(GATEWAY_KILLS)]
    result.must(
        "gateway killed: `hotswap up` again works, nothing left running from before",
        True,
        f"{GATEWAY_KILLS} kills: ready again after median {median(times):.0f} s, 0 processes left over",
    )


def _everything(house: House, names: list[str], result: Result) -> None:
    times = [_up_again(house, names, everything=True) for _ in range(EVERYTHING_KILLS)]
    result.must(
        "everything killed at once: `hotswap up` again works, nothing left, every adapter answers",
        True,
        f"{EVERYTHING_KILLS} kills: ready again after median {median(times):.0f} s, 0 processes left over",
    )


def _up_again(house: House, names: list[str], everything: bool) -> float:
    """Kills the gateway, or it and all it had started, and starts again: seconds until ready.

    Raises `AssertionError` when a process from before still runs or an adapter does not answer.
    """
    before = house.processes()
    for process in before if everything else before[:1]:
        if process.is_running():
            process.send_signal(signal.SIGKILL)
    assert house.process is not None
    house.process.wait(10)
    took = house.start()
    left = [process for process in before if _runs(process)]
    assert not left, f"left from before the kill: {left}"
    _all_answer(house, names)
    return took


def _answer(house: House, model: str) -> int:
    """The status of one short request. A 503 without Retry-After counts as status 0."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    answer = httpx.post(house.url + "/v1/chat/completions", json=body, headers=house.headers, timeout=120)
    if answer.status_code == 503 and not answer.headers.get("retry-after", "").isdigit():
        return 0
    return answer.status_code


def _all_answer(house: House, names: list[str]) -> list[int]:
    statuses = [_answer(house, name) for name in [*names, house_base(house)]]
    assert set(statuses) == {200}, statuses
    return statuses


def _control(house: House) -> int:
    return httpx.get(house.url + "/admin/v1/adapters", headers=house.headers, timeout=30).status_code


def _is_postmaster(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return bool(words) and words[0].endswith("/bin/postgres") and "-D" in words


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
