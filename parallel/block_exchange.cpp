#include <algorithm>
#include <cstring>

#include "base/check.hpp"
#include "parallel/mpi_context.hpp"
#include "parallel/reduce_blocks.hpp"

namespace red::parallel {
namespace {

// An advance() that never ends would starve its caller when the peers are fast.
constexpr int kPasses = 4;

}  // namespace

BlockExchange::BlockExchange(MpiContext& context)
    : MpiOperation(context), arrivals_(kWindow * static_cast<std::size_t>(context.options().segment_bytes)) {
  requests_.fill(MPI_REQUEST_NULL);
}

void BlockExchange::start(const Task& task) {
  task_ = task;
  done_ = false;
  const auto element_bytes = static_cast<int64_t>(size_of(task.dtype));
  segment_ = std::min(context_.options().segment_bytes / element_bytes, context_.options().max_elements);
  if (task.own == nullptr) task_.own = element(task.blocks, block_begin(task.place.rank));
  begin_phase(task.reduce);
  context_.activate(*this);
  advance();
}

void BlockExchange::begin_phase(bool reducing) {
  reducing_ = reducing;
  const int64_t largest = block_size(0);
  num_pieces_ = (largest + segment_ - 1) / segment_ * (task_.place.size - 1);
  incoming_ = {};
  outgoing_ = {};
}

int64_t BlockExchange::block_begin(int block) const {
  const int64_t size = task_.place.size;
  return block * (task_.num_elements / size) + std::min<int64_t>(block, task_.num_elements % size);
}

int64_t BlockExchange::block_size(int block) const {
  return block_begin(block + 1) - block_begin(block);
}

BlockExchange::Piece BlockExchange::piece(int64_t index, bool incoming) const {
  // Neighbours at distance 1, 2, ... for each segment: what a rank sends i-th to a peer is what that peer
  // receives i-th.
  const auto [rank, size] = std::pair(task_.place.rank, task_.place.size);
  const int distance = 1 + static_cast<int>(index % (size - 1));
  Piece piece;
  piece.peer = (incoming ? rank + distance : rank + size - distance) % size;
  // While reducing, elements belong to the block of whom they go to; while gathering, of whom they come from.
  piece.block = reducing_ == incoming ? rank : piece.peer;
  piece.offset = index / (size - 1) * segment_;
  piece.count = std::clamp<int64_t>(block_size(piece.block) - piece.offset, 0, segment_);
  return piece;
}

std::byte* BlockExchange::element(std::byte* base, int64_t index) const {
  return base + static_cast<std::size_t>(index) * size_of(task_.dtype);
}

/// Starts as many messages as the windows hold. Pieces without elements (blocks differ by one) are none.
bool BlockExchange::post() {
  bool changed = false;
  const MPI_Datatype type = mpi_type(task_.dtype);
  const int tag = task_.place.tag + (reducing_ ? 0 : 1);
  for (; incoming_.next < std::min(num_pieces_, incoming_.begin + kWindow); ++incoming_.next) {
    const Piece p = piece(incoming_.next, true);
    const auto slot = static_cast<int>(incoming_.next % kWindow);
    std::byte* target = reducing_ ? element(arrivals_.data(), slot * segment_)
                                  : element(task_.blocks, block_begin(p.block) + p.offset);
    incoming_.arrived[slot] = p.count == 0;
    if (p.count != 0) {
      RED_MPI(MPI_Irecv(target, static_cast<int>(p.count), type, p.peer, tag, task_.place.comm,
                        &requests_[slot]));
    }
    changed = true;
  }
  for (; outgoing_.next < std::min(num_pieces_, outgoing_.begin + kWindow); ++outgoing_.next) {
    const Piece p = piece(outgoing_.next, false);
    const auto slot = static_cast<int>(outgoing_.next % kWindow);
    std::byte* source =
        reducing_ ? element(task_.blocks, block_begin(p.block) + p.offset) : element(task_.own, p.offset);
    outgoing_.arrived[slot] = p.count == 0;
    if (p.count != 0) {
      RED_MPI(MPI_Isend(source, static_cast<int>(p.count), type, p.peer, tag, task_.place.comm,
                        &requests_[kWindow + slot]));
    }
    changed = true;
  }
  return changed;
}

bool BlockExchange::collect() {
  std::array<int, 2 * kWindow> indices{};
  std::array<MPI_Status, 2 * kWindow> statuses;
  int count = 0;
  RED_MPI(MPI_Testsome(2 * kWindow, requests_.data(), &count, indices.data(), statuses.data()));
  if (count == MPI_UNDEFINED) return false;
  for (int i = 0; i < count; ++i) {
    const int slot = indices[i];
    if (slot < kWindow) {
      incoming_.arrived[slot] = true;
    } else {
      outgoing_.arrived[slot - kWindow] = true;
    }
  }
  return count != 0;
}

/// Takes what has arrived out of the windows, in order: the order of the sum must not depend on timing.
bool BlockExchange::retire() {
  const int64_t before = incoming_.begin + outgoing_.begin;
  for (; incoming_.begin < incoming_.next && incoming_.arrived[incoming_.begin % kWindow];
       ++incoming_.begin) {
    if (!reducing_) continue;
    const Piece p = piece(incoming_.begin, true);
    const std::byte* arrival = element(arrivals_.data(), incoming_.begin % kWindow * segment_);
    std::byte* sum = element(task_.own, p.offset);
    const bool first = incoming_.begin % (task_.place.size - 1) == 0;
    const std::byte* so_far = first ? element(task_.blocks, block_begin(p.block) + p.offset) : sum;
    reduce_blocks(task_.dtype, task_.op, sum, so_far, arrival, p.count);
  }
  while (outgoing_.begin < outgoing_.next && outgoing_.arrived[outgoing_.begin % kWindow]) ++outgoing_.begin;
  return incoming_.begin + outgoing_.begin != before;
}

bool BlockExchange::advance() {
  if (done_) return true;
  for (int pass = 0; pass < kPasses; ++pass) {
    bool changed = post();
    changed |= collect();
    changed |= retire();
    if (incoming_.begin == num_pieces_ && outgoing_.begin == num_pieces_) {
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
