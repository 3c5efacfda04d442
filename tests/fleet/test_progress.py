"""Read from what vLLM 0.32 logged on a CPU, shortened."""

from __future__ import annotations

from gateway.fleet.progress import Reader, Stage

LOG = """\
(APIServer pid=7107) INFO 11-22 10:46:11 [api_utils.py:286] non-default args: {'host': '127.0.0.1', ...
(APIServer pid=7107) WARNING 11-22 10:46:20 [vllm.py:725] Model Runner V2 requires Triton; using the V1 model
Triton is installed, but doesn't include CPU backend. Disabling Triton.
(EngineCore pid=7211) INFO 11-22 10:46:28 [core.py:133] Initializing a V1 LLM engine (v0.32.0)
(Worker pid=7256) INFO 11-22 10:46:39 [cpu_model_runner.py:68] Starting to load model /base...
(Worker pid=7256) INFO 11-22 10:46:39 [base_loader.py:82] Initializing model took 0.242700 seconds
Loading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]
Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:05<00:00,  5.14s/it]
(Worker pid=7256) INFO 11-22 10:46:46 [punica_selector.py:20] Using PunicaWrapperCPU.
(EngineCore pid=7211) INFO 11-22 10:46:46 [kv_cache_utils.py:2327] CPU KV cache size: 46,592 tokens, Maximum
(EngineCore pid=7211) INFO 11-22 10:46:46 [core.py:402] init engine (profile, create kv cache, warmup
(APIServer pid=7107) INFO 11-22 10:46:48 [entry.py:136] Supported tasks: ['generate']
(APIServer pid=7107) INFO 11-22 10:46:49 [entry.py:140] Starting vLLM server on http://127.0.0.1:18431
INFO:     Application startup complete.
"""


def test_a_start_goes_through_its_stages_once_each() -> None:
    reader = Reader()
    seen = [stage for line in LOG.splitlines() if (stage := reader.line(line))]
    assert [Stage.LOADING, Stage.WARMING, Stage.OPENING] == seen


def test_a_stage_that_is_past_is_not_announced_again() -> None:
    reader = Reader()
    reader.line("init engine (profile, create kv cache, warmup model) took 0.41 s")
    assert reader.line("Loading safetensors checkpoint shards: 100% Completed") is None


def test_the_last_error_of_a_start_is_remembered_without_its_prefix() -> None:
    reader = Reader()
    reader.line(
        "(EngineCore pid=7) ERROR [core.py:9] ValueError: To serve at least one request, 9 GiB are needed"
    )
    reader.line("RuntimeError: Engine core initialization failed.")
    assert "RuntimeError: Engine core initialization failed." == reader.error


def test_a_warning_is_not_taken_for_the_error_that_ended_a_start() -> None:
    reader = Reader()
    reader.line(
        "WARNING 11-22 [system_utils.py:255] This can cause fd limit errors like `OSError: [Errno 24] x`"
    )
    assert reader.error is None
