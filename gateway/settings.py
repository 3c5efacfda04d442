"""Every setting, typed, documented, with its default.

Precedence: flag > environment (`HOTSWAP_SECTION__KEY`) > file (`hotswap.toml`) > default. `load()` returns
the settings and, for each value, where it came from, which `hotswap config check` prints. Secrets are never
values here: a setting names the environment variable or file that holds one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from gateway.section import GIB, MIB, Section
from gateway.training_settings import EvaluationSettings, FilesSettings, JobsSettings

ENVIRONMENT_PREFIX = "HOTSWAP_"
DEFAULT_FILE = "hotswap.toml"


class SettingsError(Exception):
    """A setting is unknown or has an impossible value; the message names it and where it came from."""


class Server(Section):
    """Where the gateway listens and what it accepts."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    workers: int = Field(
        1, ge=1, le=64, description="gateway processes that share the port; each can use one core"
    )
    max_body_bytes: int = Field(8 * MIB, gt=0, description="largest request body on /v1; above it 413")
    body_timeout_s: float = Field(30.0, gt=0, description="a body that arrives slower than this is refused")
    drain_s: float = Field(30.0, ge=0, description="after SIGTERM, streams may go on for this long")
    allow_fields: tuple[str, ...] = Field(
        (), description="request fields of the deny list that this deployment allows, e.g. chat_template"
    )


class Base(Section):
    """The base model that the fleet serves."""

    name: str = Field("smollm2-135m-instruct", description="what clients write in `model` to reach the base")
    path: Path | None = Field(None, description="prepared base; default <state_dir>/base/<name>")


class Engine(Section):
    """The local engine that `hotswap up` supervises. Ignored when `engines` names remote ones."""

    enabled: bool = Field(True, description="start a local engine")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="cuda when an NVIDIA device is there")
    python: Path | None = Field(None, description="interpreter that has vLLM; default: the gateway's own")
    api_key_env: str | None = Field(
        None, description="environment variable that holds the engine's key; default: a random one per start"
    )
    quantization: str | None = Field(
        None, description="nf4, none, or any vLLM method (awq, gptq, fp8, bitsandbytes); default: nf4 on cpu"
    )
    count: int = Field(1, ge=1, le=64, description="local engines; on GPUs one each, on CPU one core each")
    max_loras: int = Field(8, ge=1, description="adapters that one batch may mix (slots)")
    max_cpu_loras: int = Field(64, ge=1, description="adapters kept in the engine's CPU cache")
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = Field(
        32, description="largest rank served"
    )
    max_model_len: int = Field(2048, ge=16, description="context window, tokens")
    kv_cache_gib: int = Field(1, ge=1, description="KV cache on CPU, GiB")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of the GPU that vLLM takes")
    tool_call_parser: str = Field("hermes", description="vLLM's parser for tool calls; depends on the base")
    extra_args: tuple[str, ...] = Field((), description="more vLLM flags, passed as they are")
    plugin: bool = Field(True, description="load our plugin in the engine; off only to show what it prevents")
    start_timeout_s: float = Field(300.0, gt=0, description="give up on a start after this long, and restart")
    stop_timeout_s: float = Field(20.0, gt=0, description="SIGTERM to SIGKILL")


class RemoteEngine(Section):
    """An engine that somebody else started, or every engine behind a DNS name (a headless service)."""

    url: str = Field(description="http://host:port, or dns://name:port for one engine an address")
    api_key_env: str | None = Field(None, description="environment variable that holds its API key")
    shared_store: bool = Field(
        False, description="it sees our adapter store at the same path; otherwise it fetches by sha256"
    )


