// The part of h5.hpp that turns HDF5's error stack into text.
#include <cstdlib>

#include "base/log.hpp"
#include "checkpoint/h5.hpp"

namespace red::checkpoint::h5 {
namespace {

/// HDF5's file driver reports system errors with time, descriptor and addresses, on two lines: keeps what it
/// tried and why it failed.
std::string shortened(const std::string& description) {
  std::string tried = description.substr(0, description.find(": time = "));
  const std::size_t number = description.find("errno = "), reason = description.find("error message = '");
  if (number == std::string::npos || reason == std::string::npos) return tried;
  const std::size_t reason_begin = reason + std::string("error message = '").size();
  return fmt::format("{}: {} (errno {})", tried.substr(0, tried.find(", errno")),
                     description.substr(reason_begin, description.find('\'', reason_begin) - reason_begin),
                     std::atoi(description.c_str() + number + std::string("errno = ").size()));
}

/// One entry of the stack; entries that were given already, as they are when a file is flushed again and
/// again, are left out.
herr_t append_error(unsigned, const H5E_error2_t* error, void* text) {
  auto& out = *static_cast<std::string*>(text);
  const std::string entry = fmt::format("{}: {}", error->func_name ? error->func_name : "?",
                                        error->desc ? shortened(error->desc) : "?");
  if (out.find(entry) == std::string::npos) out += (out.empty() ? "" : "; ") + entry;
  return 0;
}

}  // namespace

std::string take_error_stack() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, append_error, &text);
  H5Eclear2(H5E_DEFAULT);
  return text.empty() ? "no reason given" : text;
}

void report_unclosed(const char* kind) noexcept {
  try {
    // One reason is enough: the error that led here is on its way with all of them.
    const std::string stack = take_error_stack();
    const std::size_t system = stack.find(" (errno ");
    const std::size_t begin = system == std::string::npos ? std::string::npos : stack.rfind("; ", system);
    log::rank_warning("an HDF5 {} could not be closed: {}", kind,
                      stack.substr(begin == std::string::npos ? 0 : begin + 2).substr(0, 200));
  } catch (
      ...) {  // NOLINT(bugprone-empty-catch): out of memory while reporting; nothing is left to say it with
  }
}

}  // namespace red::checkpoint::h5
