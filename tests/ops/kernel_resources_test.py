#!/usr/bin/env python3
"""Kernels of one short name in kernel_resources.py: nothing of either is lost, whatever they are built for."""
import unittest

import kernel_resources


def resources(registers: int, stack: int) -> dict:
    return {"registers": registers, "stack": stack, "shared": 0}


class ByName(unittest.TestCase):
    def test_the_spill_of_a_twin_with_fewer_registers_is_seen(self):
        for twins in ([resources(40, 0), resources(32, 16)], [resources(32, 16), resources(40, 0)]):
            merged = kernel_resources.by_name(("norm", {"sm_80": twin}) for twin in twins)
            self.assertEqual(merged, {"norm": {"sm_80": resources(40, 16)}})

    def test_twins_need_no_architecture_in_common(self):
        merged = kernel_resources.by_name([("norm", {"sm_90a": resources(40, 8)}), ("norm", {"sm_100": resources(32, 0)})])
        self.assertEqual(merged, {"norm": {"sm_90a": resources(40, 8), "sm_100": resources(32, 0)}})

    def test_other_names_stay_apart_and_sorted(self):
        merged = kernel_resources.by_name([("b", {"sm_90a": resources(1, 0)}), ("a", {"sm_90a": resources(2, 0)})])
        self.assertEqual(list(merged), ["a", "b"])


if __name__ == "__main__":
    unittest.main()
