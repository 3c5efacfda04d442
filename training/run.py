"""One training run, from a base, rows and a recipe to an adapter: what every method has in common."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import random
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.archive import CONFIG, MANIFEST, WEIGHTS
from adapters.base.manifest import BaseManifest
from training.board import board
from training.checkpoints import Checkpoint, Checkpoints
from training.launch.together import Together, here, part
from training.left import leave
from training.methods.methods import METHODS
from training.methods.setup import Data, Setup
from training.mirror import Mirror
from training.quantized import load
from training.recipe import Recipe, Stopped, TrainingError
from training.rows import digest
from training.spans import span
from training.stop import Stop
from training.tokens import stop_ids
from training.watch import Clock, Hearers, Progress, Validation, callback

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes")
KEPT = 3
"""Checkpoints of a run that stay on the disk, besides the best. OpenAI offers as many."""


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """A PEFT folder that `adapters.archive.pack` can send.

    `seconds` are training's, without loading and with those before it was resumed. `validation_loss` is that
    of the weights in the folder, of held-out rows, per learned token in nats. `run` is what its checkpoints
    are known by.
    """

    folder: Path
    rows: int
    learned_tokens: int
    steps: int
    final_loss: float
    seconds: float
    cpu_seconds: float
    run: str
    validation_loss: float | None = None


def train(
    base: Path,
    rows: Path,
    recipe: Recipe,
    out: Path,
    progress: Callable[[Progress], None],
    stop: Stop | None = None,
    *,
    validation: Path | None = None,
    checkpoints: Path | None = None,
    store: str | None = None,
    tensorboard: Path | None = None,
    validated: Callable[[Validation], None] = lambda _: None,
    saved: Callable[[Checkpoint], None] = lambda _: None,
    lineage: Mapping[str, Any] | None = None,
    continue_from: Path | None = None,
    leave_in: Path | None = None,
) -> TrainedAdapter:
    """Train an adapter for the prepared base in folder `base` on the file `rows`; write it to folder `out`.

    `out` must not exist; it appears whole or not at all. The same seed, rows, recipe and library versions on
    the same machine give the same weights. `stop`, when set from a signal handler or a thread, ends the run
    after the step that is running, with `Stopped`.

    With a folder for `checkpoints`, the run is saved there every `recipe.checkpoint_steps` and when it is
    stopped; called again with the same arguments it goes on from the last one, and ends with the weights it
    would have had. They are removed when the adapter is there. `store` is the URL of an object store for them
    (`training.mirror`), so that another machine can go on; there they stay until `Mirror.forget`. Losses go
    to the folder `tensorboard`, too.

    With a file of `validation` rows, in the same format, or a share of the rows held out by the recipe, their
    loss is taken as often, and the adapter is the one with the lowest. `lineage` goes into the adapter's,
    e.g. its dataset. `continue_from` is the folder of an adapter of the same rank, whose weights are the
    first ones. In the folder `leave_in` it leaves the adapters of the checkpoints that it still had
    (`training.left`).

    Where the process is one of several that share the run (`training.launch.together`), each calls this with
    the same arguments; the first of them writes and tells.
    Raises `BaseMissing`, `training.rows.BadRows`, or `TrainingError` with what to do.
    """
    stop = stop or Stop()
    manifest = BaseManifest.read(base)
    method = METHODS[recipe.method]
    learned: Sequence[Any] = method.read(rows)
    held_out: Sequence[Any] = method.read(validation) if validation is not None else ()
    if validation is None:
        learned, held_out = split(learned, recipe)
    if out.exists():
        raise TrainingError(f"{out} is there already; name another folder, or remove it")
    together = here()
    rows_each = part(recipe, together.size)

    import torch

    together.join()

    tokenizer, stops = tokenizer_of(base)
    data = method.prepare(tokenizer, learned, stops, recipe)
    held_data = method.prepare(tokenizer, held_out, stops, recipe) if held_out else None
    kept = None
    run = run_id(manifest, recipe, rows, validation, continue_from)
    if checkpoints is not None:
        kept = Checkpoints(checkpoints, run, Mirror(store, run) if store is not None else None)
    with together.leader_first():
        earlier = kept.latest() if kept is not None else None
    _check(stop, together)
    with span("load"):
        model = load(base, manifest)
    _check(stop, together)
    unfinished = out.with_name(f".{out.name}.part")
    if together.leads:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    try:
        clock = Clock(earlier)
        watch = callback(Hearers(progress, validated, saved), stop, clock, kept, together)
        saves = kept.folder if kept is not None else unfinished / "trainer"
        arguments = _arguments(recipe, len(data), saves, kept is not None, held_data is not None)
        arguments |= {"per_device_train_batch_size": rows_each, "per_device_eval_batch_size": rows_each}
        told = [watch, *_stoppers(recipe, held_data)]
        if tensorboard is not None and together.leads:
            told.append(board(tensorboard, run, earlier.step if earlier else None))
        setup = Setup(model, tokenizer, stops, manifest, recipe, arguments, told)
        with warnings.catch_warnings():
            # peft's advice for eva, which trl gives no way to follow.
            warnings.filterwarnings("ignore", "lora with eva initialization used with low_cpu_mem_usage")
            trainer = _ready(method.trainer(setup, data, held_data), recipe)
        if continue_from is not None:
            _go_on(trainer.model, continue_from)
        with span("steps", resumed_after=earlier.step if earlier else None):
            trainer.train(resume_from_checkpoint=str(earlier.folder) if earlier else None)
        seconds, cpu_seconds = clock.seconds, clock.cpu_seconds
        if together.any(stop.is_set()) and trainer.state.global_step < trainer.state.max_steps:
            raise Stopped(_stopped(trainer.state.global_step, kept))
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        result = TrainedAdapter(
            folder=out,
            rows=len(data),
            learned_tokens=data.learned_tokens,
            steps=trainer.state.global_step,
            final_loss=_mean(losses[-10:]),
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            run=run,
            validation_loss=trainer.state.best_metric,
        )
        if not math.isfinite(result.final_loss):
            raise TrainingError(
                f"the loss is {result.final_loss} after {result.steps} steps; lower the learning rate "
                f"({recipe.learning_rate:g})"
            )
        if together.leads:
            with span("save"):
                _save(trainer.model, unfinished, manifest)
                record = _record(result, manifest, recipe, rows, validation, lineage or {})
                (unfinished / MANIFEST).write_text(json.dumps(record, indent=1) + "\n")
                if kept is not None and leave_in is not None:
                    earlier_ones = [each for each in kept.whole() if each.step < result.steps]
                    leave(earlier_ones, leave_in, unfinished, record)
                unfinished.rename(out)
        together.wait()
        if kept is not None:
            kept.forget()
    finally:
        if together.leads:
            shutil.rmtree(unfinished, ignore_errors=True)
        del model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return result


def _check(stop: Stop, together: Together) -> None:
    if together.any(stop.is_set()):
        stop.set()
    stop.check()


def run_id(
    manifest: BaseManifest, recipe: Recipe, rows: Path, validation: Path | None, first: Path | None
) -> str:
    """What a run's checkpoints are known by, 16 hex digits: all that decides about its weights."""
    decides = [
        manifest.fingerprint,
        recipe.record(),
        digest(rows),
        digest(validation) if validation is not None else None,
        digest(first / WEIGHTS) if first is not None else None,
        _versions(),
    ]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def tokenizer_of(base: Path) -> tuple[Any, frozenset[int]]:
    """The prepared base's tokenizer, and the ids that end generation."""
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(str(base), local_files_only=True)
    try:
        generation = GenerationConfig.from_pretrained(str(base), local_files_only=True)
    except OSError:
        generation = None
    return tokenizer, frozenset(stop_ids(tokenizer, generation))


