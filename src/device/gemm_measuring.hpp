// Whether the fastest way of multiplying is looked for by measuring, as it is unless a run wants to be
// repeatable; then cuDNN's attention is asked for its deterministic algorithm, too.
#pragma once

namespace red {

/// From now on nothing is chosen by how fast it is, which differs from run to run, so that repeats of a run
/// have the same bits: of the CPU's libraries the first that multiplies rightly, of a GPU's algorithms
/// cuBLASLt's first proposal. Before the first product.
void choose_without_measuring();
bool choices_are_measured();

}  // namespace red
