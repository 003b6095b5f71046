#!/usr/bin/env python3
"""Compares a checkpoint with plain files: read_with_h5py.py CHECKPOINT EXPECTED

EXPECTED holds one file of raw little-endian elements for every tensor, named as its path with '/' written as '+'.
Every tensor must appear whole under its path in index.h5, and nothing else. Prints "h5py X reads N tensors".
"""
import pathlib
import sys

import h5py
import numpy as np


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def table_entry(remainder: int) -> int:
    for _ in range(8):
        remainder = (remainder >> 1) ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder


TABLE = [table_entry(byte) for byte in range(256)]


def compare_checksums(checkpoint: pathlib.Path, index: h5py.File, name: str) -> None:
    """The bytes of each tile, the checksum beside it, and the index's are of one mind."""
    sources = index[name].virtual_sources()
    listed = index["shard_files/crc32c/" + name][...]
    assert len(sources) == len(listed), name
    for source, crc in zip(sources, listed):
        with h5py.File(checkpoint / source.file_name, "r") as shard:
            tile = shard[source.dset_name]
            assert tile.attrs["crc32c"] == crc == crc32c(tile[...].tobytes()), (name, source.dset_name)


def main() -> int:
    checkpoint, expected = map(pathlib.Path, sys.argv[1:3])
    found = {}
    with h5py.File(checkpoint / "index.h5", "r") as index:
        assert index.attrs["format"] == "redllm checkpoint"
        assert (index.attrs["format_major"], index.attrs["format_minor"]) == (1, 1)
        assert "[model]" in index.attrs["configuration"]
        assert index["extra"].attrs["notes"] == "zweite Zeile: \u00e4\nthird"
        assert index["extra"].attrs["empty"] == ""
        for name, size in zip(index["shard_files/name"], index["shard_files/num_bytes"]):
            assert (checkpoint / name.decode()).stat().st_size == size

        def collect(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and not name.startswith("shard_files/"):
                assert item.is_virtual, name
                found[name] = item[...]
                compare_checksums(checkpoint, index, name)

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
