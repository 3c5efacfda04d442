"""Supervised fine-tuning: QLoRA on trl, peft and bitsandbytes, loss on the answers only."""

from __future__ import annotations

import importlib.metadata
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.base.manifest import BaseManifest
from training.quantized import load
from training.recipe import Recipe, TrainingError
from training.rows import digest, read_rows
from training.stop import Stop
from training.tokens import Example, examples, stop_ids

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes")


@dataclass(frozen=True, slots=True)
class Progress:
    """After `step` of `total` optimizer steps; `loss` is that step's, per learned token, in nats."""

    step: int
    total: int
    loss: float
    eta_s: float


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """A PEFT folder that `adapters.archive.pack` can send. `seconds` are training's, without loading."""

    folder: Path
    rows: int
    learned_tokens: int
    steps: int
    final_loss: float
    seconds: float
    cpu_seconds: float


def train(
    base: Path,
    rows: Path,
    recipe: Recipe,
    out: Path,
    progress: Callable[[Progress], None],
    stop: Stop | None = None,
) -> TrainedAdapter:
    """Train an adapter for the prepared base in folder `base` on the file `rows`; write it to folder `out`.

    `out` must not exist; it appears whole or not at all. The same seed, rows, recipe and library versions on
    the same machine give the same weights. `stop`, when set from a signal handler or a thread, ends the run
    after the step that is running, with `Stopped`.
    Raises `BaseMissing`, `training.rows.BadRows`, or `TrainingError` with what to do.
    """
    stop = stop or Stop()
    manifest = BaseManifest.read(base)
    conversations = read_rows(rows)
    if out.exists():
        raise TrainingError(f"{out} is there already; name another folder, or remove it")

    import torch
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(str(base), local_files_only=True)
    try:
        generation = GenerationConfig.from_pretrained(str(base), local_files_only=True)
    except OSError:
        generation = None
    data = examples(tokenizer, conversations, stop_ids(tokenizer, generation), recipe.max_tokens)
    stop.check()
    model = load(base, manifest)
    stop.check()
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        trainer = _trainer(model, tokenizer, data, recipe, manifest, part, _Watch(progress, stop))
        began, cpu = time.monotonic(), time.process_time()
        trainer.train()
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu
        stop.check()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        result = TrainedAdapter(
            folder=out,
            rows=len(data),
            learned_tokens=sum(label >= 0 for example in data for label in example.labels),
            steps=trainer.state.global_step,
            final_loss=_mean(losses[-10:]),
            seconds=seconds,
            cpu_seconds=cpu_seconds,
        )
        if not math.isfinite(result.final_loss):
            raise TrainingError(
                f"the loss is {result.final_loss} after {result.steps} steps; lower the learning rate "
                f"({recipe.learning_rate:g})"
            )
        _save(trainer.model, part, manifest)
        (part / "hotswap.json").write_text(
            json.dumps(_record(result, manifest, recipe, rows), indent=1) + "\n"
        )
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        del model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return result


def _trainer(
    model: Any,
    tokenizer: Any,
    data: Sequence[Example],
    recipe: Recipe,
    manifest: BaseManifest,
    scratch: Path,
    watch: _Watch,
) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
    from trl import SFTConfig, SFTTrainer

    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        bias="none",
        task_type="CAUSAL_LM",
        # Full paths, so that nothing else (the output head, a vision tower) can match.
        target_modules=sorted(manifest.linears),
    )
    arguments = SFTConfig(
        output_dir=str(scratch / "trainer"),
        per_device_train_batch_size=recipe.batch_size,
        num_train_epochs=recipe.epochs,
        max_steps=recipe.max_steps or -1,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(recipe.steps(len(data)) * recipe.warmup),
        max_grad_norm=recipe.max_grad_norm,
        optim="adamw_torch",
        weight_decay=0.0,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=recipe.gradient_checkpointing,
        # Rows of like length together: on CPU faster than padding_free, whose one long row pays for
        # attention between rows that a mask then throws away.
        train_sampling_strategy="group_by_length",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},  # the labels are ours; nothing is tokenised again
        dataloader_pin_memory=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=recipe.seed,
        data_seed=recipe.seed,
    )
    dataset = Dataset.from_dict(
        {"input_ids": [example.ids for example in data], "labels": [example.labels for example in data]}
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[watch.callback()],
    )
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    _check_trainable(trainer.model)
    return trainer


class _Watch:
    """Tells `progress` about every step, and ends the run when `stop` is set."""

    def __init__(self, progress: Callable[[Progress], None], stop: Stop) -> None:
        self._progress = progress
        self._stop = stop
        self._began = 0.0

    def callback(self) -> Any:
        from transformers import TrainerCallback

        watch = self

        class Callback(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                watch._began = time.monotonic()

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> Any:
                if logs and "loss" in logs:
                    done, total = state.global_step, state.max_steps
                    eta_s = (time.monotonic() - watch._began) / done * (total - done)
                    watch._progress(Progress(done, total, float(logs["loss"]), eta_s))
                if watch._stop.is_set():
                    control.should_training_stop = True
                return control

        return Callback()


def _check_trainable(model: Any) -> None:
    """Only LoRA matrices may train: an engine serves nothing else."""
    strange = [
        name for name, weights in model.named_parameters() if weights.requires_grad and "lora_" not in name
    ]
    if strange:
        raise TrainingError(f"{strange[0]} would be trained with the adapter, and no engine could serve it")


def _save(model: Any, folder: Path, manifest: BaseManifest) -> None:
    """The two files of an adapter, the same bytes for the same run; the base by name, not by its place."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = manifest.name
    model.save_pretrained(str(folder), save_embedding_layers=False)
    for left in folder.iterdir():
        if left.name not in {"adapter_config.json", "adapter_model.safetensors"}:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    file = folder / "adapter_config.json"
    config = json.loads(file.read_bytes())
    config["target_modules"] = sorted(config["target_modules"])  # a set in peft: its order changes by process
    file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def _record(result: TrainedAdapter, manifest: BaseManifest, recipe: Recipe, rows: Path) -> dict[str, Any]:
    return {
        "base_fingerprint": manifest.fingerprint,
        "licence": manifest.licence,
        "lineage": {
            "method": "sft",
            "base": manifest.name,
            "recipe": recipe.record(),
            "data_sha256": digest(rows),
            "rows": result.rows,
            "learned_tokens": result.learned_tokens,
            "seed": recipe.seed,
            "steps": result.steps,
            "final_loss": round(result.final_loss, 4),
            "seconds": round(result.seconds, 1),
            "versions": {library: importlib.metadata.version(library) for library in LIBRARIES},
        },
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
