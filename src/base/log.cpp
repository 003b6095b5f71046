#include "base/log.hpp"

#include <unistd.h>

#include <ctime>
#include <string>

namespace red::log {
namespace {

struct State {
  int rank = 0;
  int num_ranks = 1;
  Level level = Level::info;
};

State& state() {
  static State s;
  return s;
}

}  // namespace

void set_rank(int rank, int num_ranks) {
  state().rank = rank;
  state().num_ranks = num_ranks;
}

void set_level(Level level) {
  state().level = level;
}

void write(Level level, bool every_rank, std::string_view text) {
  if (level < state().level || (!every_rank && state().rank != 0)) return;
  constexpr const char* names[] = {"debug", "info", "warning", "error"};
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::string line = fmt::format("{:02}:{:02}:{:02} ", local.tm_hour, local.tm_min, local.tm_sec);
  if (every_rank && state().num_ranks > 1) line += fmt::format("rank {} ", state().rank);
  if (level != Level::info) line += fmt::format("{}: ", names[static_cast<int>(level)]);
  line.append(text).push_back('\n');
  // One write, so that lines of several ranks do not mix.
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace red::log
