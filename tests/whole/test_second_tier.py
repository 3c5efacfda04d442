"""The second tier of redaction in a whole Hotswap: what it cannot examine yet stays out of the lake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai

from gateway.traffic.lake import Lake
from tests.fakes import Fake, before
from tests.house import House, wait_for
from tests.traffic.pipelines import pipeline

WHO, SSN = "Alice Johnson", "219-09-9999"


def test_an_exchange_waits_without_words_until_its_pipeline_is_there(tiny_base: Path, tmp_path: Path) -> None:
    names = tmp_path / "names"
    settings = {
        "HOTSWAP_TRAFFIC__REDACT": "strict",
        "HOTSWAP_TRAFFIC__SEGMENT_AGE_S": "0.2",
        "HOTSWAP_TRAFFIC__SHIP_EVERY_S": "0.2",
        "HOTSWAP_TRAFFIC__PRESIDIO__ENABLED": "true",
        "HOTSWAP_TRAFFIC__PRESIDIO__MODELS": f'{{en = "{names}"}}',
    }
    with Fake() as fake, House(tmp_path / "house", tiny_base, before([fake], **settings)) as house:
        wait_for("it serves", lambda: ["serving"] == [each["status"] for each in house.fleet()])
        assert f"traffic.presidio.models.en = '{names}' is neither" in house.log.read_text()
        with openai.OpenAI(base_url=f"{house.url}/v1", api_key=house.key, max_retries=0) as sdk:
            said = [{"role": "user", "content": f"I am {WHO}, SSN {SSN}, ada@example.com"}]
            id = sdk.chat.completions.create(model="tiny", messages=said, max_tokens=4).id  # type: ignore[arg-type]

        def shown() -> Any:
            done = house.cli("traffic", "show", id, "--json")
            return json.loads(done.stdout) if done.returncode == 0 else None

        row = wait_for("it is in the journal", shown, 20)
        assert (200, True, None, None) == (row["status"], row["redacted"], row["messages"], row["response"])
        told = house.state / "logs" / "shipper.log"
        wait_for("why it waits is told", lambda: "The segment stays in the journal" in told.read_text(), 20)
        pipeline(names)
        row = wait_for("it is shipped", lambda: (found := shown())["messages"] and found, 60)
        assert [{"role": "user", "content": "I am [PERSON], SSN [US_SSN], [EMAIL]"}] == row["messages"]
        table = Lake(str(house.state / "lake")).query("SELECT messages FROM lake").read_all()
        assert 1 == table.num_rows and WHO not in table.column("messages").to_pylist()[0]
        written = told.read_text() + house.log.read_text()
        assert WHO not in written and SSN not in written
