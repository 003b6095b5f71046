#include "parallel/communicator.hpp"

#include "parallel/request_impl.hpp"

namespace red::parallel {

void Request::GiveBack::operator()(Impl* impl) const noexcept {
  impl->give_back();
}

}  // namespace red::parallel