def _arguments(recipe: Recipe, rows: int, folder: Path, save: bool, validate: bool) -> dict[str, Any]:
    """transformers' `TrainingArguments`, but for what a method adds."""
    import torch

    every = recipe.checkpoint_steps or max(1, math.ceil(recipe.steps(rows) / 10))
    return {
        "output_dir": str(folder),
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps or -1,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(recipe.steps(rows) * recipe.warmup),
        "max_grad_norm": recipe.max_grad_norm,
        "optim": "adamw_torch",
        "weight_decay": 0.0,
        "bf16": True,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps" if save or validate else "no",
        "save_steps": every,
        "save_total_limit": KEPT,
        "eval_strategy": "steps" if validate else "no",
        "eval_steps": every,
        "load_best_model_at_end": validate,
        "metric_for_best_model": "loss" if validate else None,
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,  # each weight of an adapter is used in every pass
        "seed": recipe.seed,
        "data_seed": recipe.seed,
    }


def _stoppers(recipe: Recipe, validation: Data | None) -> list[Any]:
    """What ends a run before its last step: validations in a row that found no lower loss."""
    if recipe.early_stop is None:
        return []
    if validation is None:
        raise TrainingError(
            f"early_stop is {recipe.early_stop} and no rows are held out to evaluate on; give validation "
            "rows or validation_share (0.1), or leave early_stop out"
        )
    from transformers import EarlyStoppingCallback

    return [EarlyStoppingCallback(early_stopping_patience=recipe.early_stop)]


