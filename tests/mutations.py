"""Damage as files meet it: flipped bits, lost and doubled stretches, other numbers, other encodings, deep nesting."""

import random
import re
from collections.abc import Iterator

NUMBERS = (b"-1", b"0", b"1e30", b"-1e999", b"NaN", b"Infinity", b"9" * 20, b"true", b"null", b'"1"', b"[]", b"{}")


def mutations(content: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    """`count` altered versions of a file's content."""
    for i in range(count):
        yield KINDS[i % len(KINDS)](content, rng)


def _flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 8))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _lose(content: bytes, rng: random.Random) -> bytes:
    first = rng.randrange(len(content))
    return content[:first] + content[first + rng.randrange(1, 60) :]


def _double(content: bytes, rng: random.Random) -> bytes:
    first = rng.randrange(len(content))
    last = first + rng.randrange(1, 200)
    return content[:last] + content[first:last] + content[last:]


def _number(content: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", content)) or [re.match(b"", content)]
    place = rng.choice(found)
    return content[: place.start()] + rng.choice(NUMBERS) + content[place.end() :]


def _line(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place] = rng.choice(
        (b"", b"\x00", b"\xff\xfe", b"x" * 100_000, b"-->", b'"', b"\xed\xa0\x80", lines[-1 - place])
    )
    return b"\n".join(lines)


def _insert(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    extra = rng.choice((b"[" * 5000, b"{" * 5000, b"(", b'"', b"\\ud800", b"\r", b"\x00" * 20, b",", b"<", b"\x80\x04"))
    return content[:place] + extra + content[place:]


def _append(content: bytes, rng: random.Random) -> bytes:
    return content + rng.choice((b"\x00" * 64, content, b"}", b"PK\x03\x04", b"\n\n"))


def _encode(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("latin-1")
    return text.encode(rng.choice(("utf-16-le", "utf-16-be", "utf-32")))


KINDS = (_flip, _flip, _cut, _lose, _double, _number, _number, _line, _insert, _append, _encode)
