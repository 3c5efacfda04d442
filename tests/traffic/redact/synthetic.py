"""Personal data that nobody has, planted in ordinary sentences, and what only looks like it.

Built from the numbers' own rules, never from the redactor's patterns. The same seed gives the same samples.
"""

from __future__ import annotations

import base64
import json
import random
import string
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.traffic.redact import Kind
from tests.traffic.redact.lookalikes import LOOKALIKES

SENTENCES = (
    "Please use {} for this.",
    "Hi, it is {}. Can you help me?",
    "{}",
    "My details: {}, thanks in advance!",
    "She wrote «{}» on the form and left",
    "- first item\n- {}\n- last item",
    "Was it ({}) or something else?",
    'They said "{}" twice.',
    "Quelle surprise, c'était {} — déjà vu.",
    "| name | value |\n| x | {} |",
)
ARGUMENTS = (
    '{{"note": {}, "limit": 3}}',
    '{{"customer": {{"name": "Ada", "detail": {}}}, "tags": ["a", "b"]}}',
    '{{"rows":[{{"v":{}}},{{"v":null}}]}}',
)
FIRST = ("ada", "grace", "linus", "edsger", "barbara", "jürgen", "zoé", "søren", "maria", "wei")
LAST = (
    "lovelace",
    "hopper",
    "torvalds",
    "dijkstra",
    "liskov",
    "müller",
    "dupont",
    "garcia",
    "chen",
    "okafor",
)
DOMAINS = (
    *("example.com", "mail.example.co.uk", "example.org", "bücher.example", "xn--bcher-kva.example"),
    *("a-b.example.net", "post.museum", "例え.jp", "example.io", "sub.dept.uni-bonn.de"),
)


@dataclass(frozen=True)
class Sample:
    """`text` with one piece of a `kind` in it; `clean` is what must become of it. No kind: nothing may."""

    text: str
    clean: str
    kind: Kind | None
    arguments: bool = False
    """A tool call's: JSON in a string."""


