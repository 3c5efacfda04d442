"""Where the lake is, if there is one here."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class LakePlace:
    """`options` are deltalake's own for its store, and may hold secrets."""

    uri: str
    options: Mapping[str, str]


def lake_place(settings: Settings) -> LakePlace | None:
    """None where traffic.lake is off, or deltalake (the extra `lake`) is not installed."""
    if settings.lake_uri is None or importlib.util.find_spec("deltalake") is None:
        return None
    name = settings.traffic.lake_options_env
    return LakePlace(settings.lake_uri, json.loads(os.environ[name]) if name else {})
