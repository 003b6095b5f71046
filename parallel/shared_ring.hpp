// Memory that the ranks of one communicator on one machine all see: for each rank a ring of slots, which it
// alone writes and the others read in place, in rounds that every rank goes through in the same order.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/communicator.hpp"

namespace red::parallel {

class SharedRing {
 public:
  static constexpr int64_t kSlots = 8;

  /// What a round is of. All ranks of a round must have the same.
  struct Note {
    int64_t num_elements = 0;
    DType dtype = DType::fp32;
    ReduceOp op = ReduceOp::sum;
    bool reduce = false, gather = false;
    bool operator==(const Note&) const = default;
  };

  /// Collective over comm, and blocks, as the start may. Null on all ranks where they are on several
  /// machines, or where one of them cannot have the memory or see another's: then `error` says why as errno
  /// does; ESRCH: another rank is in a container whose processes this one does not see. The memory has no
  /// name and goes with its last process.
  static std::unique_ptr<SharedRing> create(MPI_Comm comm, int64_t slot_bytes, std::string_view name,
                                            int& error);
  ~SharedRing();
  SharedRing(const SharedRing&) = delete;
  SharedRing& operator=(const SharedRing&) = delete;

  const std::string& name() const { return name_; }  ///< the communicator's
  int64_t slot_bytes() const { return slot_bytes_; }
  /// The first of `count` rounds, which are the caller's from now on. In the same order on all ranks.
  int64_t reserve(int64_t count);

  /// True when all earlier rounds of this rank are out and nobody still reads the slot that this one takes.
  bool may_publish(int64_t round);
  void publish(int64_t round, const Note& note);
  /// True when this rank has read all earlier rounds and everyone's part of this one is there.
  bool may_read(int64_t round);
  void finish_reading(int64_t round);

  std::byte* slot(int rank, int64_t round) const;
  const Note& note(int rank, int64_t round) const;

 private:
  struct Counters;  // at the head of a rank's memory
  struct Place {
    int64_t process, descriptor;
    uint64_t identity;
  };
  SharedRing(std::string_view name, int rank, int64_t slot_bytes)
      : name_(name), rank_(rank), slot_bytes_(slot_bytes) {}
  int64_t bytes_of_rank() const;
  /// 0, or what went wrong as errno has it.
  int map(const std::vector<Place>& places);

  std::string name_;
  int rank_;
  int64_t slot_bytes_;
  std::vector<std::byte*> memory_;  ///< of each rank
  int64_t reserved_ = 0;
  int64_t published_ = 0, read_ = 0;          ///< by this rank, rounds
  int64_t all_published_ = 0, all_read_ = 0;  ///< by everyone else, at least
};

}  // namespace red::parallel
