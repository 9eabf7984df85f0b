#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns an image into an input of fuzz_image_pieces(): what is not zero, with its place.

    pieces.py IMAGE >tests/corpus/fuzz_vhdx/NAME
"""
import struct
import sys

SECTOR, MOST = 512, 65024


def main():
    with open(sys.argv[1], "rb") as f:
        data = f.read()
    data += bytes(-len(data) % SECTOR)
    sectors = [n for n in range(len(data) // SECTOR) if any(data[n * SECTOR:(n + 1) * SECTOR])]
    if sectors and sectors[-1] != len(data) // SECTOR - 1:
        sectors.append(len(data) // SECTOR - 1)  # the length of the file
    while sectors:
        first, count = sectors[0], 1
        while count < len(sectors) and sectors[count] == first + count and count < MOST // SECTOR:
            count += 1
        piece = data[first * SECTOR:(first + count) * SECTOR].rstrip(b"\0") or b"\0" * SECTOR
        if count == len(sectors):  # the last one ends the file
            piece = data[first * SECTOR:(first + count) * SECTOR]
        sys.stdout.buffer.write(struct.pack("<IH", first, len(piece)) + piece)
        sectors = sectors[count:]


main()
