"""What is exported says what a real vLLM serves; what is not the adapter is refused."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from adapters.base.manifest import BaseManifest
from tests.engine.talk import Talk
from tests.engine.trained import Trained
from tests.peft_folder import random_adapter
from training.export.check import logs_of, plain_logs, same
from training.export.export import GGUF, Exported, export
from training.parity import Logs, served_logs

pytestmark = pytest.mark.engine


PROBES = 6


@pytest.fixture(scope="module")
def served(trained: Trained, engine: Talk) -> Logs:
    engine.load("exported", trained.folder)
    try:
        url = f"{engine.client.base_url}".rstrip("/") + "/v1"
        key = engine.client.headers["authorization"].removeprefix("Bearer ")
        return asyncio.run(served_logs(url, key, engine.base, "exported", trained.asked[:PROBES]))
    finally:
        engine.unload("exported")


@pytest.fixture(scope="module")
def plain(trained: Trained) -> Logs:
    return plain_logs(trained.base, trained.folder, trained.asked[:PROBES])


def exported(trained: Trained, adapter: Path, out: Path, form: str) -> Path:
    version = {"name": "exported@v1", "digest": "0" * 64, "manifest": {}}
    asked = Exported(version, None, trained.base, adapter)
    export(asked, out, form, None, lambda _: None, lambda _: None)
    return out


@pytest.mark.parametrize("form", ["merged", "gguf"])
def test_it_says_what_is_served(
    form: str, trained: Trained, served: Logs, plain: Logs, tmp_path: Path
) -> None:
    folder = exported(trained, trained.folder, tmp_path / "out", form)
    found = same(plain, logs_of(folder, trained.asked[:PROBES]), served)
    assert found.passed, found
    assert (folder / GGUF).is_file() is (form == "gguf")


def test_another_adapter_is_not_what_is_served(
    trained: Trained, served: Logs, plain: Logs, tmp_path: Path
) -> None:
    other = random_adapter(tmp_path / "other", BaseManifest.read(trained.base), seed=5, scale=0.02)
    folder = exported(trained, other, tmp_path / "out", "merged")
    assert not same(plain, logs_of(folder, trained.asked[:PROBES]), served).passed


def test_what_is_served_is_another(trained: Trained, served: Logs, plain: Logs, tmp_path: Path) -> None:
    folder = exported(trained, trained.folder, tmp_path / "out", "merged")
    ignored = Logs(served.base, served.base)
    assert not same(plain, logs_of(folder, trained.asked[:PROBES]), ignored).passed


def test_ollama_gets_the_template_that_was_trained_with(trained: Trained, tmp_path: Path) -> None:
    folder = exported(trained, trained.folder, tmp_path / "out", "gguf")
    told = (folder / "Modelfile").read_text()
    template = re.search(r'TEMPLATE """(.*?)"""', told, re.DOTALL)
    default = re.search(r'SYSTEM """(.*?)"""', told, re.DOTALL)
    assert template is not None and default is not None
    conversations = [
        [("user", "a")],
        [("system", "s"), ("user", "a")],
        [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")],
        [("user", "a"), ("assistant", "b"), ("user", "c")],
    ]
    for messages in conversations:
        expected = trained.tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in messages],
            tokenize=False,
            add_generation_prompt=True,
        )
        assert go(template[1], messages, default[1]) == expected
    stop = re.search(r'PARAMETER stop "(.*?)"', told)
    assert stop is not None and stop[1] == "<|im_end|>"
    shutil.rmtree(folder)


def go(template: str, messages: list[tuple[str, str]], default: str) -> str:
    """What Go's text/template makes of a Modelfile's, as far as ours go: if, eq, else if, range."""
    system, _, rest = template.partition("{{ end }}{{ range .Messages }}")
    head = system.removeprefix("{{ if .System }}")
    given = next((content for role, content in messages if role == "system"), default)
    told = head.replace("{{ .System }}", given)
    body = rest.removesuffix("{{ end }}{{ end }}")
    user, _, assistant = body.partition('{{ else if eq .Role "assistant" }}')
    parts = {"user": user.removeprefix('{{ if eq .Role "user" }}'), "assistant": assistant}
    return told + "".join(
        parts[role].replace("{{ .Content }}", content) for role, content in messages if role in parts
    )
