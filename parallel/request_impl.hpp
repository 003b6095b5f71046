// What a Request holds: the backend's record of one operation. Backends keep a pool of them.
#pragma once

#include "parallel/communicator.hpp"

namespace red::parallel {

class Request::Impl {
 public:
  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  virtual ~Impl() = default;
  /// The Request has died or was overwritten: back to the pool.
  virtual void give_back() noexcept = 0;
};

}  // namespace red::parallel
