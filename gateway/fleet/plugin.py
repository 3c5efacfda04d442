"""What our plugin says about its engine, and whether that is good enough to take the engine into service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KERNEL = "hotswap"
TESTED = "0.32."
"""Versions of vLLM that this gateway was tested with begin so."""


@dataclass(frozen=True, slots=True)
class Report:
    """What `GET /hotswap/v1/plugin` says, as far as we use it.

    `resident` maps the adapters in the engine's CPU cache to their slot (None: not active); None: not said.
    A plugin before 0.2 says nothing of what has a default here: it has no admission and no adapter routes.
    `apart`: it keeps base and adapter requests from being in flight together. `routes` are its features.
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
    base_fingerprint: str | None = None
    max_num_seqs: int | None = None
    max_lora_rank: int | None = None
    admission: bool = False
    apart: bool = False
    counters: Mapping[str, int] | None = None
    routes: frozenset[str] = frozenset()

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Report:
        """Raises `ValueError` for a body that is not a report of a plugin that we know."""
        try:
            self_test = body["self_test"]
            loras = body.get("loras") or {}
            resident = body.get("resident")
            admission = body.get("admission") or {}
            counters = body.get("counters")
            return cls(
                boot_id=str(body["boot_id"]),
                plugin_version=str(body["plugin_version"]),
                vllm_version=str(body["vllm_version"]),
                device=str(body["device"]),
                lora_kernel=str(body["lora_kernel"]),
                prompt_logprobs_fixed=body["prompt_logprobs_fixed"] is True,
                self_test_passed=self_test["passed"] is True,
                self_test_details=str(self_test.get("details", "")),
                max_loras=_count(loras.get("max_loras")),
                max_cpu_loras=_count(loras.get("max_cpu_loras")),
                resident=None if resident is None else {str(each["name"]): each["slot"] for each in resident},
                base_fingerprint=_text(body.get("base_fingerprint")),
                max_num_seqs=_count(body.get("max_num_seqs")),
                max_lora_rank=_count(loras.get("max_lora_rank")),
                admission=admission.get("enabled") is True,
                apart=admission.get("apart") is True,
                counters=None if counters is None else {str(k): int(v) for k, v in counters.items()},
                routes=frozenset(str(each) for each in body.get("routes") or ()),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"the plugin's report is not one: {type(error).__name__} {error}") from error

    @property
    def prompt_logprobs_safe(self) -> bool:
        """Two requests with prompt_logprobs at once kill an unpatched engine on CPU (vLLM 0.32)."""
        return self.prompt_logprobs_fixed or self.device != "cpu"

    @property
    def kept_apart(self) -> bool:
        """The engine itself sees to it that base and adapter requests never meet."""
        return self.admission and self.apart


@dataclass(frozen=True, slots=True)
class Resident:
    """One adapter in an engine's CPU cache. `last_used_s` is an age, None when it was never used."""

    name: str
    slot: int | None
    pinned: bool
    rank: int
    bytes: int
    last_used_s: float | None
    in_flight: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What `GET /hotswap/v1/adapters` says: who is resident, least recently used first.

    `counters` are since the boot: disk_loads, activations, evictions, not_now.
    """

    boot_id: str
    max_loras: int | None
    max_cpu_loras: int | None
    adapters: tuple[Resident, ...]
    counters: Mapping[str, int]

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Listing:
        """Raises `ValueError` for a body that is not a listing."""
        try:
            return cls(
                boot_id=str(body["boot_id"]),
                max_loras=_count(body["max_loras"]),
                max_cpu_loras=_count(body["max_cpu_loras"]),
                adapters=tuple(
                    Resident(
                        name=str(each["name"]),
                        slot=_count(each["slot"]),
                        pinned=each["pinned"] is True,
                        rank=int(each["rank"]),
                        bytes=int(each["bytes"]),
                        last_used_s=None if each["last_used_s"] is None else float(each["last_used_s"]),
                        in_flight=int(each["in_flight"]),
                    )
                    for each in body["adapters"]
                ),
                counters={str(name): int(count) for name, count in body["counters"].items()},
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"this is no list of adapters: {type(error).__name__} {error}") from error


def objection(report: Report | None, base_fingerprint: str | None = None) -> str | None:
    """Why an engine must not serve, None when it may.

    On CPU vLLM's own LoRA kernel answers base requests with an adapter's weights; so ours must be in place,
    or the plugin must keep the two apart. `base_fingerprint` is that of the base that the gateway serves;
    where either side does not know its own, nothing is compared.
    """
    if report is None:
        return (
            "our plugin does not answer there (/hotswap/v1/plugin is missing): install hotswap in the "
            "engine's environment and name it in VLLM_PLUGINS, or set fleet.require_plugin = false"
        )
    if (
        None not in (base_fingerprint, report.base_fingerprint)
        and base_fingerprint != report.base_fingerprint
    ):
        return (
            f"it serves another base: its fingerprint is {report.base_fingerprint!s:.12}…, ours "
            f"{base_fingerprint!s:.12}…. Start it with the same prepared base"
        )
    if report.device == "cpu" and report.kept_apart:
        return None
    if report.device == "cpu" and report.lora_kernel != KERNEL:
        return (
            f"its LoRA kernel is {report.lora_kernel!r}, not {KERNEL!r}: on CPU it mixes adapters into "
            "base answers. The engine's log says why the plugin did not replace it"
        )
    if not report.self_test_passed:
        return f"the plugin's self-test failed: {report.self_test_details or 'no details'}"
    return None


def degraded(report: Report | None) -> str | None:
    """What is worse about an engine that may serve, None when all is well."""
    if report is None:
        return "our plugin does not answer there: residency is guessed, and nothing caps its adapters"
    if report.kept_apart:
        why = f": {report.self_test_details}" if not report.self_test_passed else ""
        return (
            f"its LoRA kernel is {report.lora_kernel!r}{why}; base and adapter requests take turns, and "
            "prompt_logprobs are refused"
        )
    if not report.vllm_version.startswith(TESTED):
        return f"it runs vLLM {report.vllm_version}; this gateway was tested with {TESTED}x"
    if "adapters" not in report.routes:
        return f"its plugin is of version {report.plugin_version}, without adapter routes and admission"
    return None


def _count(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{value!r} is no count")
    return value


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
