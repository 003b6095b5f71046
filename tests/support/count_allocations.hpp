// How often this program has called operator new; for tests that a path allocates nothing.
#pragma once

#include <cstdint>

namespace red::test {

int64_t num_allocations();

}  // namespace red::test
