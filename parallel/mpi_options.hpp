#pragma once

#include <cstdint>
#include <limits>

#include "parallel/abort_channel.hpp"

namespace red::parallel {

struct MpiOptions {
  double deadline_s = 600;    ///< a wait longer than this ends the run
  double report_after_s = 1;  ///< a wait longer than this tells the others what it waits for
  int64_t max_elements = std::numeric_limits<int32_t>::max();  ///< of one MPI message
  int64_t segment_bytes = int64_t{128}
                          << 10;  ///< of a reduction or gathering: longest message, slot of shared memory
  bool shared_memory = true;      ///< for reductions and gatherings between ranks of one machine
  AbortOptions abort;
};

}  // namespace red::parallel
