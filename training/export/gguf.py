"""A merged model as one GGUF file, which llama.cpp and Ollama run.

Metadata and tensor names are the gguf library's (by llama.cpp's own authors); what their converter does
beside that for Llama models is done here: rows of q and k are put in the order of llama.cpp's rotary
embedding, and the tokenizer's way of splitting text is named. Other architectures are refused, with the way
to convert them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.export.merge import weights
from training.recipe import TrainingError

if TYPE_CHECKING:
    from gguf import GGUFWriter

_DIGITS, _BYTES = {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}
SPLITS = {"smollm": [_DIGITS, _BYTES], "gpt-2": [_BYTES]}
"""llama.cpp's names (`tokenizer.ggml.pre`) for the pre-tokenizers that are known here."""


def write(model: Path, file: Path, name: str) -> None:
    """`model` is a merged model's folder. Tensors of two dimensions become BF16, others F32.

    Raises `TrainingError` for an architecture or a tokenizer that is not known here.
    """
    import gguf
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(model))
    if config.model_type != "llama":
        raise TrainingError(
            f"GGUF is written for Llama models here, and this is {config.model_type}: export --format "
            "merged, and convert the folder with llama.cpp's convert_hf_to_gguf.py"
        )
    writer = gguf.GGUFWriter(file, "llama")
    _describe(writer, config, name)
    _add_tokenizer(writer, model, config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for tensor_name, tensor in weights(model):
        told = names.get_name(tensor_name, try_suffixes=(".weight", ".bias"))
        if told is None:
            raise TrainingError(f"GGUF has no name for the tensor {tensor_name}: export --format merged")
        values = _ordered(tensor_name, tensor.float(), config).numpy()
        if values.ndim < 2:
            writer.add_tensor(told, values)
        else:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(told, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: GGUFWriter, config: Any, name: str) -> None:
    import gguf

    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(_rope_base(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _rope_base(config: Any) -> float:
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        raise TrainingError(
            f"this model scales its positions ({rope['rope_type']}), which is not written here: export "
            "--format merged, and convert the folder with llama.cpp's convert_hf_to_gguf.py"
        )
    return float(rope["rope_theta"])


def _add_tokenizer(writer: GGUFWriter, model: Path, size: int) -> None:
    import gguf

    told = json.loads((model / "tokenizer.json").read_bytes())
    if told["model"]["type"] != "BPE":
        raise TrainingError(f"a tokenizer of the kind {told['model']['type']} is not written to GGUF here")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_split(told.get("pre_tokenizer")))
    kinds, tokens = [gguf.TokenType.UNUSED] * size, [f"[PAD{at}]" for at in range(size)]
    for token, at in told["model"]["vocab"].items():
        kinds[at], tokens[at] = gguf.TokenType.NORMAL, token
    for added in told["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        kinds[added["id"]], tokens[added["id"]] = kind, added["content"]
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(model, load_merges=True, n_vocab=size)
    special.add_special_token.clear()
    special.add_to_gguf(writer, quiet=True)
    writer.add_add_bos_token(False)  # the template writes every token that a prompt has


def _split(told: dict[str, Any] | None) -> str:
    steps = [] if told is None else told.get("pretokenizers", [told])
    for name, known in SPLITS.items():
        if len(steps) == len(known) and all(
            each.items() <= step.items() for each, step in zip(known, steps, strict=True)
        ):
            return name
    raise TrainingError(
        "llama.cpp's name for the way this tokenizer splits text is not known here: export --format merged, "
        "and convert the folder with llama.cpp's convert_hf_to_gguf.py"
    )


def _ordered(name: str, tensor: Any, config: Any) -> Any:
    """llama.cpp turns neighbouring values together, Hugging Face those half a head apart."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
        name.split(".")[-2]
    )
    if heads is None:
        return tensor
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)
