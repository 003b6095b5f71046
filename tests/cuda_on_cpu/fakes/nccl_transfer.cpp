// One operation of NCCL as a transfer of a stream: it reads when the stream comes to it, and is over when all
// its ranks have come. What it will write is NaN until then, and what it reads and writes must be nobody
// else's: bytes that changed meanwhile end the program.
#include <cuda_bf16.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>

#include "fakes/nccl_state.hpp"
#include "runtime/failure.hpp"
#include "runtime/streams.hpp"

namespace cuda_on_cpu {
namespace {

using Bytes = std::vector<std::byte>;

const char* name_of(int32_t call) {
  static constexpr const char* names[] = {"all-reduce", "reduce-scatter", "all-gather",
                                          "broadcast",  "send",           "receive"};
  return names[call];
}

std::string to_string(const Header& h) {
  return fmt::format("{} of {} elements of type {}, reduction {}, root {}, as number {}", name_of(h.call),
                     h.count, h.type, h.op, h.root, h.number);
}

template <class T>
T reduced(ncclRedOp_t op, T a, T b) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16(reduced(op, __bfloat162float(a), __bfloat162float(b)));
  } else {
    return op == ncclSum ? a + b : op == ncclMax ? std::max(a, b) : std::min(a, b);
  }
}

/// out[i] = x[first][i] + x[first + 1][i] + ... round the ring, as NCCL's ring adds, and not from rank 0.
template <class T>
void reduce_as(ncclRedOp_t op, std::byte* out, const std::vector<Bytes>& x, std::size_t begin,
               std::size_t count, std::size_t first) {
  for (std::size_t i = begin; i < begin + count; ++i) {
    const auto element = [&](std::size_t rank) {
      T value;
      std::memcpy(&value, x[rank % x.size()].data() + i * sizeof(T), sizeof(T));
      return value;
    };
    T sum = element(first);
    for (std::size_t r = 1; r < x.size(); ++r) sum = reduced(op, sum, element(first + r));
    std::memcpy(out + (i - begin) * sizeof(T), &sum, sizeof(T));
  }
}

void reduce(ncclDataType_t type, ncclRedOp_t op, std::byte* out, const std::vector<Bytes>& x,
            std::size_t begin, std::size_t count, std::size_t first) {
  switch (type) {
    case ncclFloat32:
      return reduce_as<float>(op, out, x, begin, count, first);
    case ncclFloat64:
      return reduce_as<double>(op, out, x, begin, count, first);
    case ncclInt32:
      return reduce_as<int32_t>(op, out, x, begin, count, first);
    case ncclBfloat16:
      return reduce_as<__nv_bfloat16>(op, out, x, begin, count, first);
    default:
      fail("NCCL adds elements of type {}", static_cast<int>(type));
  }
}

class Transfer {
 public:
  Transfer(ncclComm& comm, const Arguments& a)
      : comm_(comm),
        a_(a),
        row_bytes_(a.count * size_of(a.type)),
        header_{static_cast<int32_t>(a.call == Call::receive ? Call::send : a.call),
                static_cast<int32_t>(a.type),
                static_cast<int32_t>(a.op),
                a.call == Call::broadcast ? a.peer : 0,
                comm.num_operations++,
                static_cast<int64_t>(a.count)} {
    if (is_message()) header_.number = 0;  // its two ranks may have had others
    ++comm.num_under_way;
  }

  bool step() {
    if (!begun_) begin();
    for (int r = 0; r < comm_.size; ++r) {
      if (arrived_[static_cast<std::size_t>(r)]) continue;
      Bytes message;
      if (!take(comm_, comm_.world[static_cast<std::size_t>(r)], Channel::data, message)) continue;
      receive(static_cast<std::size_t>(r), message);
    }
    std::erase_if(outgoing_, [](const std::unique_ptr<Outgoing>& message) { return message->over(); });
    if (!outgoing_.empty() || std::find(arrived_.begin(), arrived_.end(), false) != arrived_.end())
      return false;
    finish();
    ++nccl_counts().operations;
    nccl_counts().bytes +=
        static_cast<int64_t>(a_.call == Call::all_gather ? size() * row_bytes_ : row_bytes_);
    --comm_.num_under_way;
    return true;
  }

 private:
  std::size_t size() const { return static_cast<std::size_t>(comm_.size); }
  std::size_t rank() const { return static_cast<std::size_t>(comm_.rank); }
  bool reads() const {
    return a_.call != Call::receive && (a_.call != Call::broadcast || a_.peer == comm_.rank);
  }
  std::size_t read_bytes() const {
    return a_.call == Call::reduce_scatter ? size() * row_bytes_ : row_bytes_;
  }
  bool is_message() const { return a_.call == Call::send || a_.call == Call::receive; }

