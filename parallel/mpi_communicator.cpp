#include "parallel/mpi_communicator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.hpp"
#include "base/log.hpp"
#include "device/stream.hpp"
#include "parallel/tensor_rows.hpp"

namespace red::parallel {
namespace {

/// "ranks 0, 2 and 12 more": who may be waited for, as ranks of all.
std::string ranks_in(MPI_Comm comm) {
  constexpr int most_named = 8;
  MPI_Group all = MPI_GROUP_NULL, group = MPI_GROUP_NULL;
  RED_MPI(MPI_Comm_group(MPI_COMM_WORLD, &all));
  RED_MPI(MPI_Comm_group(comm, &group));
  int size = 0;
  RED_MPI(MPI_Group_size(group, &size));
  std::string text = size == 1 ? "rank" : "ranks";
  for (int i = 0; i < std::min(size, most_named); ++i) {
    int rank = 0;
    RED_MPI(MPI_Group_translate_ranks(group, 1, &i, all, &rank));
    text += fmt::format("{}{}", i == 0 ? " " : ", ", rank);
  }
  if (size > most_named) text += fmt::format(" and {} more", size - most_named);
  RED_MPI(MPI_Group_free(&group));
  RED_MPI(MPI_Group_free(&all));
  return text;
}

/// Calls use(data, count) for pieces of x that MPI can count.
template <class Use>
void for_each_message(const Tensor& x, int64_t max_elements, Use use) {
  for (int64_t begin = 0; begin < x.size(); begin += max_elements) {
    use(x.data + static_cast<std::size_t>(begin) * size_of(x.dtype),
        std::min(max_elements, x.size() - begin));
  }
}

}  // namespace

MpiCommunicator::MpiCommunicator(std::shared_ptr<MpiContext> context, MPI_Comm comm, std::string name)
    : context_(std::move(context)), comm_(comm), name_(std::move(name)) {
  RED_MPI(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN));
  RED_MPI(MPI_Comm_dup(comm_, &internal_));
  RED_MPI(MPI_Comm_set_errhandler(internal_, MPI_ERRORS_RETURN));
  RED_MPI(MPI_Comm_rank(comm_, &rank_));
  RED_MPI(MPI_Comm_size(comm_, &size_));
  const MpiOptions& options = context_->options();
  if (!options.shared_memory) return;
  int error = 0;
  ring_ = SharedRing::create(comm_, SharedExchange::slot_bytes(options.segment_bytes, size_), name_, error);
  if (error != 0 && rank_ == 0 && context_->is_first_without_shared_memory()) {
    log::rank_warning(
        "communicator {} has no shared memory ({}): its sums go by messages, which is slower; "
        "parallel.shared_memory = no asks for that",
        name_, std::strerror(error));
  }
}

MpiCommunicator::~MpiCommunicator() {
  if (context_->channel().failed()) return;  // messages may be under way for ever
  MPI_Comm_free(&internal_);
  MPI_Comm_free(&comm_);
}

/// Two tags for a collective of our own. 16,000 of them may be in flight before a tag comes again.
MpiPlace MpiCommunicator::next_place() {
  return {internal_, rank_, size_, static_cast<int>(2 * (num_collectives_++ % 16000))};
}

void MpiCommunicator::check_peer(int peer, int tag) const {
  parallel::check_peer(peer, rank_, size_);
  RED_CHECK(tag >= 0 && tag < 32768, "tag {}", tag);  // what MPI promises
}

/// A GPU's memory is for MPI to read.
bool MpiCommunicator::sums_in_shared_memory(const void* memory) const {
  return ring_ != nullptr && !on_device(memory);
}

Request MpiCommunicator::start(const BlockTask& task) {
  if (sums_in_shared_memory(task.blocks)) {
    SharedExchange& operation = context_->new_shared_exchange();
    Request request(&operation);
    operation.start(task, *ring_);
    return request;
  }
  BlockExchange& operation = context_->new_exchange();
  Request request(&operation);
  operation.start(task);
  return request;
}

