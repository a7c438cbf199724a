"""16-bit colour PNG, which Pillow reduces to 8 bits without a word."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import torch
import torchvision.io

# torchvision keeps 16 bits. Its own function around this operator warns that it will go; the operator ends
# the process on damaged data, so it is given nothing that was not checked.
assert torchvision.io
DECODE_PNG = getattr(torch.ops.image, "decode_png", None)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {2: 3, 4: 2, 6: 4}  # by PNG's colour type: colour, grey and alpha, colour and alpha


def is_16_bit_colour(head: bytes) -> bool:
    """Whether the first 32 bytes of a file are those of a PNG that Pillow would spoil."""
    return head.startswith(SIGNATURE) and len(head) == 32 and head[24] == 16 and head[25] in CHANNELS


def read_png16(data: bytes) -> np.ndarray:
    """(H, W, C) uint16 without alpha, C 1 or 3. Raises `ValueError` for damage and for interlacing."""
    if DECODE_PNG is None:
        raise ValueError("16-bit colour PNG needs a torchvision with decode_png; store it as TIFF or .npy")
    width, height = struct.unpack(">II", data[16:24])
    if data[26:29] != b"\0\0\0":
        raise ValueError("interlaced 16-bit colour PNG is not supported; store it without interlacing")
    packed = b"".join(_chunks(data, b"IDAT"))
    _check_rows(packed, height, 1 + 2 * width * CHANNELS[data[25]])
    plain = SIGNATURE + _chunk(b"IHDR", data[16:29]) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")
    image = DECODE_PNG(torch.frombuffer(bytearray(plain), dtype=torch.uint8), 0)  # 0: channels as stored
    colours = image[: 1 if image.shape[0] < 3 else 3]
    return colours.permute(1, 2, 0).numpy()


def _chunks(data: bytes, kind: bytes) -> Iterator[bytes]:
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == kind:
            yield data[place + 8 : place + 8 + size]
        place += 12 + size


def _check_rows(packed: bytes, height: int, row: int) -> None:
    """Every row must be there, and start with one of the five filters."""
    unpacker = zlib.decompressobj()
    rows = np.frombuffer(unpacker.decompress(packed, height * row), dtype=np.uint8)
    unpacker.decompress(unpacker.unconsumed_tail, 1)  # compares the checksum at the end
    if len(rows) < height * row or not unpacker.eof or rows.reshape(height, row)[:, 0].max() > 4:
        raise ValueError("the PNG is truncated or damaged")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
