"""What our plugin says about its engine, and whether that is good enough to take the engine into service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KERNEL = "hotswap"


@dataclass(frozen=True, slots=True)
class Report:
    """What `GET /hotswap/v1/plugin` says, as far as we use it.

    `resident` maps the adapters in the engine's CPU cache to their slot (None: not active); None: not said.
    """

    boot_id: str
    plugin_version: str
    vllm_version: str
    device: str
    lora_kernel: str
    prompt_logprobs_fixed: bool
    self_test_passed: bool
    self_test_details: str
    max_loras: int | None
    max_cpu_loras: int | None
    resident: Mapping[str, int | None] | None

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Report:
        """Raises `ValueError` for a body that is not a report of a plugin that we know."""
        try:
            self_test = body["self_test"]
            loras = body.get("loras") or {}
            resident = body.get("resident")
            return cls(
                boot_id=str(body["boot_id"]),
                plugin_version=str(body["plugin_version"]),
                vllm_version=str(body["vllm_version"]),
                device=str(body["device"]),
                lora_kernel=str(body["lora_kernel"]),
                prompt_logprobs_fixed=body["prompt_logprobs_fixed"] is True,
                self_test_passed=self_test["passed"] is True,
                self_test_details=str(self_test.get("details", "")),
                max_loras=loras.get("max_loras"),
                max_cpu_loras=loras.get("max_cpu_loras"),
                resident=None if resident is None else {str(each["name"]): each["slot"] for each in resident},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the plugin's report is not one: {type(error).__name__} {error}") from error

    @property
    def prompt_logprobs_safe(self) -> bool:
        """Two requests with prompt_logprobs at once kill an unpatched engine on CPU (vLLM 0.32)."""
        return self.prompt_logprobs_fixed or self.device != "cpu"


def objection(report: Report | None) -> str | None:
    """Why an engine must not serve, None when it may.

    On CPU vLLM's own LoRA kernel answers base requests with an adapter's weights, so ours must be in place.
    """
    if report is None:
        return (
            "our plugin does not answer there (/hotswap/v1/plugin is missing): install hotswap in the "
            "engine's environment and name it in VLLM_PLUGINS, or set fleet.require_plugin = false"
        )
    if report.device == "cpu" and report.lora_kernel != KERNEL:
        return (
            f"its LoRA kernel is {report.lora_kernel!r}, not {KERNEL!r}: on CPU it mixes adapters into "
            "base answers. The engine's log says why the plugin did not replace it"
        )
    if not report.self_test_passed:
        return f"the plugin's self-test failed: {report.self_test_details or 'no details'}"
    return None
