"""What a base is, written down and read back, and when it is another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.base.manifest import BaseError, BaseManifest, BaseMissing, fingerprint

MANIFEST = BaseManifest(
    name="small",
    fingerprint="ab" * 32,
    licence="apache-2.0",
    source="folder:/models/small",
    known_names=("small", "Owner/small"),
    linears={"model.layers.0.self_attn.q_proj": (64, 32)},
    hidden_size=32,
    quantization="none",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "config.json": json.dumps({"hidden_size": 32, "transformers_version": "5.19.0"}),
        "model.safetensors": "weights",
        "tokenizer.json": "{}",
        "chat_template.jinja": "{{ messages }}",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert MANIFEST == BaseManifest.read(tmp_path)


def test_a_missing_base_says_which_command_makes_it(tmp_path: Path) -> None:
    with pytest.raises(BaseMissing, match=r"no prepared base at .*nowhere; run: hotswap base prepare"):
        BaseManifest.read(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "small"}', '{"name": "small", "linears": 3}'])
def test_a_broken_manifest_is_named_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "base.json").write_text(text)
    with pytest.raises(BaseError, match=r"base\.json is not"):
        BaseManifest.read(tmp_path)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"]
)
def test_the_fingerprint_changes_with_every_part_that_decides_an_answer(folder: Path, name: str) -> None:
    before = fingerprint(folder)
    (folder / name).write_text('{"changed": 1}')
    assert before != fingerprint(folder)


def test_the_fingerprint_changes_with_the_quantization_of_the_checkpoint(folder: Path) -> None:
    before = fingerprint(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))
    assert before != fingerprint(folder)


def _reorder_config(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"transformers_version": "6.0.0", "hidden_size": 32}))


def _add_readme(folder: Path) -> None:
    (folder / "README.md").write_text("words")


@pytest.mark.parametrize("change", [_reorder_config, _add_readme])
def test_the_fingerprint_stays_when_nothing_changes_an_answer(
    folder: Path, change: Callable[[Path], None]
) -> None:
    before = fingerprint(folder)
    change(folder)
    assert before == fingerprint(folder)


def test_bytes_moved_from_one_file_to_the_next_change_the_fingerprint(folder: Path) -> None:
    (folder / "model-1.safetensors").write_bytes(b"ab")
    (folder / "model-2.safetensors").write_bytes(b"c")
    before = fingerprint(folder)
    (folder / "model-1.safetensors").write_bytes(b"a")
    (folder / "model-2.safetensors").write_bytes(b"bc")
    assert before != fingerprint(folder)


def test_a_folder_without_weights_has_no_fingerprint(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(BaseError, match=r"no \*\.safetensors weights"):
        fingerprint(folder)
