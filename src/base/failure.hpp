// What an exception means to the user.
#pragma once

#include <exception>
#include <string>

#include "base/error.hpp"

namespace red {

struct FailureText {
  ExitCode code = ExitCode::internal;
  std::string message;
};

/// Of any exception, not only of ours.
FailureText describe_failure(const std::exception_ptr& failure);

}  // namespace red
