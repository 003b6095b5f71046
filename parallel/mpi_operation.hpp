// Operations under way over MPI. A plain one is a set of MPI requests. A small all-reduce is messages from
// each to each, then one sum in rank order. A block exchange is everything else that adds up or gathers:
// pieces move in a window, in an order that both ends know (docs/adr/0003 says why not MPI's own reductions).
// Ranks of one machine have parallel/shared_exchange instead of the last two.
#pragma once

#include <algorithm>
#include <vector>

#include "parallel/mpi_check.hpp"
#include "parallel/request_impl.hpp"

namespace red::parallel {

class MpiContext;

class MpiOperation : public Request::Impl {
 public:
  explicit MpiOperation(MpiContext& context) : context_(context) {}
  /// Looks what has arrived and starts what can start, without waiting; true when all is done.
  virtual bool advance() = 0;
  bool done() const { return done_; }

 protected:
  MpiContext& context_;
  bool done_ = true;
};

/// Where an operation runs: MPI's handle, this rank's place in it, and the tag of this one operation.
struct MpiPlace {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  int tag = 0;
};

MPI_Datatype mpi_type(DType dtype);

/// MPI requests that only have to be finished.
class PlainOperation : public MpiOperation {
 public:
  explicit PlainOperation(MpiContext& context);
  void start();
  /// The slot for one more request, of an operation that MPI carries alone.
  MPI_Request* add();
  void add_receive(void* data, int64_t count, DType dtype, int source, const MpiPlace& place);
  void add_send(const void* data, int64_t count, DType dtype, int destination, const MpiPlace& place);
  bool advance() override;
  void give_back() noexcept override;

 protected:
  virtual void finish() {}

 private:
  void check_length(int index, const MPI_Status& status) const;

  struct Expected {  ///< of a receive; count < 0: not one
    int count = -1;
    MPI_Datatype type = MPI_DATATYPE_NULL;
  };
  std::vector<MPI_Request> requests_;
  std::vector<Expected> expected_;
  std::vector<int> indices_;
  std::vector<MPI_Status> statuses_;
  std::size_t num_finished_ = 0;
};

/// Every rank sends its x to every other one and adds all of them up in the order of ranks.
class SmallAllReduce final : public PlainOperation {
 public:
  static constexpr int64_t kBytes = int64_t{128} << 10;  ///< of all ranks' x together

  explicit SmallAllReduce(MpiContext& context);
  void start(const Tensor& x, ReduceOp op, const MpiPlace& place);
  void give_back() noexcept override;

 private:
  void finish() override;

  std::vector<std::byte> rows_;           ///< (size, n) of x's dtype
  std::vector<const std::byte*> blocks_;  ///< its rows
  Tensor x_;
  ReduceOp op_ = ReduceOp::sum;
  int size_ = 1;
};

/// A vector of n elements lies in `size` blocks, by rank, the first n % size of them one element longer.
/// First (reduce) each rank collects its own block from all and adds it up in the order of ranks, then
/// (gather) it gives the block to all others.
struct BlockTask {
  MpiPlace place;  ///< uses place.tag and place.tag + 1
  std::byte* blocks = nullptr;
  std::byte* own = nullptr;  ///< where the own block's sum goes or comes from; null: its place in blocks
  int64_t num_elements = 0;  ///< of all blocks
  DType dtype = DType::fp32;
  ReduceOp op = ReduceOp::sum;
  bool reduce = false, gather = false;

  int num_peers() const { return place.size - 1; }
  int64_t block_begin(int block) const {
    return block * (num_elements / place.size) + std::min<int64_t>(block, num_elements % place.size);
  }
  int64_t block_size(int block) const { return block_begin(block + 1) - block_begin(block); }
  std::byte* element(std::byte* base, int64_t index) const {
    return base + static_cast<std::size_t>(index) * size_of(dtype);
  }
  std::byte* element_of_block(int block, int64_t index) const {
    return element(blocks, block_begin(block) + index);
  }
  std::byte* own_element(int64_t index) const {
    return own == nullptr ? element_of_block(place.rank, index) : element(own, index);
  }
};

/// A BlockTask by messages.
class BlockExchange final : public MpiOperation {
 public:
  explicit BlockExchange(MpiContext& context);
  void start(const BlockTask& task);
  bool advance() override;
  void give_back() noexcept override;

 private:
  /// Messages in one direction. A round is one segment of every other rank's block. Messages begin ... next -
  /// 1 are in flight or have arrived; message i has slot i modulo the window.
  struct Window {
    int64_t begin = 0, next = 0;
    std::vector<char> arrived;
    std::vector<MPI_Request> requests;
  };
  struct Piece {
    int peer = 0;
    int block = 0;       ///< whose block its elements belong to
    int64_t offset = 0;  ///< in elements, within the block
    int64_t count = 0;
  };

  Piece piece(int64_t index, bool incoming) const;
  std::byte* arrival(int64_t index);
  void begin_phase(bool reducing);
  bool post();
  bool collect(Window& window);
  bool retire();
  void sum_up_round(int64_t first);

  BlockTask task_;
  bool reducing_ = false;
  int64_t segment_ = 0;       ///< elements of one message
  int64_t window_ = 0;        ///< messages in flight in each direction, whole rounds
  int64_t num_messages_ = 0;  ///< of this phase, in each direction
  Window incoming_, outgoing_;
  std::vector<int> indices_;
  std::vector<MPI_Status> statuses_;
  std::vector<std::byte> arrivals_;      ///< (window, segment)
  std::vector<const std::byte*> round_;  ///< every rank's part of the elements that are added up
};

}  // namespace red::parallel
