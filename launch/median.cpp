#include "launch/median.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace red::launch {

double median(std::vector<double> values) {
  RED_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const std::size_t upper = values.size() / 2, lower = (values.size() - 1) / 2;
  return (values[lower] + values[upper]) / 2.0;
}

}  // namespace red::launch
