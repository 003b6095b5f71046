// What can go wrong, as types. Only main catches them: it prints one message, and the exit code says which
// kind it was ("Exit codes" in README.md). Wrong input is never a LogicError; a broken invariant always
// is.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace red {

/// Exit codes of the program, one for each kind of end.
enum class ExitCode : int {
  ok = 0,
  internal = 1,       ///< a broken invariant, or an exception nobody expected
  configuration = 2,  ///< options, configuration files, command line
  data = 3,           ///< token files, tokenizers, texts
  io = 4,             ///< reading or writing a file failed
  numerical = 5,      ///< too many steps with NaN or Inf
  communication = 6,  ///< another rank died, or its machine or network is gone
  checkpoint = 7,     ///< checkpoints could not be written: too many in a row, or the last of a run
  watchdog = 8,       ///< a deadline passed: of a wait for another rank, a disk, or a computation
  machine = 9,        ///< redllm preflight: a machine is not fit for the run
  stopped = 75,       ///< asked to stop by a signal; saved, and goes on when it is started again
};

/// Every error of ours: a message for people, and the exit code it leads to.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// Each says in its message what is wrong, where, and how to mend it.
// NOLINTBEGIN(bugprone-macro-parentheses): a class name takes none
#define RED_ERROR_TYPE(Name, code)                                         \
  class Name : public Error {                                              \
   public:                                                                 \
    template <class... Args>                                               \
    explicit Name(fmt::format_string<Args...> format, Args&&... args)      \
        : Error(code, fmt::format(format, std::forward<Args>(args)...)) {} \
  }
// NOLINTEND(bugprone-macro-parentheses)

RED_ERROR_TYPE(ConfigError, ExitCode::configuration);
RED_ERROR_TYPE(DataError, ExitCode::data);
RED_ERROR_TYPE(IoError, ExitCode::io);
RED_ERROR_TYPE(NumericalError, ExitCode::numerical);
RED_ERROR_TYPE(CommunicationError, ExitCode::communication);
RED_ERROR_TYPE(CheckpointError, ExitCode::checkpoint);
RED_ERROR_TYPE(LogicError, ExitCode::internal);
#undef RED_ERROR_TYPE

}  // namespace red