class Fleet(Section):
    """How engines are watched and adapters loaded."""

    require_plugin: bool = Field(
        True, description="take an engine into service only with our plugin's checks passed"
    )
    probe_interval_s: float = Field(1.0, gt=0, description="health probe period")
    probe_timeout_s: float = Field(5.0, gt=0, description="a probe slower than this failed")
    load_timeout_s: float = Field(60.0, gt=0, description="an adapter load slower than this failed")
    loads_per_s: float = Field(
        10.0, gt=0, description="adapter loads an engine; each stalls its streams for 20 to 50 ms"
    )
    load_burst: int = Field(2, ge=1, description="loads that may follow each other without a pause")
    advertise_url: str | None = Field(
        None, description="where engines without our disk fetch adapters; default http://<host>:<port>"
    )
    keep_resident: int = Field(
        1, ge=0, description="retired versions a route whose engines keep them, for a rollback at once"
    )
    queue: int = Field(1000, ge=1, description="requests that may wait at one engine; above it 429")
    queue_timeout_s: float = Field(30.0, gt=0, description="a request that waited this long is answered 503")
    age_bound_s: float = Field(2.0, gt=0, description="a version that waited this long is served next")
    spill_after_s: float = Field(
        0.5, ge=0, description="after this long a request takes another engine's free slot"
    )
    max_in_flight: int | None = Field(
        None, ge=1, description="requests at one engine; default: its max_num_seqs, so that it queues none"
    )
    placement_interval_s: float = Field(
        5.0, gt=0, description="how often homes of versions follow the traffic"
    )
    answer_timeout_s: float = Field(
        600.0, gt=0, description="an engine that has not begun an answer by then has failed"
    )
    stall_timeout_s: float = Field(60.0, gt=0, description="an answer that stops for this long has failed")
    retry_share: float = Field(
        0.1, ge=0, le=1, description="retries on another engine, as a share of all requests"
    )
    eject_after: int = Field(3, ge=1, description="failures in a row that put an engine out of service")
    eject_s: float = Field(2.0, gt=0, description="for how long, at first; doubled each time")
    eject_max_s: float = Field(60.0, gt=0, description="for how long at most")
    slow_start_s: float = Field(10.0, ge=0, description="an engine that came back gets its full share after")
    dns_interval_s: float = Field(5.0, gt=0, description="how often dns:// engines are looked up")


class DatabaseSettings(Section):
    """Postgres: embedded unless a DSN is given."""

    url_env: str | None = Field(
        None, description="environment variable with postgresql://… ; unset: embedded"
    )


class RegistrySettings(Section):
    """What the registry accepts and keeps."""

    max_adapter_bytes: int = Field(2 * GIB, gt=0, description="largest adapter accepted")
    quota_bytes: int = Field(20 * GIB, gt=0, description="all versions together")
    keep_versions: int = Field(5, ge=1, description="newest versions of an adapter that collection keeps")
    require_card: bool = Field(
        True, description="promote only versions with a passed report card; --force is recorded"
    )


class PresidioSettings(Section):
    """A second tier of redaction: what strict routes leave is examined by presidio on its way to the lake."""

    enabled: bool = Field(False, description="examine it; needs `pip install 'hotswap[presidio]'`")
    languages: tuple[Annotated[str, Field(pattern="^[a-z]{2,3}$")], ...] = Field(
        ("en",), min_length=1, description="each text is examined in every one of these"
    )
    models: dict[str, str] = Field(
        {}, description="spaCy pipeline by language, a package or a folder; without one no names are found"
    )
    entities: tuple[str, ...] = Field(
        (), description="what is taken out, as presidio calls it; empty: names and numbers of papers"
    )
    score: float = Field(0.4, gt=0, le=1, description="how sure presidio must be")

    @model_validator(mode="after")
    def _models_are_of_languages(self) -> PresidioSettings:
        for language in self.models:
            if language not in self.languages:
                raise ValueError(f"there is a model for {language!r}, which is not one of `languages`")
        return self


class TrafficSettings(Section):
    """What is remembered of traffic, and where. `hotswap traffic policy` has rules for routes and keys."""

    capture: Literal["off", "metadata", "full"] = Field(
        "full", description="what is remembered of an exchange: nothing, tokens and times, or messages too"
    )
    sample: float = Field(1.0, ge=0, le=1, description="share of exchanges that are remembered")
    redact: Literal["off", "strict"] = Field(
        "off", description="strict: personal data and secrets are taken out before anything touches a disk"
    )
    retention_days: int = Field(90, ge=1, description="days that an exchange is kept")
    consent: str | None = Field(
        None, max_length=200, description="on what basis it may be kept, for the record"
    )
    lake: str | None = Field(
        None, description="Delta table: a folder, or s3://…; default: <state_dir>/lake. 'off': journal only"
    )
    lake_options_env: str | None = Field(
        None, description="environment variable with deltalake's storage options, as a JSON object"
    )
    ship_every_s: float = Field(5.0, gt=0, description="how often closed segments go to the lake")
    journal: Path | None = Field(None, description="folder of the journal; default: <state_dir>/journal")
    journal_bytes: int = Field(
        10 * GIB, ge=2**20, description="most that the journal may take; then new records are dropped"
    )
    segment_bytes: int = Field(64 * 2**20, ge=2**12, description="a segment of the journal is closed at this")
    segment_age_s: float = Field(10.0, gt=0, description="or at this age, and shipped to the lake")
    presidio: PresidioSettings = Field(default_factory=PresidioSettings)


