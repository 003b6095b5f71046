// As abort_program, with ranks that add up device memory over NCCL: nobody's host waits for the others before
// its stream is to be idle.
//   nccl_abort_program MODE [marker]
#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <exception>
#include <string_view>
#include <thread>
#include <vector>

#include "base/log.hpp"
#include "fakes/nccl_state.hpp"
#include "parallel/mpi_environment.hpp"
#include "parallel/nccl_communicator.hpp"

namespace red::parallel {
namespace {

void meet_trouble(std::string_view mode, int rank) {
  if (rank != 1) return;
  if (mode == "throw") throw DataError("token file broken.bin ends early");
  if (mode == "kill") std::raise(SIGKILL);
  if (mode.starts_with("stuck")) std::this_thread::sleep_for(std::chrono::seconds(1000));
  if (mode.starts_with("async")) cuda_on_cpu::nccl_faults().async_error = ncclRemoteError;
}

/// In the place of a call on the way out that waits for the device.
struct HangsOnTheWayOut {
  explicit HangsOnTheWayOut(bool now) : does(now) {}
  ~HangsOnTheWayOut() {
    if (does && std::uncaught_exceptions() != 0) std::this_thread::sleep_for(std::chrono::seconds(1000));
  }
  bool does;
};

/// The stream has work that waits for a rank when the trouble comes, and its memory is freed on the way out.
void run(std::string_view mode, MpiEnvironment& environment) {
  Stream stream(1);
  const Buffer memory(sizeof(float) * 100000), message(sizeof(float) * 100);
  const bool at_end = mode == "stuck_at_end", overlap = mode != "stuck_without_overlap";
  NcclCommunicator world(environment.world(), environment.context(), stream, {overlap});
  const HangsOnTheWayOut hangs(mode == "async_hangs" && world.rank() == 1);
  const auto pipeline = world.split(0, world.rank(), "pipeline");
  if (mode == "stuck_connecting") meet_trouble("stuck", world.rank());
  std::vector<Route> routes;
  for (int r = 0; r + 1 < world.size(); ++r) routes.push_back({r, r + 1, 1});
  pipeline->connect(routes);
  const Tensor x = make_tensor(reinterpret_cast<float*>(memory.data()), 1, 100000);
  const Tensor y = make_tensor(reinterpret_cast<float*>(message.data()), 1, 100);
  for (int step = 0; step < 10; ++step) {
    if (step == (at_end ? 9 : 5)) meet_trouble(mode, world.rank());
    Request request = world.all_reduce(x, ReduceOp::sum);
    if (!overlap) stream.synchronize();  // which the operation holds before its wait
    world.wait(request, "all-reduce of the test");
    const int last = pipeline->size() - 1;
    if (pipeline->rank() != 0) {
      request = pipeline->receive(y, pipeline->rank() - 1, 1);
      pipeline->wait(request, "message of the test");
    }
    if (pipeline->rank() != last) {
      request = pipeline->send(y, pipeline->rank() + 1, 1);
      pipeline->wait(request, "message of the test");
    }
    if (!at_end || step < 9) stream.synchronize();
  }
  if (world.rank() == 0 && !at_end) fmt::print("all steps done\n");
}

int main_of(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "none";
  MpiOptions options;
  options.deadline_s = 3;
  options.abort.grace_s = 8;
  MpiEnvironment environment(options);
  log::set_rank(environment.rank(), environment.size());
  try {
    run(mode, environment);
  } catch (...) {
    environment.fail(std::current_exception());
  }
  return 0;
}

}  // namespace
}  // namespace red::parallel

int main(int argc, char** argv) {
  return red::parallel::main_of(argc, argv);
}
