// A program whose ranks meet one kind of trouble, named on its command line; abort_channel_test starts it for
// real. Every other rank computes sums with the others until it hears of the trouble.
//   abort_program MODE [marker]
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string_view>
#include <thread>
#include <vector>

#include "base/log.hpp"
#include "parallel/mpi_environment.hpp"

namespace red::parallel {
namespace {

void sleep_for(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

/// Endless without a call that could notice anything.
[[noreturn]] void spin_for_ever() {
  for (std::atomic<uint64_t> turns{0};;) ++turns;
}

void meet_trouble(std::string_view mode, int rank, Communicator& world) {
  if (mode == "throw" && rank == 1) throw DataError("token file broken.bin ends early");
  if (mode == "throw0" && rank == 0) throw DataError("token file broken.bin ends early");
  if (mode == "throw_everywhere") throw ConfigError("model.heads = 3 does not divide model.width = 64");
  if (mode == "unexpected" && rank == 1) throw std::out_of_range("somebody's vector");
  if (mode == "kill" && rank == 1) std::raise(SIGKILL);
  if (mode == "kill0" && rank == 0) std::raise(SIGKILL);
  if (mode == "exit" && rank == 1) _exit(0);
  if (mode == "stuck" && rank == 1) sleep_for(1000);
  if (mode == "spin_and_throw" && rank == 1) spin_for_ever();
  if (mode == "spin_and_throw" && rank == 0) {
    sleep_for(0.5);
    throw DataError("token file broken.bin ends early");
  }
  if (mode == "stop" && rank == 1) std::raise(SIGSTOP);
  if (mode == "stop0" && rank == 0) std::raise(SIGSTOP);
  if (mode == "mismatch" && rank == 1) {
    float x = 0;
    Request request = world.receive(make_tensor(&x, 1, 1), 0, 1);
    world.wait(request, "a message that nobody sends");
  }
  if (mode == "other_sum" && rank == 1) {
    std::vector<double> x(10);
    Request request = world.all_reduce(make_tensor(x.data(), 1, 10), ReduceOp::sum);
    world.wait(request, "a sum that nobody else has");
  }
}

void run(std::string_view mode, Communicator& world) {
  std::vector<float> x(100000, 1.0F);
  for (int step = 0; step < 20; ++step) {
    if (step == 10) meet_trouble(mode, world.rank(), world);
    Request request =
        world.all_reduce(make_tensor(x.data(), 1, static_cast<int64_t>(x.size())), ReduceOp::max);
    world.wait(request, "all-reduce of the test");
  }
  if (world.rank() == 0) fmt::print("all steps done\n");
}

int main_of(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "none";
  MpiOptions options;
  options.deadline_s = 3;
  options.abort.grace_s = 8;  // longer than ranks stay behind for each other
  MpiEnvironment environment(options);
  log::set_rank(environment.rank(), environment.size());
  try {
    run(mode, environment.world());
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
