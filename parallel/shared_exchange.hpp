// Sums and gatherings between ranks of one machine, through memory that they share (parallel/shared_ring):
// each byte is copied once, and no message is matched. The results are BlockExchange's, bit for bit.
#pragma once

#include <vector>

#include "parallel/mpi_operation.hpp"
#include "parallel/shared_ring.hpp"

namespace red::parallel {

class SharedExchange final : public MpiOperation {
 public:
  explicit SharedExchange(MpiContext& context);
  /// Does the task in rounds of the ring: first those that reduce, then those that gather. An all-reduce of
  /// few elements takes one round, in which everyone shows all of them.
  void start(const BlockTask& task, SharedRing& ring);
  /// Throws LogicError when another rank is at another task: a defect, and not a lost rank.
  bool advance() override;
  void give_back() noexcept override;

  /// Slots for `size` ranks, of which each holds a piece for every other rank.
  static int64_t slot_bytes(int64_t segment_bytes, int size);

 private:
  enum class Kind { whole, reduce, gather };
  struct Round {
    Kind kind = Kind::whole;
    int64_t offset = 0;  ///< of the round's elements, within each block
  };

  Round round_at(int64_t index) const;
  int64_t count_in(int block, const Round& round) const;
  std::byte* piece_for(int source, int destination, int64_t index) const;
  bool is_ready(const Round& round) const;
  bool publish(int64_t end);
  void write(const Round& round, int64_t index);
  bool read(int64_t end);
  void check_notes(int64_t index) const;
  void sum_up(const Round& round, int64_t index);
  void copy_out(const Round& round, int64_t index);

  BlockTask task_;
  SharedRing* ring_ = nullptr;
  SharedRing::Note note_;
  bool whole_ = false;
  int64_t reduce_piece_ = 0, gather_piece_ = 0;  ///< elements of a block in one round
  int64_t num_reduce_ = 0, num_gather_ = 0;      ///< rounds
  int64_t first_ = 0, end_ = 0;                  ///< rounds of the ring
  int64_t next_out_ = 0, next_in_ = 0;
  std::vector<const std::byte*> parts_;  ///< every rank's part of the elements that are added up
};

}  // namespace red::parallel
