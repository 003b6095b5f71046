#include "base/failure.hpp"

#include <fmt/format.h>

#include <new>
#include <system_error>

namespace red {

FailureText describe_failure(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    const bool internal = error.code() == ExitCode::internal;
    return {error.code(), internal ? fmt::format("internal error: {}", error.what()) : error.what()};
  } catch (const std::bad_alloc&) {
    return {ExitCode::internal,
            "out of memory: use a smaller train.micro_batch, a smaller model or more ranks"};
  } catch (const std::system_error& error) {
    return {ExitCode::io, error.what()};
  } catch (const std::exception& error) {
    return {ExitCode::internal, fmt::format("internal error: {}", error.what())};
  } catch (...) {
    return {ExitCode::internal, "internal error of an unknown kind"};
  }
}

}  // namespace red
