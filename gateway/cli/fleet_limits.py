"""What the fleet serves, asked of the running gateway, else read from the settings: for recipes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.cli.client import Gateway
    from gateway.settings import Settings
    from training.recipe.resolve import Fleet

ASK_S = 1.0
"""A gateway that does not answer by then is not waited for: a dry run needs none."""


def running(settings: Settings) -> Gateway | None:
    """The gateway that is up, or None; never ends the command, as `client.find` does."""
    from gateway.cli.client import Gateway

    url, key = os.environ.get("HOTSWAP_URL"), os.environ.get("HOTSWAP_API_KEY")
    try:
        url = url or str(json.loads((settings.state_dir / "gateway.json").read_text())["url"])
        key = key or (settings.state_dir / "admin.key").read_text().strip()
    except (OSError, ValueError, KeyError):
        return None
    return Gateway(url.rstrip("/"), key)


def fleet_limits(settings: Settings) -> Fleet:
    """The largest rank and the context that engines serve; the settings' where no gateway answers."""
    from training.recipe.resolve import Fleet

    gateway = running(settings)
    limits = None if gateway is None else _ask(gateway)
    if limits is None:
        return Fleet(settings.engine.max_lora_rank, settings.engine.max_model_len)
    return Fleet(limits["max_lora_rank"], settings.engine.max_model_len, "the running fleet")


def _ask(gateway: Gateway) -> dict[str, Any] | None:
    import httpx

    try:
        answer = httpx.get(
            f"{gateway.url}/admin/v1/fleet",
            headers={"authorization": f"Bearer {gateway.key}"},
            timeout=ASK_S,
        )
        limits = answer.json()["limits"] if answer.is_success else None
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None  # an older gateway, or one that is just going: the settings say it too
    return limits if isinstance(limits, dict) and isinstance(limits.get("max_lora_rank"), int) else None
