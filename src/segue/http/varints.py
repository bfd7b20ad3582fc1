"""Varints: whole numbers as little-endian base-128 (LEB128) bytes, in documents and frames.

Only the shortest form of a number is valid, so that each number has one encoding. Not here: any framing.
"""

from __future__ import annotations

#: The largest number that may be written or read; it takes nine bytes.
MAX_VARINT = 2**62 - 1
_MAX_BYTES = 9
_MORE = 0x80
#: Most numbers are small, and a table is faster than the loop.
_SINGLE_BYTES = tuple(bytes((number,)) for number in range(_MORE))


def encode_varint(number: int) -> bytes:
    """Return the shortest LEB128 form of a number from 0 to `MAX_VARINT`."""
    if 0 <= number < _MORE:
        return _SINGLE_BYTES[number]
    if _MORE <= number < _MORE * _MORE:
        return bytes((number & 0x7F | _MORE, number >> 7))
    if not 0 <= number <= MAX_VARINT:
        raise ValueError(f"{number} cannot be a varint")
    encoded = bytearray()
    while number >= _MORE:
        encoded.append(number & 0x7F | _MORE)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int] | None:
    """Return the number at offset `at` and the offset after it.

    None when the bytes end too early, the number is larger than `MAX_VARINT`, or it is not in its shortest form.
    """
    if at < len(data) and data[at] < _MORE:
        return data[at], at + 1
    number = 0
    for place, byte in enumerate(data[at : at + _MAX_BYTES]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < _MORE:
            if (byte == 0 and place > 0) or number > MAX_VARINT:
                return None
            return number, at + place + 1
    return None
