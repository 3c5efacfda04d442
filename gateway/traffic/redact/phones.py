"""Phone numbers: international, and national ones where their form or the words before them tell."""

from __future__ import annotations

import re

from gateway.traffic.redact.kinds import Kind, Span

SEPARATED = r"[ \t.\-/()+_]{0,3}"
INTERNATIONAL = re.compile(rf"(?:\+ ?|00[ ./\-]?)\(?[1-9](?:{SEPARATED}[0-9]){{6,16}}(?![0-9])")
GROUP = re.compile("[0-9]+")

LENGTHS = {
    str(code): bounds
    for bounds, codes in {
        (8, 12): (352,),
        (8, 13): (358,),
        (8, 14): (43, 49),
        (9, 12): (46,),
        (9, 13): (39,),
        (10, 10): (45, 47, 65, 354),
        (10, 11): (31, 32, 36, 51, 66, 372),
        (10, 12): (20, 60, 64, 82, 353),
        (10, 14): (62,),
        (11, 11): (1, 7, 27, 33, 34, 40, 41, 48, 56, 61, 94, 370, 371, 386, 852),
        (11, 12): (44, 57, 63, 81, 84, 359, 385, 886, 966, 971, 972),
        (11, 13): (54,),
        (12, 12): (30, 90, 91, 92, 98, 351, 380, 420, 421),
        (12, 13): (52, 55, 86),
    }.items()
    for code in codes
}
"""Digits with the country's code, fewest and most, where the plan is known; elsewhere 8 to 15 (E.164)."""
ZONES = re.compile(
    "1|7|20|2[1-69][0-9]|27|28[0-9]|3[0-469]|3[578][0-9]|4[013-9]|42[0-9]|5[1-8]|5[09][0-9]|6[0-6]|6[7-9][0-9]"
    "|8[1246]|8[0578][0-9]|9[0-58]|9[679][0-9]"
)

FORMS = re.compile(
    r"""
      (?:1[ .\-])?(?:\([2-9][0-9]{2}\)[ .\-]?|[2-9][0-9]{2}[ .\-])[2-9][0-9]{2}[ .\-][0-9]{4}   # NANP
    | 8[ \-]?(?:\(9[0-9]{2}\)|9[0-9]{2})[ \-][0-9]{3}[ \-][0-9]{2}[ \-]?[0-9]{2}                # Russia
    | 1[3-9][0-9](?:[ \-]?[0-9]{4}){2}                                                          # China
    | [6-9][0-9]{2}(?:[ ][0-9]{2}){3}                                                           # Spain
    | [6-9][0-9]{4}[ ][0-9]{5}                                                                  # India
    | \((?!19|20)[1-9][0-9]{1,4}\)[ \-]?[0-9]{3,5}[ \-][0-9]{4}                                 # area code
    | (?P<trunk>\(?0[1-9][0-9]{0,4}\)?(?:[ ]?[\-/.]?[ ]?[0-9]{2,8}){1,5}(?![0-9]))
    """,
    re.VERBOSE,
)
CUED = re.compile(r"\(?[0-9]{1,5}\)?(?:[ .\-/]{0,3}[0-9]){5,14}(?![0-9])")

CUE = re.compile(
    r"(?:phone|\btel\b|\bcall|mobile|\bcell|\bfax|whatsapp|\btext\s+(?:me|us|her|him|them)|\bsms\b|\bdial|telefon"
    r"|tel[eé]fono|\bhandy|rufnummer|m[oó]vil|celular|portable|\bring\b|hotline|\bcontact number|电话|手机)"
    r"[^0-9]{0,28}\Z",
    re.IGNORECASE,
)
NOT_CUE = re.compile(
    r"(?:order|invoice|ref|reference|ticket|\bid|isbn|issn|sku|serial|tracking|batch|part|version|build|commit|item"
    r"|article|case|model|booking|parcel|account|customer|transaction|product|barcode|ean|upc|vat|docket|case|patent)"
    r"(?:-1[03])?[^\w\n]{0,3}(?:(?:no|nr|num|number|id|code)\b[^\w\n]{0,3})?(?:is\s)?\Z",
    re.IGNORECASE,
)
DATE = re.compile(
    r"(?:0?[1-9]|[12][0-9]|3[01])[./ \-](?:0?[1-9]|[12][0-9]|3[01])[./ \-](?:19|20)[0-9]{2}(?![0-9])"
    r"|(?:19|20)[0-9]{2}[./ \-](?:0[1-9]|1[0-2])[./ \-](?:0[1-9]|[12][0-9]|3[01])"
)
ANOTHER = re.compile(r" (?=0[1-9])")
ZIP_PLUS_4 = re.compile(r"0[0-9]{4}-[0-9]{4}")
AFTER = re.compile(
    r"[0-9]|[.,:\-/_+=][0-9]|(?! ?(?:x|ext)\.? ?[0-9])[A-Za-z_%]"
    r"|\s?(?:%|[€$£¥]|(?:EUR|USD|GBP|CHF|kr|bytes?|ms|km|kg)\b)"
)
FRACTION = re.compile(r"[.,][0-9]")
EXTENSION = re.compile(r"[ ,]{0,2}(?:x|ext\.?|extension) ?[0-9]{1,6}(?![0-9])")
APART = re.compile(r"[\r\n(+]|[ \t]{2}")
"""What stands between two numbers; a space may also stand within one."""
BEFORE = "#$€£¥@.-_&?%~^*/\\"
LOOK_BACK = 40
DIGITS = "01234567890"


