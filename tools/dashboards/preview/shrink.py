"""Makes a picture smaller: from Chromium's 24 or 32 bits for each point to a palette of 256 colours."""

from __future__ import annotations

import pathlib
import struct
import zlib
from collections import Counter
from collections.abc import Iterator

_MAGIC = b"\x89PNG\r\n\x1a\n"
_COLOURS = 256
_CHANNELS = {2: 3, 6: 4}  # colour type of PNG -> bytes of a point


def shrink(path: pathlib.Path) -> None:
    """Write the picture again with its 256 most used colours; each other point takes the nearest of them."""
    width, height, rows = _points(path.read_bytes())
    counts = Counter(point for row in rows for point in row)
    palette = [point for point, _count in counts.most_common(_COLOURS)]
    index = {point: number for number, point in enumerate(palette)}
    for point in counts:
        if point not in index:
            index[point] = min(range(len(palette)), key=lambda number: _distance(palette[number], point))
    lines = b"".join(b"\0" + bytes(index[point] for point in row) for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    body = [(b"IHDR", head), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")]
    path.write_bytes(_MAGIC + b"".join(_chunk(name, data) for name, data in body))


def _points(png: bytes) -> tuple[int, int, list[list[bytes]]]:
    """Return width, height, and the points of each row as three bytes each."""
    chunks = list(_chunks(png))
    width, height, bits, kind = struct.unpack(">IIBB", chunks[0][1][:10])
    if bits != 8 or kind not in _CHANNELS:
        raise ValueError(f"a PNG with {bits} bits and colour type {kind} is not what Chromium writes")
    size = _CHANNELS[kind]
    packed = zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT"))
    above, rows, length = bytearray(width * size), [], width * size
    for start in range(0, height * (length + 1), length + 1):
        row = _plain(packed[start], bytearray(packed[start + 1 : start + 1 + length]), above, size)
        rows.append([bytes(row[at : at + 3]) for at in range(0, length, size)])
        above = row
    return width, height, rows


def _plain(form: int, row: bytearray, above: bytearray, size: int) -> bytearray:
    """Undo the filter of a row, as the PNG specification defines them."""
    if form == 2:
        return bytearray((value + up) & 255 for value, up in zip(row, above))
    if form == 0:
        return row
    for at in range(len(row)):
        left = row[at - size] if at >= size else 0
        up = above[at]
        if form == 1:
            guess = left
        elif form == 3:
            guess = (left + up) // 2
        else:
            corner = above[at - size] if at >= size else 0
            guess = _paeth(left, up, corner)
        row[at] = (row[at] + guess) & 255
    return row


def _paeth(left: int, up: int, corner: int) -> int:
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if to_left <= to_up and to_left <= to_corner:
        return left
    return up if to_up <= to_corner else corner


def _distance(one: bytes, other: bytes) -> int:
    return sum((left - right) ** 2 for left, right in zip(one, other))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_MAGIC)
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
