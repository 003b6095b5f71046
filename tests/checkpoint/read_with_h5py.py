#!/usr/bin/env python3
"""Compares a checkpoint with plain files: read_with_h5py.py CHECKPOINT EXPECTED

EXPECTED holds one file of raw little-endian elements for every tensor, named as its path with '/' written as '+'.
Every tensor must appear whole under its path in index.h5, and nothing else. Prints "h5py X reads N tensors".
"""
import pathlib
import sys

import h5py
import numpy as np


def main() -> int:
    checkpoint, expected = map(pathlib.Path, sys.argv[1:3])
    found = {}
    with h5py.File(checkpoint / "index.h5", "r") as index:
        assert index.attrs["format"] == "redllm checkpoint"
        assert (index.attrs["format_major"], index.attrs["format_minor"]) == (1, 0)
        assert "[model]" in index.attrs["configuration"]
        assert index["extra"].attrs["notes"] == "zweite Zeile: \u00e4\nthird"
        assert index["extra"].attrs["empty"] == ""
        for name, size in zip(index["shard_files/name"], index["shard_files/num_bytes"]):
            assert (checkpoint / name.decode()).stat().st_size == size

        def collect(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and not name.startswith("shard_files/"):
                assert item.is_virtual, name
                found[name] = item[...]

        index.visititems(collect)
    wanted = {p.name.replace("+", "/"): p for p in expected.iterdir()}
    assert found.keys() == wanted.keys(), (sorted(found), sorted(wanted))
    for name, path in wanted.items():
        values = np.fromfile(path, dtype=found[name].dtype).reshape(found[name].shape)
        assert found[name].dtype.byteorder in "<=|", name
        assert np.array_equal(found[name], values), name
    print(f"h5py {h5py.__version__} with HDF5 {h5py.version.hdf5_version} reads {len(found)} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
