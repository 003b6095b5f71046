// One line per event, on standard error, with time and rank. Rank 0 speaks for the run unless a line concerns
// one rank. Progress lines and results go elsewhere (train/progress, standard output).
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace red::log {

enum class Level { debug, info, warning, error };

/// Set once at start; until then lines carry no rank.
void set_rank(int rank, int num_ranks);
void set_level(Level level);

void write(Level level, bool every_rank, std::string_view text);

/// From rank 0 alone.
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::info, false, fmt::format(format, std::forward<Args>(args)...));
}
/// From rank 0 alone.
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::warning, false, fmt::format(format, std::forward<Args>(args)...));
}
/// From whichever rank it happens on, with its number.
template <class... Args>
void rank_warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::warning, true, fmt::format(format, std::forward<Args>(args)...));
}
/// From whichever rank it happens on, with its number.
template <class... Args>
void rank_error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::error, true, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace red::log
