"""An adapter for the world outside, before a model that is small enough to merge in a moment."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from adapters.base.manifest import BaseManifest
from tests.peft_folder import random_adapter
from training.export.export import CARD, Exported, export
from training.export.gguf import SPLITS, write
from training.export.merge import merge
from training.export.signature import FILE, sign, verify
from training.recipe import TrainingError

VERSION: dict[str, Any] = {
    "name": "support@v3",
    "digest": "d" * 64,
    "manifest": {
        "base_fingerprint": "f" * 64,
        "licence": "apache-2.0",
        "lineage": {"method": "sft", "rows": 300, "data_sha256": "a" * 64},
    },
}
REPORT = {
    "findings": [{"gate": "parity", "passed": True, "measured": "0.04 | nats", "bound": "<= 2 x"}],
    "passed": True,
}


@pytest.fixture
def adapter(small_base: Path, tmp_path: Path) -> Path:
    return random_adapter(tmp_path / "adapter", BaseManifest.read(small_base), seed=1, scale=0.3)


def run(adapter: Path, base: Path, out: Path, form: str = "merged", key: Path | None = None) -> None:
    export(Exported(VERSION, REPORT, base, adapter), out, form, key, lambda _: None, lambda _: None)


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3}}])
def test_what_is_merged_is_what_peft_merges(small_base: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    folder = random_adapter(tmp_path / "a", BaseManifest.read(small_base), seed=1, scale=0.3, **config)
    (tmp_path / "out").mkdir()
    merge(small_base, folder, tmp_path / "out")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(small_base, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(plain, str(folder)).merge_and_unload()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor.bfloat16().float()), name


def test_a_quantized_base_is_not_merged_into(small_base: Path, adapter: Path, tmp_path: Path) -> None:
    import dataclasses
    import shutil

    base = tmp_path / "packed"
    shutil.copytree(small_base, base)
    dataclasses.replace(BaseManifest.read(small_base), quantization="bitsandbytes").write(base)
    with pytest.raises(TrainingError, match="stored quantized"):
        run(adapter, base, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_gguf_is_the_merged_model(
    ordered: bool, small_base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without the order of llama.cpp's rotary embedding it is not."""
    from transformers import GgufConfig

    if not ordered:
        monkeypatch.setattr("training.export.gguf._ordered", lambda name, tensor, config: tensor)
    monkeypatch.setitem(SPLITS, "gpt-2", [{"type": "ByteLevel"}])
    merged = tmp_path / "merged"
    merged.mkdir()
    merge(small_base, adapter, merged)
    write(merged, tmp_path / "model.gguf", "tiny")
    right = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    read = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        gguf_file="model.gguf",
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    ids = torch.arange(3, 60)[None]
    assert ordered == torch.allclose(right(ids).logits, read(ids).logits, atol=1e-4)


def test_a_tokenizer_that_llama_cpp_names_otherwise_is_refused(
    small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.export.gguf.SPLITS", {})
    with pytest.raises(TrainingError, match=r"convert_hf_to_gguf\.py"):
        write(small_base, tmp_path / "model.gguf", "tiny")


def test_the_card_says_where_it_comes_from_and_how_it_was_proved(
    small_base: Path, adapter: Path, tmp_path: Path
) -> None:
    run(adapter, small_base, tmp_path / "out", "adapter")
    told = (tmp_path / "out" / CARD).read_text()
    for part in ("support@v3", "license: apache-2.0", "f" * 64, "a" * 64, "d" * 64, "0.04 \\| nats"):
        assert part in told
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "hotswap.json")
    }


def test_a_folder_that_is_there_is_left_alone(small_base: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="exists"):
        run(adapter, small_base, adapter)


def test_what_fails_its_check_is_not_written(small_base: Path, adapter: Path, tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        assert (folder / "model.safetensors").is_file()
        raise TrainingError("not what is served")

    with pytest.raises(TrainingError, match="not what is served"):
        export(Exported(VERSION, None, small_base, adapter), tmp_path / "out", "merged", None, print, refuse)
    assert not (tmp_path / "out").exists()


# --- signatures ---


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key; the public one lies beside it as `.pub`."""
    file = tmp_path_factory.mktemp("key") / "key.pem"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(file)]
    subprocess.run(make, check=True, capture_output=True)
    publish = ["openssl", "ec", "-in", str(file), "-pubout", "-out", f"{file}.pub"]
    subprocess.run(publish, check=True, capture_output=True)
    return file


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def test_a_signed_folder_is_as_it_was_signed(
    small_base: Path, adapter: Path, tmp_path: Path, key: Path
) -> None:
    run(adapter, small_base, tmp_path / "out", "adapter", key)
    verify(tmp_path / "out", public(key))


def test_a_relative_folder_is_signed_alike(
    small_base: Path, adapter: Path, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(adapter, small_base, Path("out"), "adapter", key)
    verify(Path("out"), public(key))
    verify(tmp_path / "out", public(key))


@pytest.mark.parametrize("harm", ["changed", "added", "hidden", "removed"])
def test_a_folder_that_was_changed_is_not(adapter: Path, key: Path, harm: str) -> None:
    sign(adapter, key)
    verify(adapter, public(key))
    if harm == "changed":
        with (adapter / "adapter_model.safetensors").open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\x7f")
    elif harm == "added":
        (adapter / "evil.py").write_text("")
    elif harm == "hidden":
        (adapter / ".gitattributes").write_text("")
    else:
        (adapter / "hotswap.json").unlink()
    with pytest.raises(TrainingError, match="is not what was signed"):
        verify(adapter, public(key))


def test_another_key_and_no_signature_are_told(adapter: Path, key: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=f"has no {FILE}"):
        verify(adapter, public(key))
    with pytest.raises(TrainingError, match="openssl ecparam"):
        sign(adapter, tmp_path / "none.pem")
