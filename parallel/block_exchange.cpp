#include <algorithm>
#include <cstring>

#include "base/check.hpp"
#include "parallel/mpi_context.hpp"
#include "parallel/reduce_blocks.hpp"

namespace red::parallel {
namespace {

// Scratch of one exchange, in each direction; more only where there are so many ranks that messages would be
// shorter than the least.
constexpr int64_t kWindowBytes = int64_t{1} << 20;
constexpr int64_t kLeastSegmentBytes = 4096;

// An advance() that never ends would starve its caller when the peers are fast.
constexpr int kPasses = 4;

/// Two rounds at least, so that one is under way while the other is added up; more where ranks are few.
int64_t window_for(int num_peers) {
  return num_peers == 0 ? 0 : num_peers * std::max<int64_t>(2, 8 / num_peers);
}

}  // namespace

BlockExchange::BlockExchange(MpiContext& context) : MpiOperation(context) {
  // Room for any group of ranks, so that reuse never allocates: up to five ranks the window has at most 8
  // messages.
  const int64_t widest = std::max<int64_t>(8, window_for(context.world_size() - 1));
  for (Window* window : {&incoming_, &outgoing_}) {
    window->arrived.resize(widest);
    window->requests.resize(widest, MPI_REQUEST_NULL);
  }
  round_.resize(context.world_size());
  indices_.resize(widest);
  statuses_.resize(widest);
  arrivals_.resize(static_cast<std::size_t>(std::max(kWindowBytes, widest * kLeastSegmentBytes)));
}

void BlockExchange::start(const BlockTask& task) {
  task_ = task;
  done_ = false;
  window_ = window_for(task_.num_peers());
  const MpiOptions& options = context_.options();
  const int64_t bytes = std::min(options.segment_bytes,
                                 std::max(kLeastSegmentBytes, kWindowBytes / std::max<int64_t>(window_, 1)));
  segment_ = std::min(bytes / static_cast<int64_t>(size_of(task.dtype)), options.max_elements);
  begin_phase(task.reduce);
  context_.activate(*this);
  advance();
}

void BlockExchange::begin_phase(bool reducing) {
  reducing_ = reducing;
  const int64_t largest = task_.block_size(0);
  num_messages_ = (largest + segment_ - 1) / segment_ * task_.num_peers();
  for (Window* window : {&incoming_, &outgoing_}) window->begin = window->next = 0;
}

/// Message `index` as this rank receives or sends it. A round goes to the neighbours at distance 1, 2, ...:
/// what a rank sends as its i-th message is what the peer expects as its i-th.
BlockExchange::Piece BlockExchange::piece(int64_t index, bool incoming) const {
  const int rank = task_.place.rank, size = task_.place.size;
  const int distance = 1 + static_cast<int>(index % task_.num_peers());
  Piece piece;
  piece.peer = (incoming ? rank + distance : rank + size - distance) % size;
  // While reducing, elements belong to the block of whom they go to; while gathering, of whom they come from.
  piece.block = reducing_ == incoming ? rank : piece.peer;
  piece.offset = index / task_.num_peers() * segment_;
  piece.count = std::clamp<int64_t>(task_.block_size(piece.block) - piece.offset, 0, segment_);
  return piece;
}

std::byte* BlockExchange::arrival(int64_t index) {
  return task_.element(arrivals_.data(), index % window_ * segment_);
}

/// Starts as many messages as the windows hold. Those without elements (blocks differ by one) are none.
bool BlockExchange::post() {
  const MPI_Datatype type = mpi_type(task_.dtype);
  const int tag = task_.place.tag + (reducing_ ? 0 : 1);
  const int64_t before = incoming_.next + outgoing_.next;
  for (; incoming_.next < std::min(num_messages_, incoming_.begin + window_); ++incoming_.next) {
    const Piece p = piece(incoming_.next, true);
    const int64_t slot = incoming_.next % window_;
    incoming_.arrived[slot] = static_cast<char>(p.count == 0);
    if (p.count == 0) continue;
    std::byte* target = reducing_ ? arrival(slot) : task_.element_of_block(p.block, p.offset);
    RED_MPI(MPI_Irecv(target, static_cast<int>(p.count), type, p.peer, tag, task_.place.comm,
                      &incoming_.requests[slot]));
  }
  for (; outgoing_.next < std::min(num_messages_, outgoing_.begin + window_); ++outgoing_.next) {
    const Piece p = piece(outgoing_.next, false);
    const int64_t slot = outgoing_.next % window_;
    outgoing_.arrived[slot] = static_cast<char>(p.count == 0);
    if (p.count == 0) continue;
    std::byte* source = reducing_ ? task_.element_of_block(p.block, p.offset) : task_.own_element(p.offset);
    RED_MPI(MPI_Isend(source, static_cast<int>(p.count), type, p.peer, tag, task_.place.comm,
                      &outgoing_.requests[slot]));
  }
  return incoming_.next + outgoing_.next != before;
}

bool BlockExchange::collect(Window& window) {
  int count = 0;
  RED_MPI(MPI_Testsome(static_cast<int>(window_), window.requests.data(), &count, indices_.data(),
                       statuses_.data()));
  if (count == MPI_UNDEFINED) return false;
  for (int i = 0; i < count; ++i) window.arrived[indices_[i]] = 1;
  return count != 0;
}

/// Takes out of the windows what has arrived, incoming messages by whole rounds.
bool BlockExchange::retire() {
  const int64_t before = incoming_.begin + outgoing_.begin;
  auto has_arrived = [this](const Window& window, int64_t count) {
    if (window.begin + count > window.next) return false;
    for (int64_t i = window.begin; i < window.begin + count; ++i) {
      if (window.arrived[i % window_] == 0) return false;
    }
    return true;
  };
  for (; has_arrived(incoming_, task_.num_peers()); incoming_.begin += task_.num_peers()) {
    if (reducing_) sum_up_round(incoming_.begin);
  }
  while (has_arrived(outgoing_, 1)) ++outgoing_.begin;
  return incoming_.begin + outgoing_.begin != before;
}

/// own = x of rank 0 + x of rank 1 + ..., from left to right, of the round that begins with message `first`.
void BlockExchange::sum_up_round(int64_t first) {
  const int rank = task_.place.rank, size = task_.place.size;
  const Piece own = piece(first, true);
  if (own.count == 0) return;
  for (int r = 0; r < size; ++r) {
    round_[r] =
        r == rank ? task_.element_of_block(rank, own.offset) : arrival(first + (r - rank + size) % size - 1);
  }
  reduce_blocks(task_.dtype, task_.op, task_.own_element(own.offset),
                {round_.data(), static_cast<std::size_t>(size)}, own.count);
}

bool BlockExchange::advance() {
  if (done_) return true;
  if (task_.num_peers() == 0) return done_ = true;
  for (int pass = 0; pass < kPasses; ++pass) {
    bool changed = post();
    changed |= collect(incoming_);
    changed |= collect(outgoing_);
    changed |= retire();
    if (incoming_.begin == num_messages_ && outgoing_.begin == num_messages_) {
      // A gather may write where this rank sent from: all its sends have ended here.
      if (!reducing_ || !task_.gather) return done_ = true;
      begin_phase(false);
      changed = true;
    }
    if (!changed) break;
  }
  return false;
}

void BlockExchange::give_back() noexcept {
  context_.give_back(*this);
}

}  // namespace red::parallel
