#include "parallel/mpi_operation.hpp"

#include <algorithm>
#include <cstring>

#include "base/check.hpp"
#include "parallel/mpi_context.hpp"
#include "parallel/reduce_blocks.hpp"

namespace red::parallel {

MPI_Datatype mpi_type(DType dtype) {
  switch (dtype) {
    case DType::fp32:
      return MPI_FLOAT;
    case DType::fp64:
      return MPI_DOUBLE;
    case DType::int32:
      return MPI_INT32_T;
    case DType::uint8:
      return MPI_BYTE;
    case DType::bf16:
      return MPI_UINT16_T;  // moved as it is: all arithmetic is our own
  }
  return MPI_DATATYPE_NULL;
}

PlainOperation::PlainOperation(MpiContext& context) : MpiOperation(context) {
  // Room for what any operation needs whose messages are not cut, so that reuse never allocates.
  const std::size_t room = 2 * static_cast<std::size_t>(context.world_size()) + 16;
  requests_.reserve(room);
  expected_.reserve(room);
  indices_.reserve(room);
  statuses_.reserve(room);
}

void PlainOperation::start() {
  requests_.clear();
  expected_.clear();
  num_finished_ = 0;
  done_ = false;
}

MPI_Request* PlainOperation::add() {
  expected_.emplace_back();
  return &requests_.emplace_back(MPI_REQUEST_NULL);
}

void PlainOperation::add_receive(void* data, int64_t count, DType dtype, int source, const MpiPlace& place) {
  MPI_Request* request = add();
  expected_.back() = {static_cast<int>(count), mpi_type(dtype)};
  RED_MPI(MPI_Irecv(data, static_cast<int>(count), mpi_type(dtype), source, place.tag, place.comm, request));
}

void PlainOperation::add_send(const void* data, int64_t count, DType dtype, int destination,
                              const MpiPlace& place) {
  RED_MPI(
      MPI_Isend(data, static_cast<int>(count), mpi_type(dtype), destination, place.tag, place.comm, add()));
}

bool PlainOperation::advance() {
  if (done_) return true;
  if (num_finished_ < requests_.size()) {
    int count = 0;
    indices_.resize(requests_.size());
    statuses_.resize(requests_.size());
    RED_MPI(MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count, indices_.data(),
                         statuses_.data()));
    if (count == MPI_UNDEFINED) count = 0;
    for (int i = 0; i < count; ++i) check_length(indices_[i], statuses_[i]);
    num_finished_ += count;
    if (num_finished_ < requests_.size()) return false;
  }
  finish();
  done_ = true;
  return true;
}

void PlainOperation::check_length(int index, const MPI_Status& status) const {
  const Expected& expected = expected_[index];
  if (expected.count < 0) return;
  int count = 0;
  RED_MPI(MPI_Get_count(&status, expected.type, &count));
  RED_CHECK(count == expected.count, "{} elements came from rank {} with tag {}, {} were expected", count,
            status.MPI_SOURCE, status.MPI_TAG, expected.count);
}

void PlainOperation::give_back() noexcept {
  context_.give_back(*this);
}

SmallAllReduce::SmallAllReduce(MpiContext& context)
    : PlainOperation(context), rows_(kBytes), blocks_(context.world_size()) {}

void SmallAllReduce::start(const Tensor& x, ReduceOp op, const MpiPlace& place) {
  PlainOperation::start();
  x_ = x;
  op_ = op;
  size_ = place.size;
  const std::size_t num_bytes = static_cast<std::size_t>(x.size()) * size_of(x.dtype);
  auto row = [&](int rank) { return rows_.data() + rank * num_bytes; };
  if (num_bytes == 0) return;
  std::memcpy(row(place.rank), x.data, num_bytes);
  for (int r = 0; r < place.size; ++r) {
    if (r != place.rank) add_receive(row(r), x.size(), x.dtype, r, place);
  }
  for (int r = 0; r < place.size; ++r) {
    if (r != place.rank) add_send(row(place.rank), x.size(), x.dtype, r, place);
  }
}

void SmallAllReduce::finish() {
  if (size_ == 1) return;
  const std::size_t num_bytes = static_cast<std::size_t>(x_.size()) * size_of(x_.dtype);
  for (int r = 0; r < size_; ++r) blocks_[r] = rows_.data() + r * num_bytes;
  reduce_blocks(x_.dtype, op_, x_.data, {blocks_.data(), static_cast<std::size_t>(size_)}, x_.size());
}

void SmallAllReduce::give_back() noexcept {
  context_.give_back(*this);
}

}  // namespace red::parallel
