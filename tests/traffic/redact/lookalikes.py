"""What looks like personal data and is none: each maker gives a piece of text that must stay as it is."""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable


def _digits(dice: random.Random, count: int) -> str:
    return "".join(dice.choice(string.digits) for _ in range(count))


def _hex(dice: random.Random, count: int) -> str:
    return "".join(dice.choice("0123456789abcdef") for _ in range(count))


def _no_luhn(dice: random.Random) -> str:
    """Sixteen digits with a Visa's beginning and a sum that is off by one."""
    number = "4" + _digits(dice, 14)
    total = sum(
        sum(divmod(int(letter) * (2 - place % 2), 10)) for place, letter in enumerate(reversed(number))
    )
    number += str((-total + dice.randint(1, 9)) % 10)
    return dice.choice((number, " ".join(number[at : at + 4] for at in range(0, 16, 4))))


def _wrong_iban(dice: random.Random) -> str:
    account = _digits(dice, 18)
    right = 98 - int(account + "131400") % 97
    wrong = (right + dice.randint(1, 90)) % 97 + 1 if right else 1
    wrong = wrong if wrong != right else wrong + 1
    return f"DE{wrong:02d}{account}"


def _isbn(dice: random.Random) -> str:
    return dice.choice(
        (
            f"ISBN 978-0-306-{_digits(dice, 5)}-{_digits(dice, 1)}",
            f"ISBN 978030{_digits(dice, 7)}",
            f"ISBN 0-306-{_digits(dice, 5)}-{_digits(dice, 1)}",
            f"ISBN-10: 0306{_digits(dice, 6)}",
        )
    )


def _order(dice: random.Random) -> str:
    return dice.choice(
        (
            f"order {_digits(dice, 10)}",
            f"order no. {_digits(dice, 8)}",
            f"#{_digits(dice, 10)}",
            f"invoice INV-{_digits(dice, 4)}-{_digits(dice, 6)}",
            f"ORD-2024-{_digits(dice, 6)}",
            f"ticket number {_digits(dice, 9)}",
            f"1{dice.choice('012')}{_digits(dice, 8)}",
            f"tracking 1Z{_digits(dice, 16)}",
            f"114-{_digits(dice, 7)}-{_digits(dice, 7)}",
        )
    )


def _date(dice: random.Random) -> str:
    year, month, day = dice.randint(1950, 2035), dice.randint(1, 12), dice.randint(1, 28)
    hour, minute, second = dice.randint(0, 23), dice.randint(0, 59), dice.randint(0, 59)
    return dice.choice(
        (
            f"{year}-{month:02d}-{day:02d}",
            f"{day:02d}.{month:02d}.{year}",
            f"{month:02d}/{day:02d}/{year}",
            f"{day:02d}-{month:02d}-{year} {hour:02d}:{minute:02d}",
            f"{day:02d}/{month:02d}/{year} {hour:02d}:{minute:02d}:{second:02d}",
            f"{year}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}Z",
            f"{year}-{month:02d}-{day:02d} {hour:02d}:{minute:02d}:{second:02d},{_digits(dice, 3)}",
            f"{year}{month:02d}{day:02d}{hour:02d}{minute:02d}{second:02d}",
            f"{day:02d}.{month:02d}.{year} {hour:02d}.{minute:02d}",
        )
    )


def _time(dice: random.Random) -> str:
    hour, minute = dice.randint(0, 23), dice.randint(0, 59)
    return dice.choice(
        (
            f"{hour:02d}:{minute:02d}:30",
            f"{hour:02d}:{minute:02d}-{hour:02d}:59",
            f"at {hour:02d}:{minute:02d}",
            f"00:{minute:02d}:12.345",
            f"ratio {dice.randint(1, 9)}:{dice.randint(1, 9)}:{dice.randint(1, 9)}",
        )
    )


def _timestamp(dice: random.Random) -> str:
    return f"17{_digits(dice, dice.choice((8, 11, 17)))}"