  /// f(begin, size) for each piece of the target that nothing is read from.
  template <class F>
  void for_each_write(const F& f) const {
    if (a_.target == nullptr) return;
    const std::size_t num_bytes = a_.call == Call::all_gather ? size() * row_bytes_ : row_bytes_;
    const bool in_place =
        reads() && a_.source < a_.target + num_bytes && a_.target < a_.source + read_bytes();
    if (!in_place) return f(a_.target, num_bytes);
    if (a_.call != Call::all_gather) return;  // the target is part of the source
    const std::size_t before = rank() * row_bytes_;
    f(a_.target, before);
    f(a_.target + before + row_bytes_, num_bytes - before - row_bytes_);
  }

  void begin() {
    begun_ = true;
    parts_.resize(size());
    arrived_.assign(size(), true);
    if (reads()) own_.assign(a_.source, a_.source + read_bytes());
    for_each_write([](std::byte* begin, std::size_t n) { std::memset(begin, 0xFF, n); });
    for (std::size_t r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      const bool is_peer = static_cast<int>(r) == a_.peer;
      if (!is_message() || (a_.call == Call::receive && is_peer)) arrived_[r] = false;
      if (is_message() && !(a_.call == Call::send && is_peer)) continue;
      Bytes message(sizeof(Header));
      std::memcpy(message.data(), &header_, sizeof(Header));
      const std::size_t offset = a_.call == Call::reduce_scatter ? r * row_bytes_ : 0;
      if (reads())
        message.insert(message.end(), own_.begin() + static_cast<std::ptrdiff_t>(offset),
                       own_.begin() + static_cast<std::ptrdiff_t>(offset + row_bytes_));
      outgoing_.push_back(
          std::make_unique<Outgoing>(comm_, comm_.world[r], Channel::data, std::move(message), is_message()));
    }
    if (reads()) {
      const std::size_t offset = a_.call == Call::reduce_scatter ? rank() * row_bytes_ : 0;
      parts_[rank()].assign(own_.begin() + static_cast<std::ptrdiff_t>(offset),
                            own_.begin() + static_cast<std::ptrdiff_t>(offset + row_bytes_));
    }
  }

  void receive(std::size_t from, const Bytes& message) {
    Header header;
    std::memcpy(&header, message.data(), sizeof(Header));
    if (header != header_)
      fail("ranks call NCCL differently: rank {} {}; rank {} {}", comm_.rank, to_string(header_), from,
           to_string(header));
    parts_[from].assign(message.begin() + sizeof(Header), message.end());
    arrived_[from] = true;
  }

  void finish() {
    if (reads() && std::memcmp(own_.data(), a_.source, own_.size()) != 0)
      fail("what an NCCL {} reads was changed before it was over", name_of(header_.call));
    for_each_write([&](const std::byte* begin, std::size_t n) {
      if (std::any_of(begin, begin + n, [](std::byte b) { return b != std::byte{0xFF}; }))
        fail("what an NCCL {} writes was written before it was over", name_of(header_.call));
    });
    const auto copy = [&](std::byte* to, std::size_t from) {
      if (row_bytes_ != 0) std::memcpy(to, parts_[from].data(), row_bytes_);
    };
    switch (a_.call) {
      case Call::all_reduce:  // each rank's block begins with the rank behind it
        for (std::size_t block = 0; block < size(); ++block) {
          const std::size_t begin = a_.count * block / size(), end = a_.count * (block + 1) / size();
          reduce(a_.type, a_.op, a_.target + begin * size_of(a_.type), parts_, begin, end - begin, block + 1);
        }
        return;
      case Call::reduce_scatter:
        return reduce(a_.type, a_.op, a_.target, parts_, 0, a_.count, rank() + 1);
      case Call::all_gather:
        for (std::size_t r = 0; r < size(); ++r) copy(a_.target + r * row_bytes_, r);
        return;
      case Call::broadcast:
      case Call::receive:
        return copy(a_.target, static_cast<std::size_t>(a_.peer));
      case Call::send:
        return;
    }
  }

  ncclComm& comm_;
  Arguments a_;
  std::size_t row_bytes_;
  Header header_;
  bool begun_ = false;
  Bytes own_;                 ///< what was read
  std::vector<Bytes> parts_;  ///< by rank
  std::vector<bool> arrived_;
  std::vector<std::unique_ptr<Outgoing>> outgoing_;
};

}  // namespace

std::size_t size_of(ncclDataType_t type) {
  switch (type) {
    case ncclUint8:
      return 1;
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclFloat32:
      return 4;
    case ncclFloat64:
      return 8;
    default:
      return 0;
  }
}

void begin_transfer(ncclComm& comm, const Arguments& arguments, cudaStream_t stream) {
  auto transfer = std::make_shared<Transfer>(comm, arguments);
  streams().push_transfer(stream, [transfer = std::move(transfer)] { return transfer->step(); });
}

}  // namespace cuda_on_cpu
