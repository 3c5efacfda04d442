"""kill -9 of the gateway under load, at random moments: what was answered is in the lake, once."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import openai
from sqlalchemy import URL, create_engine, make_url

from gateway.traffic.lake import Lake
from gateway.traffic.rollup import Rollups
from gateway.traffic.ship import DATABASE_URL
from tests.conftest import TINY
from tests.fakes import Fake, before
from tests.house import House, wait_for
from tests.proofs.result import Result

KILLS = int(os.environ.get("REMEMBERED_KILLS", "200"))
CLIENTS, SEED = 4, 1
LONGEST_S = 2.0
"""Of load before a kill; each is at a random moment of it."""
SAFE_S = 0.1
SETTINGS = {"HOTSWAP_TRAFFIC__SEGMENT_AGE_S": "0.5", "HOTSWAP_TRAFFIC__SHIP_EVERY_S": "0.3"}


class Load:
    """Clients that ask again as soon as they were answered, every second one for a stream. `answered` has the
    ids of whole answers, with the time at which the last byte was there."""

    def __init__(self) -> None:
        self.answered: list[tuple[float, str]] = []
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, house: House) -> None:
        self._over.clear()
        self._threads = [threading.Thread(target=self._ask, args=(house, at)) for at in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, house: House, number: int) -> None:
        asked: dict[str, Any] = {
            "model": "tiny",
            "messages": [{"role": "user", "content": f"client {number}"}],
            "max_tokens": 4,
            "stream": bool(number % 2),
        }
        with openai.OpenAI(base_url=f"{house.url}/v1", api_key=house.key, max_retries=0) as sdk:
            while not self._over.is_set():
                try:
                    answer = sdk.chat.completions.create(**asked)
                    id = [chunk.id for chunk in answer][-1] if asked["stream"] else answer.id
                except (openai.OpenAIError, IndexError):
                    return  # it was killed
                self.answered.append((time.monotonic(), id.removeprefix("chatcmpl-")))


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "remembered",
        f"The whole product before a fake engine, {CLIENTS} clients of the openai SDK, every second one "
        f"streaming. The gateway is killed (kill -9) {KILLS} times at random moments (seed {SEED}) and "
        "started again; its shipper dies with it. What counts are answers whose last byte had come to the "
        f"client more than {SAFE_S * 1000:.0f} ms before a kill.",
    )
    tiny, chance, load = folder / "tiny", random.Random(SEED), Load()
    tiny.mkdir(parents=True, exist_ok=True)
    TINY.write(tiny)
    safe: list[str] = []
    with Fake(token_delay_ms=2) as fake:
        house = House(folder / "house", tiny, before([fake], **SETTINGS))
        for number in range(KILLS):
            house.start()
            wait_for("it serves", lambda: ["serving"] == [each["status"] for each in house.fleet()])
            load.answered.clear()
            load.start(house)
            time.sleep(chance.uniform(0.2, LONGEST_S))
            killed = time.monotonic()
            house.kill()
            load.stop()
            safe += [id for at, id in load.answered if at < killed - SAFE_S]
            if number % 20 == 19:
                print(f"  {number + 1} kills, {len(safe):,} answers", flush=True)
        house.start()
        lake = Lake(str(house.state / "lake"))
        wait_for("the journal is empty", lambda: not list((house.state / "journal").glob("*/*.segment")), 120)
        rows = lake.query("SELECT id, count(*) AS n FROM lake GROUP BY id").read_all()
        counts = dict(zip(rows.column("id").to_pylist(), rows.column("n").to_pylist(), strict=True))
        sums = lake.query(
            "SELECT count(*) AS n, coalesce(sum(prompt), 0) AS p, coalesce(sum(completion), 0) AS c FROM lake"
        ).read_all()
        lakes = tuple(int(sums.column(name).to_pylist()[0]) for name in ("n", "p", "c"))
        engine = create_engine(_database_of(house))
        total = Rollups(engine).total()
        engine.dispose()
        house.stop()
    _judge(result, safe, counts, lakes, (total.requests, total.prompt, total.completion))
    return result


def _database_of(house: House) -> URL:
    """As the shipper was told."""
    shippers = [each for each in house.processes() if "gateway.traffic.ship" in each.cmdline()]
    return make_url(shippers[-1].environ()[DATABASE_URL]).set(drivername="postgresql+psycopg")


def _judge(
    result: Result,
    safe: list[str],
    counts: dict[str, int],
    lakes: tuple[int, ...],
    rolled: tuple[int, ...],
) -> None:
    lost = [id for id in safe if id not in counts]
    doubled = [id for id, count in counts.items() if count > 1]
    result.must("every such answer is in the lake", not lost, f"{len(lost)} of {len(safe):,} are not")
    result.must("none is there twice", not doubled, f"{len(doubled)} of {len(counts):,} are")
    result.must("the roll-ups equal the lake's sums", rolled == lakes, f"{rolled} and {lakes}")
    result.figure("exchanges in the lake, aborted ones too", f"{len(counts):,}")
    result.figure("kills", f"{KILLS}")
