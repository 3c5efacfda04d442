"""Preflight takes what engines serve exactly as trained, and says by name why it takes nothing else."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from adapters import preflight
from adapters.archive import CONFIG, MANIFEST, WEIGHTS
from adapters.errors import AdapterError, Refused, TooBig
from adapters.preflight import Inspection, Limits
from tests.adapters.conftest import LIMITS
from tests.conftest import TINY
from tests.peft_folder import random_adapter

Q = "base_model.model.model.layers.0.self_attn.q_proj"
Make = Callable[..., Path]


def check(folder: Path, **arguments: Any) -> Inspection:
    return preflight.check(folder, TINY, **({"limits": LIMITS, "claim": None} | arguments))


def refusal(folder: Path, **arguments: Any) -> str | None:
    with pytest.raises(Refused) as caught:
        check(folder, **arguments)
    return caught.value.code


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Edit the tensors."""
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS)
    return folder


def rewrite(folder: Path, header: bytes, data: bytes, length: int | None = None) -> Path:
    """Write a safetensors file by hand."""
    start = struct.pack("<Q", len(header) if length is None else length)
    (folder / WEIGHTS).write_bytes(start + header + data)
    return folder


def parts(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of the safetensors file."""
    raw = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def test_a_good_adapter_is_described(adapter: Make) -> None:
    expected = Inspection(rank=8, target_modules=("down_proj", "q_proj"), dtype="F16", parameters=1280)
    assert expected == check(adapter())


@pytest.mark.parametrize(
    "config",
    [
        {"use_rslora": True},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "EVA", "eva_config": {"rho": 2.0}},
        {"init_lora_weights": False},
        {"lora_alpha": 0.5},
        {"target_modules": "all-linear"},
        {"target_modules": ".*(q_proj|down_proj)"},
        {"target_modules": ["q_proj", "mlp.down_proj"]},
        {"alpha_pattern": {r"^model\.layers\.\d+\.mlp.down_proj": 4}},
        {"rank_pattern": {"layers.7.q_proj": 16}},
        {"modules_to_save": [], "use_dora": False, "layer_replication": None, "invented_off": False},
        {"peft_version": "0.21.2", "auto_mapping": {"unsloth_fixed": True}, "qalora_group_size": 16},
    ],
)
def test_what_engines_serve_is_taken(adapter: Make, config: dict[str, Any]) -> None:
    assert 8 == check(adapter(**config)).rank


def test_the_dtypes_that_engines_serve_are_taken(adapter: Make) -> None:
    folder = adapter()
    change(folder, lambda t: t.update({Q + ".lora_A.weight": t[Q + ".lora_A.weight"].astype(np.float32)}))
    assert "F16+F32" == check(folder).dtype


def test_what_peft_itself_writes_is_taken(adapter: Make) -> None:
    from peft import LoraConfig

    folder = adapter()
    LoraConfig(
        r=8, target_modules=["q_proj", "down_proj"], base_model_name_or_path="tiny", task_type="CAUSAL_LM"
    ).save_pretrained(folder)
    assert 8 == check(folder).rank


@pytest.mark.parametrize(
    ("code", "config"),
    [
        ("not_lora", {"peft_type": "LOHA"}),
        ("not_lora", {"peft_type": None}),
        ("dora", {"use_dora": True}),
        ("alora", {"alora_invocation_tokens": [1, 2]}),
        ("bias", {"lora_bias": True}),
        ("bias", {"bias": "all"}),
        ("bias", {"bias": None}),
        ("modules_to_save", {"modules_to_save": ["lm_head"]}),
        ("modules_to_save", {"modules_to_save": ["score"]}),
        ("qalora", {"use_qalora": True}),
        ("bdlora", {"use_bdlora": {"nblocks": 2}}),
        ("layer_replication", {"layer_replication": [[0, 1]]}),
        ("fan_in_fan_out", {"fan_in_fan_out": True}),
        ("trainable_tokens", {"trainable_token_indices": [1]}),
        ("target_parameters", {"target_parameters": ["experts.gate_up_proj"]}),
        ("unsupported_init", {"init_lora_weights": "pissa"}),
        ("unsupported_init", {"init_lora_weights": "pissa_niter_16"}),
        ("unsupported_init", {"init_lora_weights": "olora"}),
        ("unsupported_init", {"init_lora_weights": "corda"}),
        ("unsupported_init", {"init_lora_weights": "loftq"}),
        ("unsupported_init", {"init_lora_weights": "lora_ga"}),
        ("unsupported_init", {"init_lora_weights": ["gaussian"]}),
        ("unknown_feature", {"kasa_config": {"r": 1}}),
        ("unknown_feature", {"invented_in_2027": True}),
        ("bad_config", {"lora_alpha": 0}),
        ("bad_config", {"lora_alpha": -8}),
        ("bad_config", {"lora_alpha": True}),
        ("bad_config", {"lora_alpha": float("nan")}),
        ("bad_config", {"lora_alpha": float("inf")}),
        ("bad_config", {"lora_alpha": None}),
        ("bad_config", {"r": 0}),
        ("bad_config", {"r": 8.0}),
        ("bad_config", {"r": True}),
        ("bad_config", {"use_rslora": "yes"}),
        ("bad_config", {"target_modules": None}),
        ("bad_config", {"target_modules": []}),
        ("bad_config", {"target_modules": [1]}),
        ("bad_config", {"rank_pattern": {"q_proj": 0}}),
        ("bad_config", {"rank_pattern": {"q_proj": "8"}}),
        ("bad_config", {"rank_pattern": [8]}),
        ("bad_config", {"alpha_pattern": {"q_proj": float("inf")}}),
        ("bad_config", {"alpha_pattern": {"q_proj": 0}}),
        ("bad_config", {"base_model_name_or_path": 7}),
        ("bad_config", {"base_model_name_or_path": "a\0b"}),
    ],
)
def test_a_variant_that_engines_would_serve_wrong_is_refused(
    adapter: Make, code: str, config: dict[str, Any]
) -> None:
    assert code == refusal(adapter(**config))


def test_a_pattern_that_could_run_for_hours_is_refused_at_once(adapter: Make) -> None:
    started = time.monotonic()
    assert "bad_config" == refusal(adapter(rank_pattern={"(.*.*)*x" * 20: 8}))
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"r": 1, "r": 2}', "\xff", "[" * 100_000, '"' + "a" * 9])
def test_a_config_that_is_no_json_object_is_refused(adapter: Make, text: str) -> None:
    folder = adapter()
    (folder / CONFIG).write_bytes(text.encode("latin-1"))
    assert "bad_config" == refusal(folder)


def test_a_config_of_two_megabytes_is_refused_unread(adapter: Make) -> None:
    folder = adapter()
    with (folder / CONFIG).open("ab") as file:
        file.write(b" " * 2**21)
    with pytest.raises(Refused, match="at most 1048576"):
        check(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(adapter: Make, name: str) -> None:
    folder = adapter()
    (folder / name).unlink()
    with pytest.raises(Refused, match=name):
        check(folder)


def test_another_bases_fingerprint_is_refused(adapter: Make) -> None:
    assert "other_base" == refusal(adapter(), claim="0" * 64, assume_base=True)


def test_a_fingerprint_that_fits_outweighs_an_unknown_name(adapter: Make) -> None:
    assert 8 == check(adapter(base_model_name_or_path="elsewhere"), claim=TINY.fingerprint).rank


@pytest.mark.parametrize("name", ["other", "not-tiny", "tiny/other", "", None])
def test_an_unknown_base_name_without_a_fingerprint_is_refused(adapter: Make, name: str | None) -> None:
    assert "other_base" == refusal(adapter(base_model_name_or_path=name))


@pytest.mark.parametrize("name", ["tiny", "TINY", "/models/tiny", "/models/tiny/"])
def test_a_known_base_name_or_a_path_that_ends_with_it_is_taken(adapter: Make, name: str) -> None:
    assert 8 == check(adapter(base_model_name_or_path=name)).rank


def test_an_unknown_base_name_is_taken_when_the_uploader_vouches_for_it(adapter: Make) -> None:
    assert 8 == check(adapter(base_model_name_or_path="elsewhere"), assume_base=True).rank


def test_a_rank_over_the_fleets_maximum_is_refused_with_advice(adapter: Make) -> None:
    with pytest.raises(
        Refused, match=r"rank 8; this fleet serves up to 4\. Retrain with r<=4 or start"
    ) as error:
        check(adapter(), limits=Limits(max_rank=4, max_bytes=10**9))
    assert "rank_too_high" == error.value.code


def test_a_pattern_rank_over_the_maximum_is_refused_even_when_no_module_has_it(adapter: Make) -> None:
    assert "rank_too_high" == refusal(adapter(rank_pattern={"layers.7.q_proj": 128}))


def test_weights_over_the_registrys_maximum_are_too_big(adapter: Make) -> None:
    with pytest.raises(TooBig):
        check(adapter(), limits=Limits(max_rank=64, max_bytes=1000))


def test_tensors_of_another_rank_than_the_config_says_are_refused(adapter: Make) -> None:
    assert "wrong_rank" == refusal(adapter(r=4))


def test_tensors_of_another_rank_than_their_pattern_says_are_refused(adapter: Make) -> None:
    assert "wrong_rank" == refusal(adapter(rank_pattern={"layers.1.self_attn.q_proj": 16}))


def test_pattern_ranks_are_read_as_peft_does(adapter: Make) -> None:
    folder = adapter(rank_pattern={"x0.self_attn.q_proj": 4, "0.self_attn.q_proj": 16, "q_proj": 8})

    def widen(tensors: dict[str, Any]) -> None:
        tensors[Q + ".lora_A.weight"] = np.ones((16, 16), np.float16)
        tensors[Q + ".lora_B.weight"] = np.ones((16, 16), np.float16)

    assert 16 == check(change(folder, widen)).rank


def test_another_hidden_size_is_refused(tmp_path: Path) -> None:
    wide = dataclasses.replace(TINY, linears={m: (o * 2, i * 2) for m, (o, i) in TINY.linears.items()})
    assert "wrong_shape" == refusal(random_adapter(tmp_path, wide, 1))


@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_one_half_without_the_other_is_refused(adapter: Make, half: str) -> None:
    assert "missing_tensor" == refusal(change(adapter(), lambda t: t.pop(f"{Q}.{half}.weight")))


def drop_module(tensors: dict[str, Any]) -> None:
    del tensors[Q + ".lora_A.weight"], tensors[Q + ".lora_B.weight"]


def test_a_targeted_module_without_tensors_is_refused(adapter: Make) -> None:
    assert "missing_tensor" == refusal(change(adapter(), drop_module))


def test_a_module_may_be_absent_where_the_config_leaves_layers_out(adapter: Make) -> None:
    assert 8 == check(change(adapter(layers_to_transform=[1]), drop_module)).rank


def test_a_target_with_no_tensors_at_all_is_refused_even_then(adapter: Make) -> None:
    folder = adapter(layers_to_transform=[1])
    gone = [name for name in load_file(folder / WEIGHTS) if "q_proj" in name]
    assert "missing_tensor" == refusal(change(folder, lambda t: [t.pop(name) for name in gone]))


def test_a_module_that_is_not_targeted_is_refused(adapter: Make) -> None:
    assert "untargeted_module" == refusal(adapter(target_modules=["q_proj"]))


def test_a_target_that_the_base_does_not_have_is_refused(adapter: Make) -> None:
    assert "unknown_module" == refusal(adapter(target_modules=["q_proj", "down_proj", "c_attn"]))


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("unknown_module", "base_model.model.lm_head.lora_A.weight"),
        ("unknown_module", "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"),
        ("unknown_tensor", "model.layers.0.self_attn.q_proj.lora_A.weight"),
        ("unknown_tensor", Q + ".lora_magnitude_vector"),
        ("unknown_tensor", Q + ".lora_B.bias"),
        ("unknown_tensor", "base_model.model.model.embed_tokens.lora_embedding_A"),
        ("unknown_tensor", "base_model.model.model.embed_tokens.base_layer.weight"),
    ],
)
def test_a_tensor_that_is_no_lora_of_a_known_module_is_refused(adapter: Make, code: str, name: str) -> None:
    assert code == refusal(change(adapter(), lambda t: t.update({name: np.ones((8, 16), np.float16)})))


@pytest.mark.parametrize("targets", [["q_proj"], ".*q_proj"])
def test_no_tensors_at_all_are_refused(adapter: Make, targets: Any) -> None:
    assert "missing_tensor" == refusal(rewrite(adapter(target_modules=targets), b"{}", b""))


@pytest.mark.parametrize("dtype", [np.int8, np.float64, np.int32])
def test_a_dtype_that_engines_do_not_serve_is_refused(adapter: Make, dtype: type) -> None:
    folder = change(adapter(), lambda t: t.update({Q + ".lora_A.weight": np.ones((8, 16), dtype)}))
    assert "bad_dtype" == refusal(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("at", [(0, 0), (7, 15)])
def test_a_value_that_is_not_finite_is_refused_wherever_it_is(
    adapter: Make, value: float, dtype: type, at: tuple[int, int]
) -> None:
    array = np.ones((8, 16), dtype)
    array[at] = value
    folder = change(adapter(), lambda t: t.update({Q + ".lora_A.weight": array}))
    with pytest.raises(Refused, match=f"at index {at[0] * 16 + at[1]}") as caught:
        check(folder)
    assert "not_finite" == caught.value.code


@pytest.mark.parametrize(("bits", "fine"), [(0x7F80, False), (0xFFC0, False), (0x7F7F, True), (0x0001, True)])
def test_bfloat16_is_scanned_bit_by_bit(adapter: Make, bits: int, fine: bool) -> None:
    folder = adapter()
    header, data = parts(folder)
    for entry in header.values():
        if isinstance(entry, dict) and "dtype" in entry:
            entry["dtype"] = "BF16"
    data = bytes(len(data) - 2) + bits.to_bytes(2, "little")
    rewrite(folder, json.dumps(header).encode(), data)
    if fine:
        assert "BF16" == check(folder).dtype
    else:
        assert "not_finite" == refusal(folder)


def test_a_scan_crosses_chunks_and_counts_on(tmp_path: Path) -> None:
    from adapters.weights import check_finite, read_header

    array = np.ones(10_000, np.float32)
    array[9_999] = np.nan
    save_file({"x": array}, tmp_path / WEIGHTS)
    with (tmp_path / WEIGHTS).open("rb") as file, pytest.raises(Refused, match="at index 9999"):
        check_finite(file, read_header(file, (tmp_path / WEIGHTS).stat().st_size), chunk_bytes=4096)


def test_a_scan_needs_no_more_memory_than_a_few_chunks(tmp_path: Path) -> None:
    from adapters.weights import check_finite, read_header

    save_file({"x": np.ones(16 << 20, np.float32)}, tmp_path / WEIGHTS)
    tracemalloc.start()
    with (tmp_path / WEIGHTS).open("rb") as file:
        check_finite(file, read_header(file, (tmp_path / WEIGHTS).stat().st_size))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_truncated_weights_are_refused(adapter: Make, keep: int) -> None:
    folder = adapter()
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:keep])
    assert "truncated" == refusal(folder)


@pytest.mark.parametrize("length", [10**6, 2**63])
def test_a_header_larger_than_the_file_is_refused(adapter: Make, length: int) -> None:
    assert "truncated" == refusal(rewrite(adapter(), b"{}", b"", length))


def test_a_header_larger_than_the_base_can_need_is_refused_unread(adapter: Make) -> None:
    assert "bad_header" == refusal(rewrite(adapter(), b"{" + b" " * (2 << 20) + b"}", b""))


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04\x00\x00\x08\x08" + bytes(99), b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a" + bytes(99)],
)
def test_a_pickle_under_another_name_is_refused_as_one(adapter: Make, content: bytes) -> None:
    folder = adapter()
    (folder / WEIGHTS).write_bytes(content)
    assert "pickle_weights" == refusal(folder)


def test_an_honest_header_whose_length_begins_like_a_pickle_is_taken(adapter: Make) -> None:
    folder = adapter()
    header, data = parts(folder)
    text = json.dumps(header).encode()
    rewrite(folder, text.ljust(0x0480), data)
    assert b"\x80\x04" == (folder / WEIGHTS).read_bytes()[:2]
    assert 8 == check(folder).rank


def edited(edit: Callable[[dict[str, Any], dict[str, Any]], object]) -> Callable[[Path], Path]:
    def apply(folder: Path) -> Path:
        header, data = parts(folder)
        edit(header, header[Q + ".lora_A.weight"])
        return rewrite(folder, json.dumps(header).encode(), data)

    return apply


@pytest.mark.parametrize(
    ("code", "edit"),
    [
        ("bad_header", lambda header, entry: entry.update(shape=[8, 17])),
        ("bad_header", lambda header, entry: entry.update(shape=[-8, -16])),
        ("bad_header", lambda header, entry: entry.update(shape=[8, True])),
        ("bad_header", lambda header, entry: entry.update(shape="816")),
        ("bad_header", lambda header, entry: entry.update(shape=[8.0, 16])),
        ("bad_header", lambda header, entry: entry.update(data_offsets=[0])),
        ("bad_header", lambda header, entry: entry.update(data_offsets=entry["data_offsets"][::-1])),
        (
            "bad_header",
            lambda header, entry: entry.update(data_offsets=[n + 2 for n in entry["data_offsets"]]),
        ),
        ("bad_header", lambda header, entry: entry.update(extra=1)),
        ("bad_header", lambda header, entry: entry.pop("dtype")),
        ("bad_dtype", lambda header, entry: entry.update(dtype=["F16"])),
        ("bad_header", lambda header, entry: header.update(x=1)),
        ("bad_header", lambda header, entry: header.update(__metadata__={"format": 1})),
        ("bad_header", lambda header, entry: header.update(__metadata__=[])),
        (
            "unknown_tensor",
            lambda header, entry: header.update(x=entry | {"shape": [0], "data_offsets": [0, 0]}),
        ),
    ],
)
def test_a_header_that_lies_is_refused(
    adapter: Make, code: str, edit: Callable[[dict[str, Any], dict[str, Any]], object]
) -> None:
    assert code == refusal(edited(edit)(adapter()))


def test_weights_that_lack_their_last_bytes_say_how_many_are_needed(adapter: Make) -> None:
    folder = adapter()
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(raw[:-2])
    with pytest.raises(Refused, match=f"the tensors need {len(raw)} bytes"):
        check(folder)


def test_a_file_that_shrinks_during_the_scan_is_refused() -> None:
    from adapters.weights import Tensor, check_finite

    with pytest.raises(Refused, match="ends inside"):
        check_finite(io.BytesIO(bytes(10)), [Tensor("x", "F16", (8,), 0, 16)])


@pytest.mark.parametrize("start", [b" {", b"\n{", b"["])
def test_a_header_that_does_not_begin_with_a_brace_is_refused(adapter: Make, start: bytes) -> None:
    folder = adapter()
    header, data = parts(folder)
    assert "bad_header" == refusal(rewrite(folder, start + json.dumps(header).encode()[1:], data))


def test_bytes_that_no_tensor_owns_are_refused(adapter: Make) -> None:
    folder = adapter()
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"MZ")
    assert "bad_header" == refusal(folder)


def test_one_tensor_named_twice_is_refused(adapter: Make) -> None:
    folder = adapter()
    header, data = parts(folder)
    name = json.dumps(Q + ".lora_A.weight")
    entry = json.dumps(header[Q + ".lora_A.weight"])
    text = json.dumps(header)[:-1] + f", {name}: {entry}}}"
    assert "bad_header" == refusal(rewrite(folder, text.encode(), data))


def test_a_manifest_is_read_and_none_is_empty(adapter: Make) -> None:
    folder = adapter()
    assert {"base_fingerprint": TINY.fingerprint} == preflight.read_manifest(folder)
    (folder / MANIFEST).unlink()
    assert {} == preflight.read_manifest(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "1",
        "{",
        '{"licence": 1}',
        '{"base_fingerprint": []}',
        '{"x": "\\u0000"}',
        '{"x": "\\ud800"}',
        '{"x": NaN}',
        '{"x": 1e999}',
        '{"x": 1, "x": 2}',
        '{"x": ' + "[" * 9999,
    ],
)
def test_a_manifest_that_cannot_be_kept_is_refused(adapter: Make, text: str) -> None:
    folder = adapter()
    (folder / MANIFEST).write_text(text)
    with pytest.raises(Refused) as caught:
        preflight.read_manifest(folder)
    assert "bad_manifest" == caught.value.code


def test_a_manifest_of_a_megabyte_is_refused_unread(adapter: Make) -> None:
    folder = adapter()
    (folder / MANIFEST).write_bytes(b'{"x": "' + b"x" * 2**20 + b'"}')
    with pytest.raises(Refused, match="at most 65536"):
        preflight.read_manifest(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
RELAXED = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@RELAXED
@given(at=st.integers(0, 1300), byte=st.integers(0, 255), cut=st.integers(0, 3))
def test_a_mutated_file_is_taken_as_the_same_shapes_or_refused(
    adapter: Make, at: int, byte: int, cut: int
) -> None:
    folder = adapter()
    expected = check(folder)
    raw = bytearray((folder / WEIGHTS).read_bytes())
    raw[at : at + cut + 1] = bytes([byte])
    (folder / WEIGHTS).write_bytes(raw)
    with suppress(AdapterError):
        assert (expected.rank, expected.target_modules, expected.parameters) == (
            (found := check(folder)).rank,
            found.target_modules,
            found.parameters,
        )


@RELAXED
@given(
    key=st.sampled_from(
        [
            "r",
            "lora_alpha",
            "target_modules",
            "rank_pattern",
            "alpha_pattern",
            "use_rslora",
            "bias",
            "init_lora_weights",
            "peft_type",
            "modules_to_save",
            "layers_to_transform",
            "base_model_name_or_path",
            "new",
        ]
    ),
    value=JSON,
)
def test_any_value_in_the_config_is_taken_or_refused(adapter: Make, key: str, value: Any) -> None:
    folder = adapter(**{key: value})
    with suppress(AdapterError):
        assert 8 == check(folder).rank


@RELAXED
@given(field=st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "new"]), value=JSON)
def test_any_value_in_the_header_is_taken_or_refused(adapter: Make, field: str, value: Any) -> None:
    folder = edited(lambda header, entry: (header if "_" in field[:1] else entry).update({field: value}))(
        adapter()
    )
    with suppress(AdapterError):
        assert 1280 == check(folder).parameters