Request MpiCommunicator::all_reduce(const Tensor& x, ReduceOp op) {
  check_contiguous(x);
  const auto total_bytes = static_cast<int64_t>(num_bytes(x)) * size_;
  if (!sums_in_shared_memory(x.data) && total_bytes <= SmallAllReduce::kBytes &&
      x.size() <= context_->options().max_elements) {
    SmallAllReduce& operation = context_->new_small_all_reduce();
    Request request(&operation);
    operation.start(x, op, next_place());
    return request;
  }
  return start({next_place(), x.data, nullptr, x.size(), x.dtype, op, true, true});
}

Request MpiCommunicator::reduce_scatter(const Tensor& receive, const Tensor& send) {
  std::byte* row = check_rows(send, receive, size_, rank_);
  if (size_ == 1 && receive.data != row && send.size() != 0)
    std::memcpy(receive.data, row, num_bytes(receive));
  return start({next_place(), send.data, receive.data, send.size(), send.dtype, ReduceOp::sum, true, false});
}

Request MpiCommunicator::all_gather(const Tensor& receive, const Tensor& send) {
  std::byte* row = check_rows(receive, send, size_, rank_);
  if (send.data != row && send.size() != 0) std::memcpy(row, send.data, num_bytes(send));
  return start({next_place(), receive.data, row, receive.size(), receive.dtype, ReduceOp::sum, false, true});
}

Request MpiCommunicator::broadcast(const Tensor& x, int root) {
  check_contiguous(x);
  RED_CHECK(root >= 0 && root < size_, "root {} of {}", root, size_);
  PlainOperation& operation = context_->new_plain();
  operation.start();
  Request request(&operation);
  for_each_message(x, context_->options().max_elements, [&](std::byte* data, int64_t count) {
    RED_MPI(MPI_Ibcast(data, static_cast<int>(count), mpi_type(x.dtype), root, comm_, operation.add()));
  });
  return request;
}

Request MpiCommunicator::send(const Tensor& x, int destination, int tag) {
  check_contiguous(x);
  check_peer(destination, tag);
  PlainOperation& operation = context_->new_plain();
  operation.start();
  Request request(&operation);
  const MpiPlace place{comm_, rank_, size_, tag};
  for_each_message(x, context_->options().max_elements, [&](const std::byte* data, int64_t count) {
    operation.add_send(data, count, x.dtype, destination, place);
  });
  return request;
}

Request MpiCommunicator::receive(const Tensor& x, int source, int tag) {
  check_contiguous(x);
  check_peer(source, tag);
  PlainOperation& operation = context_->new_plain();
  operation.start();
  Request request(&operation);
  const MpiPlace place{comm_, rank_, size_, tag};
  for_each_message(x, context_->options().max_elements, [&](std::byte* data, int64_t count) {
    operation.add_receive(data, count, x.dtype, source, place);
  });
  return request;
}

Request MpiCommunicator::barrier() {
  PlainOperation& operation = context_->new_plain();
  operation.start();
  Request request(&operation);
  RED_MPI(MPI_Ibarrier(comm_, operation.add()));
  return request;
}

void MpiCommunicator::wait(Request& request, std::string_view what) {
  if (!request) return;
  context_->wait(static_cast<MpiOperation&>(*request.get()), what, name_);
  request = Request();
}

bool MpiCommunicator::test(Request& request) {
  if (!request) return true;
  context_->progress();
  context_->throw_if_failed();
  return static_cast<MpiOperation&>(*request.get()).advance();
}

void MpiCommunicator::poll() noexcept {
  context_->progress();
}

std::unique_ptr<Communicator> MpiCommunicator::split(int color, int key, std::string_view name) {
  RED_CHECK(color >= 0, "color {}", color);
  MPI_Comm comm = MPI_COMM_NULL;
  RED_MPI(MPI_Comm_split(comm_, color, key, &comm));
  return std::make_unique<MpiCommunicator>(context_, comm, fmt::format("{} ({})", name, ranks_in(comm)));
}

}  // namespace red::parallel
