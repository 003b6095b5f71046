// How far the clocks of ranks are apart, by messages there and back (Cristian's method): the answer's time is
// taken for the middle of the exchange, and of many exchanges the quickest counts, which is wrong by half its
// duration at most.
#pragma once

#include <functional>

#include "parallel/communicator.hpp"

namespace red::parallel {

struct ClockOffset {
  double seconds = 0.0;      ///< this rank's clock minus rank 0's
  double uncertainty_s = 0;  ///< half of the quickest exchange
};

/// `now` reads this rank's clock, in seconds. Collective; ranks are measured one after another.
ClockOffset clock_offset(Communicator& world, const std::function<double()>& now);

}  // namespace red::parallel
