// In the place of nccl_world.cpp where CMake finds no NCCL.
#include "base/check.hpp"
#include "parallel/nccl_world.hpp"

namespace red::parallel {

std::string nccl_world_version() {
  return "";
}

std::unique_ptr<Communicator> nccl_world(MpiEnvironment&, Stream&, const TransportOptions&) {
  throw LogicError("this program has no NCCL");
}

}  // namespace red::parallel