def split(rows: Sequence[Any], recipe: Recipe) -> tuple[list[Any], list[Any]]:
    """What is learned and what is held out: `recipe.validation_share` of the rows, drawn by its seed.

    Rows that are nearly the same can fall on both sides; a dataset (`hotswap datasets build`) splits better.
    """
    count = round(len(rows) * recipe.validation_share)
    drawn = set(random.Random(f"held out {recipe.seed}").sample(range(len(rows)), count))  # noqa: S311
    learned = [row for at, row in enumerate(rows) if at not in drawn]
    return learned, [rows[at] for at in sorted(drawn)]


def _ready(trainer: Any, recipe: Recipe) -> Any:
    """The trainer without its own ways to print, and with an adapter in float32.

    On a quantized base trl casts the adapter to bfloat16, and Adam's moments with it: eight bits of mantissa
    lose small updates, and a run that is resumed, which peft loads as float32, would be another one.
    Raises `TrainingError` when anything but the adapter would be trained: an engine serves nothing else.
    """
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    for name, weights in trainer.model.named_parameters():
        if weights.requires_grad and "lora_" not in name:
            raise TrainingError(f"{name} would be trained with the adapter, and no engine could serve it")
        if weights.requires_grad:
            weights.data = weights.data.float()
    if recipe.init == "eva":
        _begin_with_eva(trainer)
    return trainer


def _go_on(model: Any, adapter: Path) -> None:
    """Begin with another adapter's weights. Raises `TrainingError` when they do not fit."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    try:
        told = set_peft_model_state_dict(model, load_file(adapter / WEIGHTS))
    except (OSError, RuntimeError) as error:
        raise TrainingError(f"cannot go on from the adapter in {adapter}: {error}") from error
    missing = [name for name in told.missing_keys if "lora_" in name]
    if missing or told.unexpected_keys:
        raise TrainingError(
            f"cannot go on from the adapter in {adapter}: its layers are others than the recipe's, e.g. "
            f"{[*missing, *told.unexpected_keys][0]}"
        )


def _begin_with_eva(trainer: Any) -> None:
    """Each A begins as the main directions of what its layer is given (EVA; Paischer et al., 2024).

    Ranks stay as they are (rho = 1): an engine's slots have one rank.
    """
    from peft import initialize_lora_eva_weights

    initialize_lora_eva_weights(
        trainer.model,
        dataloader=trainer.get_train_dataloader(),
        forward_fn=lambda model, batch: model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ),
        show_progress_bar=False,
    )


def _stopped(step: int, kept: Checkpoints | None) -> str:
    if kept is None:
        return "training was stopped before its end; nothing was written"
    return f"training was stopped after step {step} and can go on from there: run it again as it was"


def _save(model: Any, folder: Path, manifest: BaseManifest) -> None:
    """The two files of an adapter, the same bytes for the same run; the base by name, not by its place."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = manifest.name
        config.init_lora_weights, config.eva_config = True, None  # how it began is in the recipe
    model.save_pretrained(str(folder), save_embedding_layers=False)
    for left in folder.iterdir():
        if left.name not in {CONFIG, WEIGHTS}:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    file = folder / CONFIG
    config = json.loads(file.read_bytes())
    config["target_modules"] = sorted(config["target_modules"])  # a set in peft: its order changes by process
    file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def _record(
    result: TrainedAdapter,
    manifest: BaseManifest,
    recipe: Recipe,
    rows: Path,
    validation: Path | None,
    lineage: Mapping[str, Any],
) -> dict[str, Any]:
    found = {
        "method": recipe.method,
        "base": manifest.name,
        "recipe": recipe.record(),
        "data_sha256": digest(rows),
        "rows": result.rows,
        "learned_tokens": result.learned_tokens,
        "seed": recipe.seed,
        "steps": result.steps,
        "final_loss": round(result.final_loss, 4),
        "seconds": round(result.seconds, 1),
        **lineage,
        "versions": _versions(),
    }
    if validation is not None:
        found["validation_sha256"] = digest(validation)
    if result.validation_loss is not None:
        found["validation_loss"] = round(result.validation_loss, 4)
    return {"base_fingerprint": manifest.fingerprint, "licence": manifest.licence, "lineage": found}


def _versions() -> dict[str, str]:
    return {library: importlib.metadata.version(library) for library in LIBRARIES}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
