// Which rank holds up the others: one line that says it, then what each rank does.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace red::parallel {

/// What one rank does, as far as it is known.
struct RankState {
  int rank = 0;
  std::string host;
  bool answers = true;   ///< false: did not say in time what it does
  bool waiting = false;  ///< for another rank; otherwise it computes, reads, or is stuck
  double seconds = 0;    ///< since when
  std::string what;      ///< the wait, or while not waiting the last one; empty: none so far
};

/// `overdue`: the wait that passed its deadline, "rank 2 waited 600 s for ...".
std::string wait_report(std::string_view overdue, const std::vector<RankState>& states);

}  // namespace red::parallel
