"""What we say to one engine off the request path: is it well, is our plugin there, load and unload."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from gateway.fleet.plugin import Listing

ALREADY_LOADED = "has already been loaded"
"""What vLLM answers (400) to a second load of one name. A name never changes its content: that is success."""

ADAPTERS = "/hotswap/v1/adapters"

KEEP_ALIVE_S = 3.0
"""Less than uvicorn's 5 s, so that idle connections are ours to close."""


class Lost(Exception):
    """The engine does not answer, or says that it is dead. The message says which."""


class NoAnswer(Lost):
    """The engine was too slow: it may be dead or only busy."""


class LoadFailed(Exception):
    """The engine is well and refused something about an adapter. The message is the engine's, without paths.

    `code` is our plugin's, None where vLLM itself answered: `digest_mismatch`, `unknown_version` (the source
    does not have it), `source_failed`, `no_room` (too many are pinned) and others.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class InUse(LoadFailed):
    """Requests use the adapter; it was not removed."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where one engine listens. `key` is sent on every request; it is never shown."""

    host: str
    port: int
    key: str | None = field(default=None, repr=False)
    headers: bytes = field(init=False, repr=False, compare=False)
    """Lines that every request of the relay to it has."""

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"host: {host}:{self.port}", "content-type: application/json"]
        if self.key:
            lines.append(f"authorization: Bearer {self.key}")
        object.__setattr__(self, "headers", "".join(f"{line}\r\n" for line in lines).encode())

    @classmethod
    def parse(cls, url: str, key: str | None) -> Address:
        """Raises `ValueError` for anything but http://host:port: the relay speaks plain HTTP to engines."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise ValueError(
                f"engine url {url!r} is not http://host:port; for TLS put a proxy beside the gateway"
            )
        return cls(parts.hostname, parts.port or 80, key)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Put:
    """An adapter that is registered and resident now. `ms` is what it took the engine, fetching included;
    `evicted`: the other adapter had to go for it, and is gone."""

    fetched: bool
    ms: float
    evicted: bool = False


class Client:
    """One engine's HTTP, on a connection pool of its own. Close it."""

    def __init__(self, address: Address, *, probe_timeout_s: float, load_timeout_s: float) -> None:
        headers = {"authorization": f"Bearer {address.key}"} if address.key else {}
        self._probe_timeout_s = probe_timeout_s
        self._load_timeout_s = load_timeout_s
        self._http = httpx.AsyncClient(
            base_url=address.url,
            headers=headers,
            trust_env=False,  # a proxy for the internet is not one for engines
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_S),
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # unused: the default one reads all CA files
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def health(self) -> None:
        """Returns when the engine says that it can work; raises `Lost` otherwise."""
        answer = await self._send("GET", "/health", self._probe_timeout_s)
        if answer.status_code != 200:
            raise Lost(f"/health answered {answer.status_code}")
        if answer.headers.get("content-type", "").startswith("text/html"):
            raise Lost("/health answered with a web page: this is no engine")

    async def models(self) -> frozenset[str]:
        """Every name that the engine answers to. Raises `Lost`."""
        answer = await self._send("GET", "/v1/models", self._probe_timeout_s)
        if answer.status_code != 200:
            raise Lost(f"/v1/models answered {answer.status_code}: {_message(answer)}")
        try:
            return frozenset(str(model["id"]) for model in answer.json()["data"])
        except (ValueError, KeyError, TypeError) as error:
            raise Lost(f"/v1/models is not a list of models: {_message(answer)}") from error

    async def plugin(self) -> Mapping[str, Any] | None:
        """Our plugin's report, None when the engine has no such endpoint. Raises `Lost`."""
        answer = await self._send("GET", "/hotswap/v1/plugin", self._probe_timeout_s)
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise Lost(f"/hotswap/v1/plugin answered {answer.status_code}: {_message(answer)}")
        try:
            report: Mapping[str, Any] = answer.json()
        except ValueError as error:
            raise Lost(f"/hotswap/v1/plugin did not answer JSON: {_message(answer)}") from error
        return report

    async def load(self, name: str, path: Path) -> None:
        """Registers and loads an adapter; one that is there already is success.

        `path` is absolute: vLLM takes a relative one for a hub id and downloads inside the engine loop.
        Raises `LoadFailed` when the engine refuses, `Lost` when it is gone.
        """
        body = {"lora_name": name, "lora_path": str(path)}
        answer = await self._send("POST", "/v1/load_lora_adapter", self._load_timeout_s, body)
        if answer.status_code == 200:
            return
        message = _message(answer)
        if answer.status_code == 400 and ALREADY_LOADED in message:
            return
        raise LoadFailed(message.replace(str(path), name))

    async def unload(self, name: str) -> None:
        """Makes the engine forget the name; one it does not know is success. Raises as `load` does."""
        body = {"lora_name": name}
        answer = await self._send("POST", "/v1/unload_lora_adapter", self._load_timeout_s, body)
        if answer.status_code not in (200, 404):
            raise LoadFailed(_message(answer))

    async def put_adapter(
        self, name: str, sha256: str, source: str, path: Path | None = None, evict: str | None = None
    ) -> Put:
        """Makes a version registered and resident through our plugin; one that is so already is success.
        `evict` is another that goes for it: `InUse` while requests use that one.

        Without `path`, a folder of an adapter store that the engine sees too, the engine fetches the files
        from `source`, the origin of a gateway (http://host:port). Raises `LoadFailed`, `Lost`.
        """
        body = {"sha256": sha256, "source": source} | ({} if path is None else {"path": str(path)})
        body |= {} if evict is None else {"evict": evict}
        answer = await self._send("PUT", _adapter(name), self._load_timeout_s, body)
        if answer.status_code == 409 and _code(answer) == "in_flight":
            raise InUse(_message(answer), "in_flight")
        if answer.status_code != 200:
            refusal = _refusal(answer)
            if path is None or not isinstance(refusal, LoadFailed):
                raise refusal
            # An engine that quotes the path must not tell our clients where the store is.
            raise LoadFailed(str(refusal).replace(str(path), name), refusal.code)
        try:
            told = answer.json()
            return Put(told["fetched"] is True, float(told["ms"]), told.get("evicted") is True)
        except (ValueError, KeyError, TypeError) as error:
            raise Lost(f"a load was answered with something else: {_message(answer)}") from error

    async def remove_adapter(self, name: str) -> None:
        """Frees the adapter's slot and its place in the CPU cache; one it does not know is success.

        Raises `InUse` while requests use it, `LoadFailed`, `Lost`.
        """
        answer = await self._send("DELETE", _adapter(name), self._load_timeout_s)
        if answer.status_code == 409 and _code(answer) == "in_flight":
            raise InUse(_message(answer), "in_flight")
        if answer.status_code not in (200, 404):
            raise _refusal(answer)

    async def pin(self, name: str) -> None:
        """Keeps a registered adapter in the CPU cache, reading it again if it was evicted.

        Raises `LoadFailed` (code `unknown_adapter` for one that is not registered, `no_room`), `Lost`.
        """
        await self._pin(name, "pin")

    async def unpin(self, name: str) -> None:
        """Lets it be evicted again. Raises as `pin` does."""
        await self._pin(name, "unpin")

    async def tensors(self, name: str) -> dict[str, Any]:
        """Digests of the weights that a registered adapter has in its slot: `dtype`, and by the name of each
        layer those of A and B (`adapters.vllm_plugin.tensors`). Raises `LoadFailed`, `Lost`.
        """
        answer = await self._send("GET", f"{_adapter(name)}/tensors", self._load_timeout_s)
        if answer.status_code != 200:
            raise _refusal(answer)
        try:
            told: dict[str, Any] = answer.json()
            return {"dtype": told["dtype"], "tensors": dict(told["tensors"])}
        except (ValueError, KeyError, TypeError) as error:
            raise Lost(f"it told of tensors in another way: {_message(answer)}") from error

    async def adapters(self) -> Listing | None:
        """What is resident, None when the engine has no such endpoint. Raises `Lost`."""
        answer = await self._send("GET", ADAPTERS, self._probe_timeout_s)
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise Lost(f"{ADAPTERS} answered {answer.status_code}: {_message(answer)}")
        try:
            return Listing.read(answer.json())
        except ValueError as error:
            raise Lost(f"{ADAPTERS}: {error}") from error

    async def _pin(self, name: str, verb: str) -> None:
        answer = await self._send("POST", f"{_adapter(name)}/{verb}", self._load_timeout_s)
        if answer.status_code != 200:
            raise _refusal(answer)

    async def _send(self, method: str, path: str, timeout_s: float, body: Any = None) -> httpx.Response:
        try:
            try:
                return await self._http.request(method, path, json=body, timeout=timeout_s)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # An idle connection that the engine closed just as we used it says nothing about the engine.
                # Everything we send may be sent twice; a dead engine refuses the second one's connection.
                return await self._http.request(method, path, json=body, timeout=timeout_s)
        except httpx.TimeoutException as error:
            raise NoAnswer(f"{path} did not answer within {timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise Lost(f"{path}: {type(error).__name__} {error}") from error


def _adapter(name: str) -> str:
    return f"{ADAPTERS}/{quote(name, safe='@')}"


def _refusal(answer: httpx.Response) -> Exception:
    """What our plugin's no means. It names no paths."""
    message, code = _message(answer), _code(answer)
    if code == "engine_dead":
        return Lost(message)
    if code == "engine_slow":
        return NoAnswer(message)
    return LoadFailed(message, code)


def _code(answer: httpx.Response) -> str | None:
    try:
        code = answer.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return code if isinstance(code, str) else None


def _message(answer: httpx.Response) -> str:
    """The engine's own words, in whichever of OpenAI's and FastAPI's shapes they come."""
    try:
        body = answer.json()
        error = body.get("error", body)
        return str(error.get("message", error) if isinstance(error, dict) else error)[:500]
    except ValueError:
        return answer.text[:500] or f"status {answer.status_code}"
