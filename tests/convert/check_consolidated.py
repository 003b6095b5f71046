#!/usr/bin/env python3
"""Compares a consolidated file with its checkpoint, in h5py: check_consolidated.py FILE INDEX DTYPE STATE; STATE: with, without, or
none, where the checkpoint has no optimizer state."""
import sys

import h5py
import numpy


def tensors(file):
    found = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return {name: item for name, item in found.items() if name.startswith(("parameters/", "optimizer/"))}


def rounded(values):
    """To bf16, ties to even."""
    bits = values.astype("<f4").view("<u4").astype("u8")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype("u4").view("f4")


def main():
    file, index, dtype, state = h5py.File(sys.argv[1]), h5py.File(sys.argv[2]), sys.argv[3], sys.argv[4]
    got, expected = tensors(file), tensors(index)
    has_state = any(name.startswith("optimizer/") for name in expected)
    assert has_state == (state != "none"), sorted(expected)
    if state == "without":
        expected = {name: item for name, item in expected.items() if name.startswith("parameters/")}
    assert expected and sorted(got) == sorted(expected), set(got) ^ set(expected)
    for name, item in expected.items():
        values = item[...]
        narrow = dtype == "bf16" and name.startswith("parameters/")
        assert got[name].id.get_type().get_size() == (2 if narrow else item.dtype.itemsize), name
        found = got[name].astype("f4")[...] if narrow else got[name][...]
        assert numpy.array_equal(found, rounded(values) if narrow else values), name
    for name in ("step", "sample_cursor", "configuration", "tokenizer_digest"):
        assert file.attrs[name] == index.attrs[name], name
    assert dict(file["extra"].attrs) == ({} if state == "without" else dict(index["extra"].attrs))


if __name__ == "__main__":
    main()
