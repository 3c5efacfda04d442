"""Where the load goes: an OpenAI endpoint's URL, its key, and the bytes of a request to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from loadtests.plan import Request
from loadtests.scenario import Scenario


class TargetError(ValueError):
    """The target cannot be used as given."""


@dataclass(frozen=True, slots=True)
class Target:
    """`url` is the base, with or without `/v1`: http://127.0.0.1:8000. `headers` go with every request.

    Raises `TargetError` for a URL that is none, or that carries a password, and for a header that is two.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = self._parts
        try:
            port_is_one = parts.port is None or parts.port > 0
        except ValueError:
            port_is_one = False
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_one:
            raise TargetError(f"{self.url!r} is not the URL of a server; give one like http://127.0.0.1:8000")
        if parts.username is not None:
            raise TargetError(
                f"the URL of {parts.hostname} carries credentials; give the key by itself instead"
            )
        for name, value in {**self.headers, "authorization": self.key or ""}.items():
            if not name or any(char in name + value for char in "\r\n\0") or ":" in name:
                raise TargetError(
                    f"header {name!r} has a line end, a NUL, or a colon in its name, so it cannot be sent"
                )

    @property
    def secure(self) -> bool:
        return self._parts.scheme == "https"

    @property
    def host(self) -> str:
        return str(self._parts.hostname)

    @property
    def port(self) -> int:
        return self._parts.port or (443 if self.secure else 80)

    @property
    def path(self) -> str:
        """What comes before `/v1`."""
        return self._parts.path.rstrip("/").removesuffix("/v1")

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    def get(self, path: str) -> bytes:
        """A GET of the absolute `path`, the last on its connection."""
        return f"GET {path} HTTP/1.1\r\n{self._heads}connection: close\r\n\r\n".encode("latin-1")

    def posts(self, scenario: Scenario) -> Posts:
        """Makes the requests of a run of `scenario`."""
        return Posts(self, scenario)

    @property
    def _heads(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        heads = {
            "host": host if self._parts.port is None else f"{host}:{self.port}",
            "user-agent": "hotswap-bench",
            "accept": "*/*",
            "accept-encoding": "identity",
            **({} if self.key is None else {"authorization": f"Bearer {self.key}"}),
            **{name.lower(): value for name, value in self.headers.items()},
        }
        return "".join(f"{name}: {value}\r\n" for name, value in heads.items())


class Posts:
    """The bytes of each request of a run: head and body, as they go on the wire."""

    def __init__(self, target: Target, scenario: Scenario) -> None:
        kind = "chat/completions" if scenario.api == "chat" else "completions"
        self._head = (
            f"POST {target.path}/v1/{kind} HTTP/1.1\r\n{target._heads}"
            "content-type: application/json\r\ncontent-length: "
        ).encode("latin-1")
        self._chat = scenario.api == "chat"
        self._same: dict[str, Any] = {"stream": scenario.stream}
        if scenario.stream:
            self._same["stream_options"] = {"include_usage": True}
        if scenario.temperature is not None:
            self._same["temperature"] = scenario.temperature
        if scenario.ignore_eos:
            self._same["ignore_eos"] = True

    def encode(self, request: Request) -> bytes:
        said = {"messages": request.messages} if self._chat else {"prompt": request.text}
        body = msgspec.json.encode(
            {"model": request.route, **said, "max_tokens": request.max_tokens, **self._same}
        )
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)
