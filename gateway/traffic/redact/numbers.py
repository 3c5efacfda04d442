"""Numbers: payment cards and IBANs by their checksums, then phone numbers and IPv4 addresses by their looks.

One scan finds runs of digits with little between them; everything else looks only at those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.traffic.redact.kinds import Kind, Span
from gateway.traffic.redact.phones import phones

DIGIT = re.compile("[0-9]")
BETWEEN = r" \t\r\n.\-/()\[\]_+"
RUN = re.compile(
    # After two letters, which may be an IBAN's, or long enough for anything else.
    rf"[0-9](?:(?<=[A-Za-z]{{2}}[0-9])|(?=[0-9{BETWEEN}]{{6}}))[0-9]*+(?:[{BETWEEN}]{{1,3}}+[0-9]++)*+"
)
GROUP = re.compile("[0-9]+")
SHORTEST = 7
"""Characters of the shortest phone number and IPv4 address."""

ISSUERS = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|(?:30[0-5]|309|36[0-9]|3[89][0-9])[0-9]{11,16}"  # Diners Club
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12,15}"  # JCB
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12,15}"  # Discover, RuPay, Elo
    r"|(?:62|81|82)[0-9]{14,17}"  # UnionPay, RuPay
    r"|60[0-9]{14}"  # RuPay, Hipercard
    r"|(?:5018|5019|5020|5038|6304|6759|676[1-3]|6767|5[6-8][0-9]{2})[0-9]{9,15}"  # Maestro
    r"|50[6-9][0-9]{13,16}"  # Verve, Elo, RuPay
    r"|220[0-4][0-9]{12,15}"  # Mir
    r"|9792[0-9]{12}|63[7-9][0-9]{13}"  # Troy, InstaPayment
)
DOUBLED = bytes.maketrans(b"0123456789", bytes([0, 2, 4, 6, 8, 1, 3, 5, 7, 9]))
SINGLE = bytes.maketrans(b"0123456789", bytes(range(10)))
STANDARD = ([4, 6, 5], [4, 6, 4], [6, 13], [8, 4, 4], [4, 4, 8], [4, 8, 4])
HEX_TOKEN = re.compile(r"[0-9A-Fa-f-]{24,}+")
LEFT, RIGHT = 64, 64

# SWIFT's IBAN registry, and those that use IBANs without being in it.
IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "AO CV GW LY MZ PT ST",
        26: "DZ IR IS TR",
        27: "BI CF CG CM DJ FR GA GQ GR IT KM MC MG MR SM TD",
        28: "AL AZ BF BJ BY CI CY DO GT HN HU LB MA ML NE NI PL SN SV TG",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
IBAN_REST = {
    length: re.compile(rf"[0-9]{{2}}(?:[ \t\r\n.\-_+]{{0,2}}[A-Za-z0-9]){{{length - 4}}}(?![A-Za-z0-9])")
    for length in set(IBAN_LENGTHS.values())
}
OCTET = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
DOT = r"(?:\.|\[\.\]|\(\.\))"
IPV4 = re.compile(rf"(?<![0-9.])(?<![A-Za-z]-)(?:{OCTET}{DOT}){{3}}{OCTET}(?![0-9]|\.[0-9]|[.\-+]?[A-Za-z_])")
NOT_ADDRESS = re.compile(
    r"(?:\b(?:v|ver|version|release|build|firmware|driver|section|chapter|clause|paragraph|rule|step|upgrade[sd]?"
    r"|update[sd]?|patch|revision|rev)[\s.:=]{0,3}(?:to\s|no\.?\s|number\s)?|§\s?|[<>=~!]=\s?)\Z",
    re.IGNORECASE,
)


def numbers(text: str, spans: list[Span]) -> None:
    """Adds the cards, IBANs, phone numbers and IPv4 addresses of `text` to `spans`."""
    at = 0
    while (match := RUN.search(text, at)) is not None:
        start, at = match.span()
        if start >= 2 and text[start - 1].isalpha() and (end := _iban(text, start)):
            spans.append(Span(start - 2, end, Kind.IBAN))
            at = end
            continue
        if at - start < SHORTEST:
            continue
        taken = list(_cards(text, start, at))
        if text.count(".", start, at) >= 3:
            taken += _addresses(text, start, at)
        spans += taken
        begin = start
        for span in sorted(taken):
            phones(text, begin, span.start, spans)
            begin = span.end
        phones(text, begin, at, spans)


def card(digits: str) -> bool:
    """Whether `digits`, ASCII, are a card number: an issuer's prefix and length, and Luhn's sum."""
    return ISSUERS.fullmatch(digits) is not None and _luhn(digits)


def _luhn(digits: str) -> bool:
    backwards = digits[::-1].encode()
    return (sum(backwards[::2].translate(SINGLE)) + sum(backwards[1::2].translate(DOUBLED))) % 10 == 0


def _iban(text: str, start: int) -> int:
    """The end of the IBAN whose check digits begin at `start`, or 0."""
    length = IBAN_LENGTHS.get(text[start - 2 : start].upper())
    if length is None or (rest := IBAN_REST[length].match(text, start)) is None:
        return 0
    letters = "".join(filter(str.isalnum, rest[0])).upper()
    country = text[start - 2 : start].upper()
    number = "".join(str(int(letter, 36)) for letter in letters[2:] + country + letters[:2])
    return rest.end() if int(number) % 97 == 1 else 0


def _cards(text: str, start: int, end: int) -> Iterator[Span]:
    groups = [match.span() for match in GROUP.finditer(text, start, end)]
    if sum(stop - begin for begin, stop in groups) < 13:
        return
    first = 0
    while first < len(groups):
        last = _card(text, groups, first)
        if last is None:
            first += 1
            continue
        yield Span(groups[first][0], groups[last][1], Kind.CARD)
        first = last + 1


def _card(text: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """The last group of the longest card that begins with group `first`."""
    if len(groups) - first >= 20 and groups[first][1] - groups[first][0] < 4:
        return None
    digits = ""
    candidates = []
    for last in range(first, min(len(groups), first + 19)):
        begin, stop = groups[last]
        if len(digits) + stop - begin > 19:
            break
        digits += text[begin:stop]
        if len(digits) >= 13:
            candidates.append((last, digits))
    for last, digits in reversed(candidates):
        if card(digits) and _looks_like_card(text, groups, first, last):
            return last
    return None


def _looks_like_card(text: str, groups: list[tuple[int, int]], first: int, last: int) -> bool:
    sizes = [stop - begin for begin, stop in groups[first : last + 1]]
    begin, end = groups[first][0], groups[last][1]
    if len(sizes) == 1:
        # The decimals of a fraction are no card: half of all random floats have sixteen of them.
        if text[begin - 1 : begin] in (".", ",") and text[begin - 2 : begin - 1].isdigit():
            return False
        if sizes == [13] and text[begin - 1 : begin] == "+":  # a phone number's length, and one in ten passes
            return False
    elif sizes not in STANDARD:
        if set(sizes[:-1]) != {sizes[0]} or sizes[-1] > sizes[0]:
            return False
        # Digit by digit, or in pairs: only when there is nothing else in the row.
        if sizes[0] < 4 and (first > 0 or last < len(groups) - 1):
            return False
        if text.count("\n", begin, end) > 1 or ("_" in text[begin:end] and text[begin - 1 : begin] == "."):
            return False
    return not _in_hex(text, begin, end)


def _in_hex(text: str, begin: int, end: int) -> bool:
    """Part of a hash or a UUID."""
    if not (_hex_letter(text[begin - 1 : begin]) or _hex_letter(text[end : end + 1])):
        return False
    around = max(0, begin - LEFT)
    return any(
        match.start() + around <= begin and end <= match.end() + around and not match[0].isdigit()
        for match in HEX_TOKEN.finditer(text[around : end + RIGHT])
    )


def _hex_letter(character: str) -> bool:
    return character != "" and character in "abcdefABCDEF-"


def _addresses(text: str, start: int, end: int) -> Iterator[Span]:
    for match in IPV4.finditer(text, start, end + 2):  # it looks two characters ahead
        if not _is_version(text, match):
            yield Span(match.start(), match.end(), Kind.IPV4)


def _is_version(text: str, match: re.Match[str]) -> bool:
    start = match.start()
    if match[0].endswith(".0.0.0"):  # networks, and a browser's frozen version
        return True
    before = text[max(0, start - 24) : start]
    if before and (before[-1].isalpha() or before[-1] in "_~^"):
        return True
    return NOT_ADDRESS.search(before) is not None
