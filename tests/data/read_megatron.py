#!/usr/bin/env python3
"""Reads PREFIX.bin and PREFIX.idx by the layout in docs/data-format.md, with numpy alone, and prints each document
as a line of numbers. Shares no code with the engine: what one library writes another must read."""
import os
import struct
import sys

import numpy

DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}


def main() -> int:
    prefix = sys.argv[1]
    with open(prefix + ".idx", "rb") as file:
        index = file.read()
    assert index[:9] == b"MMIDIDX\0\0", index[:9]
    (version,) = struct.unpack_from("<Q", index, 9)
    (code,) = struct.unpack_from("<B", index, 17)
    sequences, boundaries = struct.unpack_from("<QQ", index, 18)
    assert version == 1
    dtype = numpy.dtype(DTYPES[code])
    at = 34
    lengths = numpy.frombuffer(index, "<i4", sequences, at)
    at += 4 * sequences
    offsets = numpy.frombuffer(index, "<i8", sequences, at)
    at += 8 * sequences
    documents = numpy.frombuffer(index, "<i8", boundaries, at)
    at += 8 * boundaries
    assert at == len(index), (at, len(index))
    assert os.path.getsize(prefix + ".bin") == dtype.itemsize * int(lengths.sum())
    assert documents[0] == 0 and documents[-1] == sequences
    print("dtype", dtype.name)
    with open(prefix + ".bin", "rb") as file:
        tokens = file.read()
    for first, last in zip(documents[:-1], documents[1:]):
        parts = [numpy.frombuffer(tokens, dtype, lengths[s], offsets[s]) for s in range(first, last)]
        print(*[int(token) for part in parts for token in part])
    return 0


if __name__ == "__main__":
    sys.exit(main())