def samples(seed: int, each: int) -> Iterator[Sample]:
    """`each` of every kind, and as many lookalikes of each sort, in sentences and in tool arguments."""
    dice = random.Random(seed)
    for kind, maker in MAKERS.items():
        for number in range(each):
            before, value, after = maker(dice)
            yield _planted(
                dice, f"{before}{value}{after}", f"{before}{kind.placeholder}{after}", kind, number
            )
    for lookalike in LOOKALIKES:
        for number in range(max(1, each // 4)):
            harmless = lookalike(dice)
            yield _planted(dice, harmless, harmless, None, number)


def _planted(dice: random.Random, value: str, clean: str, kind: Kind | None, number: int) -> Sample:
    if number % 4:
        sentence = dice.choice(SENTENCES)
        return Sample(sentence.format(value), sentence.format(clean), kind)
    frame, sentence = dice.choice(ARGUMENTS), dice.choice(SENTENCES)
    ascii_only = dice.random() < 0.5
    written = json.dumps(sentence.format(value), ensure_ascii=ascii_only)
    if dice.random() < 0.3:
        written = written.replace("/", "\\/").replace("@", "\\u0040")
    return Sample(frame.format(written), frame.format(json.dumps(sentence.format(clean))), kind, True)


Piece = tuple[str, str, str]
"""What stands before, the value itself, what stands behind."""


def card(dice: random.Random) -> Piece:
    prefix, length, grouping = dice.choice(
        [
            ("4", 16, (4, 4, 4, 4)),
            ("4", 13, (13,)),
            ("4", 19, (4, 4, 4, 4, 3)),
            (str(dice.randint(51, 55)), 16, (4, 4, 4, 4)),
            (str(dice.randint(2221, 2720)), 16, (4, 4, 4, 4)),
            (dice.choice(("34", "37")), 15, (4, 6, 5)),
            ("36", 14, (4, 6, 4)),
            ("305", 14, (4, 6, 4)),
            ("6011", 16, (4, 4, 4, 4)),
            ("65", 16, (4, 4, 4, 4)),
            (str(dice.randint(3528, 3589)), 16, (4, 4, 4, 4)),
            ("62", 16, (4, 4, 4, 4)),
            ("62", 19, (6, 13)),
            ("2202", 16, (4, 4, 4, 4)),
            ("6759", 16, (4, 4, 4, 4)),
        ]
    )
    number = with_luhn(prefix + digits(dice, length - len(prefix) - 1))
    return (
        dice.choice(("", "card ", "Visa: ")),
        grouped(number, grouping, dice.choice(("", "", " ", "-"))),
        "",
    )


def with_luhn(number: str) -> str:
    total = 0
    for place, letter in enumerate(reversed(number)):
        digit = int(letter) * (2 if place % 2 == 0 else 1)
        total += digit // 10 + digit % 10
    return number + str(-total % 10)


# A: letter, N: digit; what follows the two check digits in each country's account numbers.
ACCOUNTS = {
    "DE": "N" * 18, "FR": "N" * 10 + "A" * 11 + "NN", "GB": "AAAA" + "N" * 14, "ES": "N" * 20, "NO": "N" * 11,
    "IT": "A" + "N" * 10 + "A" * 12, "NL": "AAAA" + "N" * 10, "BE": "N" * 12, "CH": "N" * 5 + "A" * 12,
    "AT": "N" * 16, "PL": "N" * 24, "SE": "N" * 20, "DK": "N" * 14, "PT": "N" * 21, "IE": "AAAA" + "N" * 14,
    "MT": "AAAA" + "N" * 5 + "A" * 18, "SA": "NN" + "A" * 18, "TR": "N" * 22, "BR": "N" * 23 + "AA",
    "UA": "N" * 6 + "A" * 19, "FI": "N" * 14,
}  # fmt: skip


def iban(dice: random.Random) -> Piece:
    country = dice.choice(sorted(ACCOUNTS))
    account = "".join(
        dice.choice(string.digits if place == "N" else string.ascii_uppercase) for place in ACCOUNTS[country]
    )
    number = country + iban_check(country, account) + account
    written = grouped(number, (4,) * 9, dice.choice(("", " ", " ", "-")))
    return (
        dice.choice(("", "IBAN ", "IBAN: ", "account ")),
        dice.choice((written, written, written.lower())),
        "",
    )


def iban_check(country: str, account: str) -> str:
    remainder = 0
    for letter in account + country + "00":
        value = int(letter) if letter.isdigit() else ord(letter) - 55
        remainder = (remainder * (100 if value > 9 else 10) + value) % 97
    return f"{98 - remainder:02d}"


def email(dice: random.Random) -> Piece:
    first, last = dice.choice(FIRST), dice.choice(LAST)
    local = dice.choice(
        (f"{first}.{last}", f"{first[0]}{last}{dice.randint(1, 99)}", f"{first}+{last}", f"{first}_{last}",
         f"{first}-{last}", first.upper(), f"{first}.o'{last}", f"{last}{digits(dice, 6)}")
    )  # fmt: skip
    return dice.choice(("", "mail ", "mailto:", "<")), f"{local}@{dice.choice(DOMAINS)}", ""


def phone(dice: random.Random) -> Piece:
    shape = dice.choice(PHONES)
    written = "".join(dice.choice("23456789") if letter == "N" else letter for letter in shape)
    written = "".join(dice.choice(string.digits) if letter == "#" else letter for letter in written)
    return dice.choice(("", "reach me at ", "or ")), written, ""


# N: a digit from 2 on, #: any digit. From each country's own way of writing them.
PHONES = (
    *("+1 N## N## ####", "+1-N##-N##-####", "(N##) N##-####", "N##-N##-####", "N##.N##.####"),
    *("1-N##-N##-####", "+1N##N######", "+49 30 N#######", "+49 (0)89 N######", "030 N#######"),
    *("0171/N######", "0171 N######", "+44 20 N### ####", "+44 7700 N#####", "020 7### ####"),
    *("07700 N#####", "07700N#####", "+33 6 ## ## ## ##", "06 N# ## ## ##", "06.N#.##.##.##"),
    *("06N#######", "+39 06 N### ####", "+39 3## N######", "02 N### ####", "+34 6## ### ###"),
    *("612 N# ## ##", "+31 6 N#######", "06-N#######", "+41 44 N## ## ##", "044 N## ## ##"),
    *("+46 70 N## ## ##", "070-N## ## ##", "+48 5## ### ###", "+61 4## ### ###", "0412 N## ###"),
    *("(02) N### ####", "+81 3-N###-####", "03-N###-####", "090-N###-####", "+86 138 #### ####"),
    *("138N#######", "+82 10-N###-####", "010-N###-####", "+91 98### #####", "98### #####"),
    *("+55 11 9####-####", "(11) 9N###-####", "+7 912 ###-##-##", "8 (912) N##-##-##", "+52 55 N### ####"),
    *("+27 82 N## ####", "082 N## ####", "+90 532 N## ## ##", "0532 N## ## ##", "+65 9### ####"),
    *("+971 50 N## ####", "0049 30 N#######", "+353 87 N## ####"),
)


def ipv4(dice: random.Random) -> Piece:
    address = ".".join(
        str(number)
        for number in (dice.randint(1, 223), *(dice.randint(0, 255) for _ in range(2)), dice.randint(1, 254))
    )
    after = dice.choice(("", "", ":8080", "/24", " (gw)"))
    return dice.choice(("", "host ", "from ", "http://", "ssh root@")), address, after


def ipv6(dice: random.Random) -> Piece:
    groups = [f"{dice.randint(0x1000, 0xFFFF):x}" for _ in range(8)]
    short = f"2001:db8:{groups[0]}::{groups[1]}"
    written = dice.choice(
        (
            ":".join(groups),
            ":".join(groups).upper(),
            short,
            f"fe80::{groups[2]}:{groups[3]}",
            f"fe80::{groups[4]}%eth0",
            f"2001:db8::{dice.randint(1, 999)}",
            f"64:ff9b::{ipv4(dice)[1]}",
        )
    )
    before, after = dice.choice((("", ""), ("host ", ""), ("[", "]:443"), ("http://[", "]/"), ("", "/64")))
    return before, written, "" if "%" in written and after == "/64" else after


def key(dice: random.Random) -> Piece:
    letters = string.ascii_letters + string.digits
    upper = string.ascii_uppercase + string.digits

    def some(count: int, alphabet: str = letters) -> str:
        return "".join(dice.choice(alphabet) for _ in range(count))

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    token = dice.choice(
        (
            lambda: f"sk-{some(48)}",
            lambda: f"sk-proj-{some(40)}_{some(20)}-{some(10)}",
            lambda: f"sk-ant-api03-{some(80)}",
            lambda: f"hs-{some(43, letters + '-_')}",
            lambda: f"hs-admin-{some(43, letters + '-_')}",
            lambda: f"{dice.choice(('ghp', 'gho', 'ghs'))}_{some(36)}",
            lambda: f"github_pat_{some(22)}_{some(59)}",
            lambda: f"AKIA{some(16, upper)}",
            lambda: f"xox{dice.choice('abp')}-{some(12, string.digits)}-{some(12, string.digits)}-{some(24)}",
            lambda: f"AIza{some(35, letters + '-_')}",
            lambda: f"hf_{some(34)}",
            lambda: f"glpat-{some(20)}",
            lambda: f"sk_live_{some(24)}",
            lambda: f"{part({'alg': 'HS256'})}.{part({'sub': some(9), 'iat': 1})}.{some(43)}",
        )
    )()
    if dice.random() < 0.08:
        body = "\n".join(some(64) for _ in range(4))
        name = dice.choice(("RSA PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY"))
        return "", f"-----BEGIN {name}-----\n{body}\n-----END {name}-----", ""
    if dice.random() < 0.1:
        return "Authorization: Bearer ", some(40), ""
    return dice.choice(("", "key ", "Authorization: Bearer ", "OPENAI_API_KEY=")), token, ""


def secret(dice: random.Random) -> Piece:
    word = "".join(
        dice.choice(string.ascii_letters + string.digits + "!$%*^_-") for _ in range(dice.randint(8, 20))
    )
    word = "q" + word + dice.choice("0123456789")
    hexadecimal = "".join(dice.choice("0123456789abcdef") for _ in range(32))
    scheme = dice.choice(("postgres", "https", "redis", "amqp", "mongodb+srv"))
    user = dice.choice(FIRST)
    return dice.choice(
        (
            (f"{scheme}://", f"{user}:{word.replace('%', '')}", "@db.example.com:5432/main"),
            (f"{scheme}://", f"{user}:{word.replace('%', '')}", "@10-internal/x"),
            ("password=", word, ""),
            ("password: ", word, ""),
            ("my password is ", word, " ok"),
            ("DB_PASSWORD=", word, "\n"),
            ("api_key=", hexadecimal, "&limit=10"),
            ("API key: ", hexadecimal, ""),
            ("client_secret = '", word, "'"),
            ("token=", hexadecimal, ""),
            ("export SECRET_KEY=", hexadecimal, ""),
            ("login --password ", word, " --verbose"),
            ("AWS_SECRET_ACCESS_KEY=", base64.b64encode(hexadecimal[:30].encode()).decode(), ""),
        )
    )


MAKERS: dict[Kind, Callable[[random.Random], Piece]] = {
    Kind.CARD: card, Kind.IBAN: iban, Kind.EMAIL: email, Kind.PHONE: phone,
    Kind.IPV4: ipv4, Kind.IPV6: ipv6, Kind.KEY: key, Kind.SECRET: secret,
}  # fmt: skip


def digits(dice: random.Random, count: int) -> str:
    return "".join(dice.choice(string.digits) for _ in range(count))


def grouped(number: str, sizes: tuple[int, ...], separator: str) -> str:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(number[at : at + size])
        at += size
    return separator.join(filter(None, pieces))


def unique(dice: random.Random) -> str:
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))
