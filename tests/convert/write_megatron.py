#!/usr/bin/env python3
"""Writes token files as Megatron's IndexedDatasetBuilder lays them out: write_megatron.py PREFIX DTYPE < documents.

Each line is a document: sequences separated by '|', token ids by spaces. Shares no code with the engine."""
import struct
import sys

CODES = {"uint16": (8, "H"), "int32": (4, "i")}


class Builder:
    def __init__(self, prefix, dtype):
        self.prefix = prefix
        self.code, self.letter = CODES[dtype]
        self.bin = open(prefix + ".bin", "wb")
        self.lengths, self.documents = [], [0]

    def add_item(self, tokens):
        self.bin.write(struct.pack(f"<{len(tokens)}{self.letter}", *tokens))
        self.lengths.append(len(tokens))

    def end_document(self):
        self.documents.append(len(self.lengths))

    def finalize(self):
        self.bin.close()
        size = struct.calcsize(self.letter)
        pointers, at = [], 0
        for length in self.lengths:
            pointers.append(at)
            at += length * size
        with open(self.prefix + ".idx", "wb") as index:
            index.write(b"MMIDIDX\x00\x00")
            index.write(struct.pack("<Q", 1))
            index.write(struct.pack("<B", self.code))
            index.write(struct.pack("<Q", len(self.lengths)))
            index.write(struct.pack("<Q", len(self.documents)))
            index.write(struct.pack(f"<{len(self.lengths)}i", *self.lengths))
            index.write(struct.pack(f"<{len(pointers)}q", *pointers))
            index.write(struct.pack(f"<{len(self.documents)}q", *self.documents))


def main():
    builder = Builder(sys.argv[1], sys.argv[2])
    for line in sys.stdin:
        for sequence in line.split("|"):
            builder.add_item([int(token) for token in sequence.split()])
        builder.end_document()
    builder.finalize()


if __name__ == "__main__":
    main()
