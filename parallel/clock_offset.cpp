#include "parallel/clock_offset.hpp"

#include <limits>

#include "parallel/message_tags.hpp"

namespace red::parallel {
namespace {

constexpr int kExchanges = 20;

void exchange(Communicator& world, double& value, int peer, bool sends) {
  const Tensor x = make_tensor(&value, 1, 1);
  Request request = sends ? world.send(x, peer, kTagClock) : world.receive(x, peer, kTagClock);
  world.wait(request, "exchange of clocks");
}

void answer(Communicator& world, int rank, const std::function<double()>& now) {
  for (int i = 0; i < kExchanges; ++i) {
    double value = 0.0;
    exchange(world, value, rank, false);
    value = now();
    exchange(world, value, rank, true);
  }
}

ClockOffset ask(Communicator& world, const std::function<double()>& now) {
  ClockOffset best{0.0, std::numeric_limits<double>::infinity()};
  for (int i = 0; i < kExchanges; ++i) {
    double value = 0.0;
    const double begin = now();
    exchange(world, value, 0, true);
    exchange(world, value, 0, false);
    const double end = now();
    if ((end - begin) / 2 < best.uncertainty_s) best = {(begin + end) / 2 - value, (end - begin) / 2};
  }
  return best;
}

}  // namespace

ClockOffset clock_offset(Communicator& world, const std::function<double()>& now) {
  ClockOffset own;
  if (world.rank() != 0) {
    own = ask(world, now);
  } else {
    for (int rank = 1; rank < world.size(); ++rank) answer(world, rank, now);
  }
  Request request = world.barrier();
  world.wait(request, "the end of the exchange of clocks");
  return own;
}

}  // namespace red::parallel
