// The middle of figures that were measured several times.
#pragma once

#include <vector>

namespace red::launch {

/// Of an odd number of values the middle one, of an even number the mean of the two in the middle. Not of
/// none.
double median(std::vector<double> values);

}  // namespace red::launch