class Settings(Section):
    """The whole configuration."""

    state_dir: Path = Field(Path(".hotswap"), description="everything the product writes lives under it")
    server: Server = Field(default_factory=Server)
    base: Base = Field(default_factory=Base)
    engine: Engine = Field(default_factory=Engine)
    engines: tuple[RemoteEngine, ...] = Field((), description="remote engines, instead of a local one")
    fleet: Fleet = Field(default_factory=Fleet)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    traffic: TrafficSettings = Field(default_factory=TrafficSettings)
    files: FilesSettings = Field(default_factory=FilesSettings)
    jobs: JobsSettings = Field(default_factory=JobsSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)

    @property
    def base_path(self) -> Path:
        """Absolute folder of the prepared base."""
        return (self.base.path or self.state_dir / "base" / self.base.name).resolve()

    @property
    def store_path(self) -> Path:
        """Absolute folder of the content-addressed adapter store."""
        return (self.state_dir / "adapters").resolve()

    @property
    def files_path(self) -> Path:
        """Absolute folder of the content-addressed files of the Files API."""
        return (self.state_dir / "files").resolve()

    @property
    def jobs_path(self) -> Path:
        """Absolute folder in which jobs keep rows, checkpoints and logs, one folder each."""
        return (self.jobs.folder or self.state_dir / "jobs").resolve()

    @property
    def journal_path(self) -> Path:
        """Absolute folder of the traffic journal."""
        return (self.traffic.journal or self.state_dir / "journal").resolve()

    @property
    def lake_uri(self) -> str | None:
        """Where the lake is, a folder by its absolute path; None: nowhere."""
        if self.traffic.lake == "off":
            return None
        given = self.traffic.lake or str(self.state_dir / "lake")
        return given if "://" in given else str(Path(given).resolve())

    @property
    def source(self) -> str:
        """Where engines that do not see our disk fetch adapters from, an origin."""
        if self.fleet.advertise_url is not None:
            return self.fleet.advertise_url.rstrip("/")
        any_host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 (compared with, not bound)
        return f"http://{any_host.get(self.server.host, self.server.host)}:{self.server.port}"

    @property
    def log_path(self) -> Path:
        """Absolute folder of the logs."""
        return (self.state_dir / "logs").resolve()


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> tuple[Settings, dict[str, str]]:
    """Settings, and for every dotted key where its value came from ("default", "file …", "env …", "flag").

    `flags` are dotted keys ("server.port") with values; None values are ignored. Environment values are
    parsed as TOML when they parse, else taken as text. Raises `SettingsError` for a file that is missing
    when named, does not parse, has unknown keys (the nearest known one is suggested) or impossible values.
    """
    environment = os.environ if environment is None else environment
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    path = file or Path(environment.get(f"{ENVIRONMENT_PREFIX}CONFIG", DEFAULT_FILE))
    if path.exists():
        try:
            table = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{path} is not valid TOML: {error}") from error
        for key, value in _flatten(table, Settings):
            _put(merged, key, value)
            origin[key] = f"file {path}"
    elif file is not None:
        raise SettingsError(f"settings file {file} does not exist")
    for name, text in environment.items():
        key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
        if name.startswith(ENVIRONMENT_PREFIX) and key in dict(_known(Settings)):
            _put(merged, key, _parse(text))
            origin[key] = f"env {name}"
    for key, value in (flags or {}).items():
        if value is not None:
            _put(merged, key, value)
            origin[key] = "flag"
    try:
        settings = TypeAdapter(Settings).validate_python(merged)
    except ValidationError as error:
        raise SettingsError(_explain(error, origin)) from error
    return settings, {key: origin.get(key, "default") for key, _ in _known(Settings)}


def describe(model: type[BaseModel] = Settings) -> Iterator[tuple[str, str]]:
    """(dotted key, description) for every setting."""
    yield from _known(model)


def value_of(settings: Settings, key: str) -> Any:
    """The value under a dotted key."""
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _known(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _known(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field.description or ""


def _flatten(table: Mapping[str, Any], model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        field = model.model_fields.get(name)
        if field is None:
            raise SettingsError(f"unknown setting {prefix + name!r}{_suggestion(prefix + name)}")
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section) and isinstance(value, Mapping):
            yield from _flatten(value, kind, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _suggestion(key: str) -> str:
    known = [known for known, _ in _known(Settings)]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5) or difflib.get_close_matches(
        key.rpartition(".")[2], [known.rpartition(".")[2] for known in known], n=1
    )
    return f"; did you mean {near[0]!r}?" if near else "; `hotswap config check` lists them all"


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        table = table.setdefault(part, {})
    table[last] = value


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError, origin: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        hint = _suggestion(key) if problem["type"] == "extra_forbidden" else ""
        lines.append(f"{key} = {problem['input']!r} ({origin.get(key, 'default')}): {problem['msg']}{hint}")
    return "\n".join(lines)