def _price(dice: random.Random) -> str:
    return dice.choice(
        (
            f"${dice.randint(1, 9)},{_digits(dice, 3)},{_digits(dice, 3)}.{_digits(dice, 2)}",
            f"{dice.randint(1, 9)}.{_digits(dice, 3)}.{_digits(dice, 3)},00 €",
            f"{dice.randint(100, 999)} {_digits(dice, 3)} {_digits(dice, 3)} EUR",
            f"{dice.randint(1, 9999)}.99 USD",
            f"grew by 0.{_digits(dice, 16)}",
        )
    )


def _version(dice: random.Random) -> str:
    four = ".".join(str(dice.randint(0, 40)) for _ in range(4))
    return dice.choice(
        (
            f"v{four}",
            f"version {four}",
            f"{four}-beta",
            f"{four}.7",
            f"{four}rc1",
            "3.11.7",
            f"release {four}",
            f"Chrome/{dice.randint(90, 140)}.0.0.0",
            f"pkg@{dice.randint(1, 9)}.{dice.randint(0, 99)}.{dice.randint(0, 99)}",
            f"section {dice.randint(1, 9)}.2.3.4",
        )
    )


def _identifier(dice: random.Random) -> str:
    return dice.choice(
        (
            str(uuid.UUID(int=dice.getrandbits(128), version=4)),
            _hex(dice, 40),
            _hex(dice, 64),
            f"commit {_hex(dice, 7)}",
            f"support@{_hex(dice, 12)}",
            f"chatcmpl-{_hex(dice, 32)}",
            ":".join(_hex(dice, 2) for _ in range(6)),
            f"AbstractSingletonProxyFactoryBean{_digits(dice, 2)}",
            f"/usr/local/lib/python3.11/site-packages/pkg{_digits(dice, 2)}/module.py",
        )
    )


def _code(dice: random.Random) -> str:
    return dice.choice(
        (
            "@property\ndef size(self)",
            "@app.route('/x')",
            "follow @ada_lovelace",
            "std::vector<int>",
            "a::b",
            "use std::io::Read;",
            "x[::2]",
            "items[1::2]",
            "m = a @ b",
            "cake::add(1)",
            "token: str",
            "password: str = Field(...)",
            "api_key = os.environ['KEY']",
            "max_tokens=4096",
            f"read_bytes=1{dice.randint(3, 9)}{_digits(dice, 9)}",
            'letters = "0123456789"',
            "Decimal('+35236450.6')",
            f"brotlicffi>=1.2.0.{_digits(dice, 1)}",
            "password = auth[2]",
            "password = await ask()",
            "getpass(prompt='Password: ', stream=None)",
            "third_party/a/b_c/d-e/Fgh0/" * 6,
            f"3.38713_{_digits(dice, 5)}_{_digits(dice, 5)}_{_digits(dice, 4)}e+0",
            'f"postgresql://{USER}:{password}@{host}"',
            "password=${DB_PASSWORD}",
            "api_key=YOUR_API_KEY",
            "token = None",
            "the password is wrong",
            "Password: required",
            "the secret: be kind",
            "the key is under the mat",
            "tokenizer=fast",
            "Bearer authentication",
            "basic understanding",
            "task-management-for-everyone",
            "sk-learn-style-estimators-rock",
            "git@github.com:ada/engine.git",
            "https://example.com:8080/path@v2",
            "see https://example.com/a/b?c=d#e",
        )
    )


def _place(dice: random.Random) -> str:
    return dice.choice(
        (
            f"{dice.uniform(-90, 90):.6f}, {dice.uniform(-180, 180):.6f}",
            f"N {dice.randint(0, 89)}° {dice.randint(0, 59)}' {dice.randint(0, 59)}\"",
            f"{dice.randint(1, 999)} Main Street, Springfield {_digits(dice, 5)}-{_digits(dice, 4)}",
            f"rows {dice.randint(1, 999)}-{dice.randint(1000, 9999)}",
            f"{dice.randint(1, 99)} 200 300 items",
            f"1920x1080, {dice.randint(20, 90)} fps",
            "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
            "01 02 03 04 05 06",
        )
    )


LOOKALIKES: tuple[Callable[[random.Random], str], ...] = (
    *(_no_luhn, _wrong_iban, _isbn, _order, _date, _time, _timestamp),
    *(_price, _version, _identifier, _code, _place),
)
