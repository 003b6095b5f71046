// Which rank holds up the others: one line that says it, then what each rank does.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace red::parallel {

/// What one rank does, as far as it is known.
struct RankState {
  int rank = 0;
  std::string host;
  bool answers = true;        ///< false: did not say in time what it does
  bool waiting = false;       ///< for another rank; otherwise it computes, reads, or is stuck
  double seconds = 0;         ///< since when
  std::string what;           ///< the wait, or while not waiting the last one; empty: none so far
  std::string position = {};  ///< in its work: "step 12, backward of micro-batch 3 (data 0, decoder stage 1)"
  std::string blocking = {};  ///< calls that it is in: "reading 'FILE' since 620 s"
};

/// The three texts as one, and back.
std::string to_news(const RankState& state);
void take_news(RankState& state, std::string_view news);

/// `overdue`: what passed its deadline, "rank 2 waited 600 s for ...". `named`: the rank that this says to be
/// stuck itself; otherwise the report finds out who holds the others up.
std::string wait_report(std::string_view overdue, const std::vector<RankState>& states,
                        std::optional<int> named = std::nullopt);

}  // namespace red::parallel
