// Two ranks on a device each that train a small model or score with it, over NCCL, and meet trouble:
//   nccl_abort_program WORK-TROUBLE [marker]
// WORK: step, of data ranks, score, of tensor ranks, or message, a score of two stages. TROUBLE: none, or
// what happens to a rank: stuck, kill, throw, async.
#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <string>
#include <string_view>
#include <thread>

#include "base/log.hpp"
#include "fakes/nccl_state.hpp"
#include "parallel/nccl_communicator.hpp"
#include "train/device_steps.hpp"

namespace red::test {
namespace {

void meet(std::string_view trouble) {
  if (trouble == "throw") throw DataError("token file broken.bin ends early");
  if (trouble == "kill") std::raise(SIGKILL);
  if (trouble == "stuck") std::this_thread::sleep_for(std::chrono::seconds(1000));
  if (trouble == "async") cuda_on_cpu::nccl_faults().async_error = ncclRemoteError;
}

/// {data, tensor, encoder stages, decoder stages, sequence parallelism}
parallel::Layout layout_for(std::string_view work) {
  if (work == "step") return {2, 1, 0, 1, false};
  if (work == "score") return {1, 2, 0, 1, false};
  return {1, 1, 0, 2, false};
}

void run(std::string_view work, std::string_view trouble, parallel::MpiEnvironment& mpi) {
  Stream stream(1);
  parallel::NcclCommunicator world(mpi.world(), mpi.context(), stream, {});
  StepCase which{model::Kind::dec, layout_for(work)};
  which.micro_batches = 1;
  TinyEngine tiny(tiny_config(which), world, stream);
  const int unlucky = work == "message" ? 0 : 1;  // it is the last stage that waits for the device
  for (int step = 0; step < 3; ++step) {
    if (step == 1 && mpi.rank() == unlucky) meet(trouble);
    if (work == "step") {
      tiny.step(step);
    } else {
      tiny.engine().score(tiny.batches(step).front());
    }
  }
  stream.synchronize();
  if (mpi.rank() == 0) fmt::print("all steps done\n");
}

int main_of(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "step-none";
  const std::size_t dash = mode.find('-');
  parallel::MpiOptions options;
  options.deadline_s = 3;
  options.abort.grace_s = 8;
  parallel::MpiEnvironment mpi(options);
  log::set_rank(mpi.rank(), mpi.size());
  try {
    run(mode.substr(0, dash), mode.substr(dash + 1), mpi);
  } catch (...) {
    mpi.fail(std::current_exception());
  }
  return 0;
}

}  // namespace
}  // namespace red::test

int main(int argc, char** argv) {
  return red::test::main_of(argc, argv);
}
