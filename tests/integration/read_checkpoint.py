#!/usr/bin/env python3
"""Figures of every tensor of a checkpoint as h5py sees it: read_checkpoint.py INDEX. One JSON object, by path."""
import json
import sys

import h5py
import numpy as np


def main() -> int:
    figures = {}
    with h5py.File(sys.argv[1], "r") as index:

        def collect(name: str, item: object) -> None:
            if not isinstance(item, h5py.Dataset) or name.startswith("shard_files/"):
                return
            values = item[...].astype(np.float64)
            figures[name] = {
                "shape": list(values.shape),
                "nan": int(np.isnan(values).sum()),
                "min": float(values.min()),
                "max": float(values.max()),
                "rms": float(np.sqrt(np.mean(values * values))),
            }

        index.visititems(collect)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
