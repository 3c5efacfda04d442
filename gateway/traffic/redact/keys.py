"""API keys and tokens by the prefixes their issuers gave them, bearer tokens, JWTs and private keys."""

from __future__ import annotations

import base64
import binascii
import re

from gateway.traffic.redact.kinds import Kind, Span

EDGE = "(?<![A-Za-z0-9])"
REST = r"[A-Za-z0-9_\-]"
NUMBERED = r"(?=[A-Za-z0-9_\-]{0,48}?[0-9])"
"""A digit near its beginning, where a prefix alone could begin a hyphenated word."""

WITH_DASH = re.compile(
    EDGE
    + "(?:"
    + "|".join(
        (
            rf"sk-(?:{NUMBERED}{REST}{{16,}}+|[A-Za-z0-9]{{40,}}+)",  # OpenAI, Anthropic and others
            rf"hs-(?:admin-)?(?:{REST}{{43}}(?!{REST})|{NUMBERED}{REST}{{24,}}+)",  # ours
            r"xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9\-]{10,}+|xapp-[0-9]-[A-Za-z0-9\-]{10,}+",  # Slack
            rf"gl(?:pat|ptt|dt|rt|cbt|soat)-{REST}{{20,}}+",  # GitLab
            rf"(?:pypi|xai|pplx|nvapi|tvly|fw|csk|hsk|cpk)-{NUMBERED}{REST}{{20,}}+",
            r"AGE-SECRET-KEY-1[0-9A-Z]{50,}+",
        )
    )
    + ")"
)
WITH_UNDERSCORE = re.compile(
    EDGE
    + "(?:"
    + "|".join(
        (
            r"gh[a-z]_[A-Za-z0-9]{20,}+|github_pat_[A-Za-z0-9_]{20,}+",  # GitHub
            r"hs_(?:admin_)?[A-Za-z0-9_\-]{16,}+",
            r"hf_[A-Za-z0-9]{20,}+",  # Hugging Face
            r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}+|whsec_[A-Za-z0-9+/]{20,}+=*",  # Stripe
            r"(?:npm|gsk|shpat|shpss|shpca|shppa|dop_v1|doo_v1|lin_api|figd|ntn|r8|sntrys|glsa|rubygems|pul)"
            r"_[A-Za-z0-9_\-]{20,}+",
        )
    )
    + ")"
)
BARE = re.compile(
    EDGE
    + "(?:"
    + "|".join(
        (
            r"(?:AKIA|ASIA|AROA|AIDA|AGPA|ANPA)[0-9A-Z]{16}(?![0-9A-Za-z])",  # AWS
            r"AIza[A-Za-z0-9_\-]{30,}+",  # Google
            r"ya29\.[A-Za-z0-9_\-]{20,}+",
            r"SG\.[A-Za-z0-9_\-]{16,}+\.[A-Za-z0-9_\-]{20,}+",  # SendGrid
            r"hvs\.[A-Za-z0-9_\-]{20,}+",  # Vault
            r"dapi[0-9a-f]{32}(?:-[0-9])?(?![0-9A-Za-z])",  # Databricks
            r"eyJ[A-Za-z0-9_\-]{8,}+(?:\.[A-Za-z0-9_\-]*+){1,4}",  # JWT, JWS, JWE
        )
    )
    + ")"
)
TELEGRAM = re.compile(r"(?<![0-9A-Za-z])[0-9]{8,10}:[A-Za-z0-9_\-]{35}(?![A-Za-z0-9_\-])")
SLACK_HOOK = re.compile(r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_]{20,}+")
BARES = ("AKIA", "ASIA", "AROA", "AIDA", "AGPA", "ANPA", "AIza", "ya29.", "SG.", "hvs.", "dapi", "eyJ")

SCHEME = re.compile(r"(bearer|basic)[ \t]{1,4}([A-Za-z0-9._~+/\-]{8,}+={0,2})", re.IGNORECASE)
PEM = re.compile(r"-----BEGIN ((?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?)-----")


def keys(text: str, lower: str, spans: list[Span], *, long: bool) -> None:
    """Adds the keys of `text`; `lower` is it in lower case, `long` whether it has a long word."""
    if long:
        patterns = []
        if "-" in text:
            patterns.append(WITH_DASH)
        if "_" in text:
            patterns.append(WITH_UNDERSCORE)
        if any(bare in text for bare in BARES):
            patterns.append(BARE)
        if ":" in text:
            patterns.append(TELEGRAM)
        if "hooks.slack.com" in text:
            patterns.append(SLACK_HOOK)
        for pattern in patterns:
            for match in pattern.finditer(text):
                spans.append(Span(match.start(), match.start() + len(match[0].rstrip(".")), Kind.KEY))
    if "bearer" in lower or "basic " in lower:
        for match in SCHEME.finditer(text):
            if _credential(match[1].lower(), match[2]):
                spans.append(Span(match.start(2), match.start(2) + len(match[2].rstrip(".")), Kind.KEY))
    if "PRIVATE KEY" in text:
        _private_keys(text, spans)


def _credential(scheme: str, value: str) -> bool:
    if scheme == "bearer":
        return len(value) >= 32 or (len(value) >= 16 and any(map(str.isdigit, value)))
    try:
        return b":" in base64.b64decode(value.encode("ascii") + b"==", validate=False)
    except (binascii.Error, ValueError):
        return False


def _private_keys(text: str, spans: list[Span]) -> None:
    """To the end of the text when the block was cut off."""
    at = 0
    while (begin := PEM.search(text, at)) is not None:
        end = f"-----END {begin[1]}-----"
        found = text.find(end, begin.end())
        at = found + len(end) if found >= 0 else len(text)
        spans.append(Span(begin.start(), at, Kind.KEY))