def phones(text: str, start: int, end: int, spans: list[Span]) -> None:
    """Adds the phone numbers that begin with a group of digits in `text[start:end]`."""
    begun = matched = False
    done = start
    for group in GROUP.finditer(text, start, end):
        at = group.start()
        if at < done or end - at < 6:
            continue
        before = text[max(done if begun else 0, at - 3) : at]
        if begun and not matched and APART.search(before) is None:
            continue
        stop = _phone(text, at, before, first=not begun)
        begun, matched = True, stop > 0
        if stop:
            span = _widened(text, at, stop, before)
            spans.append(span)
            done = span.end


def _phone(text: str, at: int, before: str, *, first: bool) -> int:
    """The end of the number whose first digit is at `at`, or 0."""
    plus = before.rstrip(" (").endswith("+")
    if plus or text.startswith("00", at):
        prefix = at - (len(before) - before.rindex("+")) if plus else at
        if stop := _international(text, prefix):
            return stop
    if plus:
        return 0
    if before.endswith("(") and (stop := _national(text, at - 1, first=first)):
        return stop
    return _national(text, at, first=first)


def _international(text: str, at: int) -> int:
    if text[at - 1 : at].isalnum() or (match := INTERNATIONAL.match(text, at)) is None:
        return 0
    groups = list(GROUP.finditer(text, at, match.end()))
    digits = "".join(group[0] for group in groups)
    if len(groups) == 2 and text[groups[0].end()] == "." and groups[1].start() == groups[0].end() + 1:
        return 0  # a decimal fraction
    bare = text[at] != "+"
    if bare:
        digits = digits[2:]
    zone = ZONES.match(digits)
    if zone is None or (bare and zone[0] not in LENGTHS):
        return 0
    fewest, most = LENGTHS.get(zone[0], (8, 15))
    total = len(digits)
    if "(0)" in match[0]:
        most += 1
    for group in reversed(groups):
        if fewest <= total <= most:
            return 0 if _more(text, group.end()) else group.end()
        total -= len(group[0])
    return 0


def _more(text: str, end: int) -> bool:
    if FRACTION.match(text, end):
        return True
    return text[end : end + 1].isalpha() and EXTENSION.match(text, end) is None


def _national(text: str, begin: int, *, first: bool) -> int:
    match = FORMS.match(text, begin)
    if match is not None and match["trunk"] and not _trunk(match["trunk"]):
        match = _first_of_several(text, begin, match["trunk"])
    if match is None and not first:
        return 0
    before = text[max(0, begin - LOOK_BACK) : begin]
    last = before[-1:]
    if last.isalnum() or (last and last in BEFORE) or (last in (":", ",") and before[-2:-1].isdigit()):
        return 0
    if match is None and CUE.search(before):
        match = CUED.match(text, begin)
        if match is None or sum(map(str.isdigit, match[0])) < 7:
            return 0
    if match is None or AFTER.match(text, match.end()) or DATE.match(text, begin):
        return 0
    if "(" not in match[0] and NOT_CUE.search(before):
        return 0
    if match[0].isdigit() and (match[0] in DIGITS or (last == "=" and CUE.search(before) is None)):
        return 0
    return match.end()


def _first_of_several(text: str, begin: int, numbers: str) -> re.Match[str] | None:
    """Two numbers with a space between them look like one that is too long."""
    for space in ANOTHER.finditer(numbers):
        if _trunk(numbers[: space.start()]):
            return FORMS.match(text, begin, begin + space.start())
    return None


def _trunk(number: str) -> bool:
    """Nine to twelve digits in groups that people write; without groups, ten or eleven."""
    groups = GROUP.findall(number)
    digits = sum(map(len, groups))
    if len(groups) == 1:
        return 10 <= digits <= 11
    if not 9 <= digits <= 12 or number.count("/") > 1:
        return False
    if all(group[0] == "0" for group in groups) or DATE.search(number) or ZIP_PLUS_4.fullmatch(number):
        return False
    return len(groups[0]) >= 2 and ("." not in number or len(groups) >= 3)


def _widened(text: str, at: int, end: int, before: str) -> Span:
    """With the plus or the parenthesis before it, and the extension behind."""
    lead = before.rstrip(" (")
    if lead.endswith("+"):
        at -= len(before) - len(lead) + 1
    elif before.endswith("(") and ")" in text[at:end]:
        at -= 1
    if at > 0 and text[at - 1] == "(" and text[at:end].count(")") > text[at:end].count("("):
        at -= 1
    extension = EXTENSION.match(text, end)
    return Span(at, extension.end() if extension else end, Kind.PHONE)
