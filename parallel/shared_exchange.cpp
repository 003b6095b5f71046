#include "parallel/shared_exchange.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/check.hpp"
#include "base/error.hpp"
#include "parallel/mpi_context.hpp"
#include "parallel/reduce_blocks.hpp"

namespace red::parallel {
namespace {

// A shorter piece costs more for its counters than for its bytes. Up to 129 ranks it leaves slots as they
// are.
constexpr int64_t kLeastPieceBytes = 1024;

// An advance() that never ends would starve its caller when the peers are fast: twice around the ring at
// most.
constexpr int64_t kMostRounds = 2 * SharedRing::kSlots;

/// Bytes of a slot for each destination; whole elements of any type.
int64_t piece_bytes(int64_t slot_bytes, int size) {
  RED_CHECK(size >= 2, "{} ranks have no ring", size);
  return slot_bytes / (size - 1) / 8 * 8;
}

std::string text_of(const SharedRing::Note& note) {
  const char* what = !note.gather ? "reduce-scatter" : note.reduce ? "all-reduce" : "all-gather";
  const char* op = !note.reduce               ? ""
                   : note.op == ReduceOp::sum ? " (sum)"
                   : note.op == ReduceOp::max ? " (max)"
                                              : " (min)";
  return fmt::format("{}{} of {} {} elements", what, op, note.num_elements, name_of(note.dtype));
}

int64_t rounds_for(int64_t elements, int64_t piece) {
  return (elements + piece - 1) / piece;
}

}  // namespace

int64_t SharedExchange::slot_bytes(int64_t segment_bytes, int size) {
  const int64_t piece =
      std::max(segment_bytes / std::max(1, size - 1), std::min(segment_bytes, kLeastPieceBytes));
  return std::max<int64_t>(piece / 8 * 8, 8) * std::max(1, size - 1);
}

SharedExchange::SharedExchange(MpiContext& context) : MpiOperation(context), parts_(context.world_size()) {}

void SharedExchange::start(const BlockTask& task, SharedRing& ring) {
  task_ = task;
  ring_ = &ring;
  done_ = false;
  const auto element_bytes = static_cast<int64_t>(size_of(task.dtype));
  const int64_t bytes = task.num_elements * element_bytes;
  whole_ = task.reduce && task.gather && bytes <= ring.slot_bytes() &&
           bytes * task.place.size <= SmallAllReduce::kBytes;
  reduce_piece_ =
      whole_ ? task.num_elements : piece_bytes(ring.slot_bytes(), task.place.size) / element_bytes;
  gather_piece_ = ring.slot_bytes() / element_bytes;
  num_reduce_ = num_gather_ = 0;
  if (task.num_elements != 0) {
    const int64_t largest = task.block_size(0);
    if (task.reduce) num_reduce_ = whole_ ? 1 : rounds_for(largest, reduce_piece_);
    if (task.gather && !whole_) num_gather_ = rounds_for(largest, gather_piece_);
  }
  note_ = {task.num_elements, task.dtype, task.op, task.reduce, task.gather};
  first_ = ring.reserve(num_reduce_ + num_gather_);
  end_ = first_ + num_reduce_ + num_gather_;
  next_out_ = next_in_ = first_;
  context_.activate(*this);
  advance();
}

SharedExchange::Round SharedExchange::round_at(int64_t index) const {
  const int64_t i = index - first_;
  if (whole_) return {Kind::whole, 0};
  if (i < num_reduce_) return {Kind::reduce, i * reduce_piece_};
  return {Kind::gather, (i - num_reduce_) * gather_piece_};
}

int64_t SharedExchange::count_in(int block, const Round& round) const {
  const int64_t piece = round.kind == Kind::gather ? gather_piece_ : reduce_piece_;
  return std::clamp<int64_t>(task_.block_size(block) - round.offset, 0, piece);
}

/// In a slot that reduces, destinations lie by their distance from the source.
std::byte* SharedExchange::piece_for(int source, int destination, int64_t index) const {
  const int size = task_.place.size;
  const int place = (destination - source - 1 + size) % size;
  return ring_->slot(source, index) + place * piece_bytes(ring_->slot_bytes(), size);
}

/// Elements that are added up must be so before they are given on.
bool SharedExchange::is_ready(const Round& round) const {
  if (round.kind != Kind::gather || num_reduce_ == 0) return true;
  const int64_t last = round.offset + count_in(task_.place.rank, round);
  return std::min(next_in_ - first_, num_reduce_) * reduce_piece_ >= last;
}

bool SharedExchange::publish(int64_t end) {
  const int64_t before = next_out_;
  for (; next_out_ < end; ++next_out_) {
    const Round round = round_at(next_out_);
    if (!is_ready(round) || !ring_->may_publish(next_out_)) break;
    write(round, next_out_);
    ring_->publish(next_out_, note_);
  }
  return next_out_ != before;
}

void SharedExchange::write(const Round& round, int64_t index) {
  const int rank = task_.place.rank, size = task_.place.size;
  const auto bytes_of = [this](int64_t count) {
    return static_cast<std::size_t>(count) * size_of(task_.dtype);
  };
  switch (round.kind) {
    case Kind::whole:
      std::memcpy(ring_->slot(rank, index), task_.blocks, bytes_of(task_.num_elements));
      return;
    case Kind::gather:
      std::memcpy(ring_->slot(rank, index), task_.own_element(round.offset), bytes_of(count_in(rank, round)));
      return;
    case Kind::reduce:
      for (int r = 0; r < size; ++r) {
        if (r == rank) continue;
        std::memcpy(piece_for(rank, r, index), task_.element_of_block(r, round.offset),
                    bytes_of(count_in(r, round)));
      }
  }
}

bool SharedExchange::read(int64_t end) {
  const int64_t before = next_in_;
  for (; next_in_ < end && ring_->may_read(next_in_); ++next_in_) {
    check_notes(next_in_);
    const Round round = round_at(next_in_);
    if (round.kind == Kind::gather) {
      copy_out(round, next_in_);
    } else {
      sum_up(round, next_in_);
    }
    ring_->finish_reading(next_in_);
  }
  return next_in_ != before;
}

void SharedExchange::check_notes(int64_t index) const {
  for (int r = 0; r < task_.place.size; ++r) {
    const SharedRing::Note& note = ring_->note(r, index);
    if (note == note_) continue;
    throw LogicError("on communicator {} its rank {} is at {}, and its rank {} at {}", ring_->name(), r,
                     text_of(note), task_.place.rank, text_of(note_));
  }
}

/// own = x of rank 0 + x of rank 1 + ..., from left to right.
void SharedExchange::sum_up(const Round& round, int64_t index) {
  const int rank = task_.place.rank, size = task_.place.size;
  const bool whole = round.kind == Kind::whole;
  const int64_t count = whole ? task_.num_elements : count_in(rank, round);
  if (count == 0) return;
  for (int r = 0; r < size; ++r) {
    if (whole) {
      parts_[r] = ring_->slot(r, index);
    } else {
      parts_[r] = r == rank ? task_.element_of_block(rank, round.offset) : piece_for(r, rank, index);
    }
  }
  reduce_blocks(task_.dtype, task_.op, whole ? task_.blocks : task_.own_element(round.offset),
                {parts_.data(), static_cast<std::size_t>(size)}, count);
}

void SharedExchange::copy_out(const Round& round, int64_t index) {
  const int rank = task_.place.rank, size = task_.place.size;
  for (int distance = 1; distance < size; ++distance) {
    const int r = (rank + distance) % size;
    std::memcpy(task_.element_of_block(r, round.offset), ring_->slot(r, index),
                static_cast<std::size_t>(count_in(r, round)) * size_of(task_.dtype));
  }
}

bool SharedExchange::advance() {
  if (done_) return true;
  const int64_t end_out = std::min(end_, next_out_ + kMostRounds),
                end_in = std::min(end_, next_in_ + kMostRounds);
  for (bool moved = true; moved;) {
    moved = publish(end_out);
    moved |= read(end_in);
  }
  return done_ = next_out_ == end_ && next_in_ == end_;
}

void SharedExchange::give_back() noexcept {
  context_.give_back(*this);
}

}  // namespace red::parallel
