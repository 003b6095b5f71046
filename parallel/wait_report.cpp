#include "parallel/wait_report.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace red::parallel {
namespace {

// A run may have hundreds of ranks, and nobody reads more lines than this.
constexpr std::size_t kMostNamed = 8;

/// "ranks 0, 2, 3 and 12 more"
std::string list_of(const std::vector<const RankState*>& states) {
  std::string text = states.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < std::min(states.size(), kMostNamed); ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : ", ", states[i]->rank);
  }
  if (states.size() > kMostNamed) text += fmt::format(" and {} more", states.size() - kMostNamed);
  return text;
}

std::string at_position(const RankState& state) {
  return state.position.empty() ? "" : fmt::format(", at {}", state.position);
}

std::string describe(const RankState& state) {
  if (!state.answers) return "does not answer: it was stopped, or its machine or network is gone";
  if (!state.blocking.empty()) return state.blocking + at_position(state);
  const std::string last = state.what.empty() ? "it has waited for nobody so far"
                                              : fmt::format("its last wait was for {}", state.what);
  return fmt::format("waits for nobody since {:.0f} s (computes or is stuck){}; {}", state.seconds,
                     at_position(state), last);
}

bool same_wait(const RankState& a, const RankState& b) {
  return a.what == b.what && a.position == b.position && a.blocking == b.blocking;
}

/// Those that wait mostly wait for the same: one line for each different thing.
std::string describe_waits(std::vector<const RankState*> waiting) {
  std::string text;
  for (std::size_t lines = 0; !waiting.empty() && lines < kMostNamed; ++lines) {
    const RankState& first = *waiting.front();
    const auto others = std::stable_partition(waiting.begin(), waiting.end(),
                                              [&](const RankState* s) { return same_wait(*s, first); });
    const std::vector<const RankState*> same(waiting.begin(), others);
    text += fmt::format("\n  {} {} for {} since {:.0f} s{}", list_of(same),
                        same.size() == 1 ? "waits" : "wait", first.what, first.seconds, at_position(first));
    if (!first.blocking.empty()) text += "; " + first.blocking;
    waiting.erase(waiting.begin(), others);
  }
  return text;
}

}  // namespace

std::string to_news(const RankState& state) {
  return fmt::format("{}\n{}\n{}", state.what, state.position, state.blocking);
}

void take_news(RankState& state, std::string_view news) {
  for (std::string* text : {&state.what, &state.position, &state.blocking}) {
    const std::size_t end = std::min(news.find('\n'), news.size());
    *text = news.substr(0, end);
    news.remove_prefix(std::min(end + 1, news.size()));
  }
}

std::string wait_report(std::string_view overdue, const std::vector<RankState>& states,
                        std::optional<int> named) {
  std::vector<const RankState*> silent, busy, waiting;
  for (const RankState& state : states) {
    (!state.answers ? silent : state.waiting ? waiting : busy).push_back(&state);
  }
  std::string text(overdue);
  const std::vector<const RankState*>& culprits = silent.empty() ? busy : silent;
  if (named) {
    // The text says it.
  } else if (culprits.empty()) {
    text += "; every rank waits, so their operations do not match";
  } else {
    text += fmt::format("; held up by {}", list_of(culprits));
    if (culprits.size() == 1) text += fmt::format(" on {}", culprits[0]->host);
  }
  std::vector<const RankState*> rest = silent;
  rest.insert(rest.end(), busy.begin(), busy.end());
  for (std::size_t i = 0; i < std::min(rest.size(), kMostNamed); ++i) {
    text += fmt::format("\n  rank {} on {} {}", rest[i]->rank, rest[i]->host, describe(*rest[i]));
  }
  return text + describe_waits(std::move(waiting));
}

}  // namespace red::parallel
