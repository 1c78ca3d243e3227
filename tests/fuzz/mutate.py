"""What is done to a valid message: to its tree, before it is sealed, and to its bytes, after."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.fuzz.trees import Deep, Ext, Pairs, Raw, tree_of

NUMBERS = (
    0, 1, -1, 2, 7, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63,
    2**64 - 1, -(2**31), -(2**63), 10**400,
)  # fmt: skip
FLOATS = (
    0.0,
    -0.0,
    1.0,
    0.5,
    -1.5,
    1e308,
    -1e308,
    5e-324,
    float("nan"),
    float("inf"),
    -float("inf"),
)
TEXTS = (
    "",
    "x",
    "\x00",
    "é",
    "../../etc/passwd",
    "a" * 300,
    "A" * 70000,
    "1-2",
    "\x1b[2J",
    "\ud800",
)
"""The last one cannot be UTF-8: written with `surrogatepass` it is not."""
DTYPES = (
    "float16",
    "float32",
    "float64",
    "uint8",
    "int64",
    "bool",
    "object",
    "U8",
    "complex64",
    "O",
)


RAW = (
    b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xf0",
    b"\xdb\x7f\xff\xff\xff", b"\xd6\xff\0\0\0\0", b"\xa1\xff", b"9" * 5000,
)  # fmt: skip
"""No msgpack, lengths that lie, a time stamp, half a character; in JSON, a very long number."""


def any_value(random: Random) -> object:
    """Something that a field is not expected to hold."""
    return random.choice(_VALUES)(random)


def _container(random: Random) -> object:
    return random.choice(([], Pairs(), [0], [[]], Pairs([["a", 1]]), Pairs([[1, 2]])))


def _extension(random: Random) -> object:
    return Ext(random.choice((-1, 0, 1, 127, -128)), random.randbytes(random.choice((0, 4, 8, 12))))


_VALUES: tuple[Callable[[Random], object], ...] = (
    *[lambda random: random.choice(NUMBERS)] * 3,
    lambda random: random.choice(NUMBERS) + random.choice((-1, 1)),
    *[lambda random: random.choice(FLOATS)] * 2,
    *[lambda random: random.choice(TEXTS)] * 2,
    lambda random: random.choice((None, True, False, b"", b"abc", random.choice(DTYPES))),
    lambda random: Deep(random.choice((1, 8, 60, 500, 900, 1000, 5000))),
    lambda random: [random.choice(NUMBERS) for _ in range(random.randrange(12))],
    lambda random: Raw(random.choice(RAW)),
    _container,
    _extension,
)


def twin(random: Random, value: object) -> object:
    """Nearly the same: another type, or one more."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return random.choice(
            (
                float(value) if abs(value) < 2**60 else 0.5,
                value + 1,
                value - 1,
                -value,
                str(value),
                bool(value & 1),
            )
        )
    if isinstance(value, float):
        return random.choice(
            (
                int(value) if abs(value) < 1e15 else 0,
                -value,
                value * 1e300,
                str(value),
                float("nan"),
            )
        )
    if isinstance(value, str):
        return random.choice(
            (value.encode("utf-8", "replace"), value + "x", value[:-1], value.upper(), [value])
        )
    if isinstance(value, bytes):
        return random.choice((value.decode("latin-1"), value + b"x", value[:-1]))
    if isinstance(value, Pairs):
        return random.choice(
            ([list(pair) for pair in value], Pairs(list(value)[1:]), [value], None)
        )
    if isinstance(value, list):
        return random.choice(
            (
                value[:-1],
                [*value, *value],
                [value],
                Pairs([["0", inner] for inner in value]),
                value[::-1],
            )
        )
    return 0


def mutate_tree(random: Random, tree: object, donor: object = None) -> object:
    """A changed copy: one to three changes, somewhere. `donor` lends values of another message."""
    root = [tree_of(tree)]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        _change(random, root, donor)
    return root[0]


def _change(random: Random, root: list, donor: object) -> None:
    places = list(_places(root, 0))
    holder, index = random.choice(places)
    kind = random.randrange(10)
    maps = [
        holder[index]
        for holder, index in places
        if isinstance(holder[index], Pairs) and holder[index]
    ]
    if kind < 3:
        holder[index] = any_value(random)
    elif kind < 5:
        holder[index] = twin(random, holder[index])
    elif kind == 5:
        other, position = random.choice(places)
        holder[index], other[position] = tree_of(other[position]), tree_of(holder[index])
    elif kind == 6 and donor is not None:
        lender, position = random.choice(list(_places([donor], 0)))
        holder[index] = tree_of(lender[position])
    elif maps:
        _change_map(random, random.choice(maps))


def _change_map(random: Random, pairs: Pairs) -> None:
    kind, at = random.randrange(6), random.randrange(len(pairs))
    if kind == 0:
        del pairs[at]
    elif kind == 1:  # the same key twice
        pairs.insert(
            random.randrange(len(pairs) + 1),
            [pairs[at][0], random.choice((pairs[at][1], any_value(random)))],
        )
    elif kind == 2:
        pairs[at][0] = any_value(random)
    elif kind == 3:
        pairs.append([random.choice((*TEXTS, b"bytes", 5)), any_value(random)])
    elif kind == 4:
        pairs[at][0] = twin(random, pairs[at][0])
    else:
        random.shuffle(pairs)


def _places(holder: list, index: int):
    """Every (list, index) whose element is a value; keys are changed by `_change_map`."""
    yield holder, index
    value = holder[index]
    if isinstance(value, Pairs):
        for pair in value:
            yield from _places(pair, 1)
    elif isinstance(value, list):
        for position in range(len(value)):
            yield from _places(value, position)


def mutate_bytes(random: Random, data: bytes, *, most: int = 3) -> bytes:
    """Bits flipped, pieces cut, doubled or filled in, lengths that lie."""
    changed = bytearray(data)
    for _ in range(random.randint(1, most)):
        random.choice(_BYTE_CHANGES)(random, changed)
    return bytes(changed)


def _flip(random: Random, data: bytearray) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _truncate(random: Random, data: bytearray) -> None:
    del data[random.randrange(len(data) + 1) :]


def _extend(random: Random, data: bytearray) -> None:
    data += random.randbytes(random.choice((1, 1, 4, 64, 1000)))


def _cut(random: Random, data: bytearray) -> None:
    start = random.randrange(len(data) + 1)
    del data[start : start + random.choice((1, 2, 8, 100))]


def _fill(random: Random, data: bytearray) -> None:
    """Overwrites a few bytes: lengths that lie, numbers that are not finite."""
    words = (
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\xff\xff\xff\x7f",
        b"\0\0\xc0\x7f",
        b"\x7f\xff",
        b"\x01\0\0\0",
    )
    word = random.choice(words)
    start = random.randrange(len(data) + 1)
    data[start : start + len(word)] = word


def _double(random: Random, data: bytearray) -> None:
    start = random.randrange(len(data) + 1)
    data[start:start] = data[start : start + random.choice((1, 4, 40))]


_BYTE_CHANGES: tuple[Callable[[Random, bytearray], None], ...] = (
    _flip, _flip, _truncate, _extend, _cut, _fill, _fill, _double,
)  # fmt: skip
