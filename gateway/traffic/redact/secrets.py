"""Passwords and other secrets by what stands before them: a URL's scheme, or a name and an assignment."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.traffic.redact.kinds import PLACEHOLDER, Kind, Span

NO_PORT = r"(?![0-9A-Za-z.\-]{0,253}:[0-9]{1,5}[/?#])"
USERINFO = re.compile(
    rf"""://{NO_PORT}"""
    r"""([^\s/?\#@:"'<>]{0,128}:(?:[^\s/?\#"'<>]{1,128}|[^\s"'<>]{1,128}?)|[^\s/?\#@:"'<>]{16,128})@(?=[\w\[])"""
)
TEMPLATE = re.compile(r"(?:\A|:)(?:\{|\$\{|%\()")
STEMS = ("pass", "pwd", "secret", "token", "key", "credential")
WHOLE = ("password", "passwd", "passphrase", "passcode")
COMPOUNDS = ("db", "user", "my", "root")
NAME = r"(?:pass(?:word|wd|phrase|code|wort)|passw|pass|pwd|secret|token|key|credentials?)"
SUFFIX = r"(?:[_\- ]?(?:access[_\- ]?key|key|token|value|string|base64|b64|text))?"
ASSIGNED = re.compile(
    NAME
    + SUFFIX
    + r"""(?:\\?["'`\])]){0,2}[ \t]{0,4}(?P<sign>=>|:=|==?|:|>|[ ]is[ ](?:now[ ])?:?)[ \t]{0,4}"""
    + r"""(?:\\?["'`](?P<quoted>[^"'`\n]{1,512})"""
    + r"""|(?P<bare>[^\s"'`,;&<>)\]}\\»\u201c\u201d\u2019]{4,512}))"""
)
OPTION = re.compile(NAME + SUFFIX + r"""(?:[= ])["']?(?P<bare>[^\s"'`,;&<>»\u201c\u201d\u2019]{4,512})""")
KEY_BEFORE = re.compile(
    r"(?:api|access|auth|private|secret|encryption|signing|account|master|shared|license|ssh)[_\- ]?\Z"
)
NOT_SECRET = re.compile(
    r"(?:\$|\{|<|%\(|os\.|process\.|env\b|getenv|your|my[_-]|self\.|settings\.|config\.|request\.|args\.|none\b|null\b"
    r"|nil\b|true\b|false\b|undefined\b|str\b|string\b|int\b|optional\b|required\b|example|changeme\b|redacted|hidden"
    r"|placeholder|secret(?:str)?\b|password\b|token\b|field\(|input\(|(?P<one>.)(?P=one)*\Z)",
    re.IGNORECASE,
)
CODE = re.compile(r"[A-Za-z_]\w*(?:[\[(]|\.[A-Za-z_])|(?:await|not|self|new)\Z")
NAMED = re.compile(
    r"(?:.{0,64}[_\-. ])?(?:pass(?:word|wd|phrase|code|wort)|pwd|(?:client|app|shared|webhook)?[_\-]?secret"
    r"|(?:api|secret|private|access|auth|encryption|signing|master|account)[_\-]?key"
    r"|(?:access|refresh|auth|api|bearer|id|session|csrf|secret|security)[_\-]?token|credentials?|authorization)"
    r"(?:[_\-](?:key|value|base64|id))?",
    re.IGNORECASE,
)


def userinfo(text: str, spans: list[Span]) -> frozenset[int]:
    """Adds what stands before the '@' in URLs; returns where those '@' are."""
    places = []
    for match in USERINFO.finditer(text):
        if PLACEHOLDER.fullmatch(match[1]) is None and TEMPLATE.search(match[1]) is None:
            spans.append(Span(match.start(1), match.end(1), Kind.SECRET))
        places.append(match.end() - 1)
    return frozenset(places)


def assigned(text: str, lower: str, spans: list[Span]) -> None:
    """Adds the values that `text` gives to names like password, api_key or token."""
    for stem in STEMS:
        at = lower.find(stem)
        while at >= 0:
            spans += _value(text, lower, stem, at)
            at = lower.find(stem, at + len(stem))


def _value(text: str, lower: str, stem: str, at: int) -> Iterator[Span]:
    before = lower[max(0, at - 12) : at]
    if stem == "key" and KEY_BEFORE.search(before) is None:
        return
    whole = lower.startswith(WHOLE, at)
    if before[-1:].isalpha() and stem in ("pass", "pwd") and not whole and not before.endswith(COMPOUNDS):
        return
    match = ASSIGNED.match(lower, at)
    if match is None and before.endswith("--"):
        match = OPTION.match(lower, at)
    if match is None:
        return
    groups = match.groupdict()
    quoted = groups.get("quoted") is not None
    start, end = match.span("quoted" if quoted else "bare")
    sign = (groups.get("sign") or "=").strip()
    if PLACEHOLDER.match(text, start):
        return
    value = text[start:end]
    if not quoted:
        value = value.rstrip(".:")
    elif value.endswith("\\"):
        value = value[:-1]
    if sign.startswith("is") and stem not in ("pass", "pwd"):
        return
    strict = sign not in ("=", "==", "=>", ":=") and not quoted
    if not quoted and lower[match.start() : start].endswith(" ") and CODE.match(value):
        return
    if _plausible(value, stem, strict=strict, quoted=quoted):
        yield Span(start, start + len(value), Kind.SECRET)


def _plausible(value: str, stem: str, *, strict: bool, quoted: bool) -> bool:
    if len(value) < 4 or NOT_SECRET.match(value):
        return False
    if quoted and value[0] in ",;) ":
        return False
    if not quoted and ("(" in value or value.startswith(("/", "http"))):
        return False
    digits = sum(map(str.isdigit, value))
    if stem in ("pass", "pwd"):
        if quoted and strict:
            return True
        mixed = digits or not value.isalpha() or (value != value.lower() and value != value.capitalize())
        return bool(mixed) or not strict
    if " " in value:
        return False
    if digits == len(value):
        return len(value) >= 10
    return len(value) >= 8 and (digits > 0 or len(value) >= 20)


def names_secret(name: str) -> bool:
    """Whether a member of this name holds a secret: `password`, `client_secret`, `API-Key`."""
    return len(name) <= 96 and NAMED.fullmatch(name) is not None
