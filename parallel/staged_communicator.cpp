#include "parallel/staged_communicator.hpp"

#include <utility>
#include <vector>

#include "base/check.hpp"
#include "parallel/request_impl.hpp"
#include "parallel/tensor_rows.hpp"

namespace red::parallel {

/// One operation on device memory: the host communicator's, and the host memory that it works on.
class StagedOperation final : public Request::Impl {
 public:
  StagedOperation(StagingPool& pool, Stream& stream) : pool_(pool), stream_(stream) {}

  std::size_t capacity() const { return memory_.num_bytes(); }
  /// Between operations.
  void reserve(std::size_t bytes) {
    if (bytes > capacity()) memory_ = HostBuffer(bytes);
  }

  /// As x, in this operation's host memory.
  Tensor on_host(const Tensor& x) const {
    Tensor host = x;
    host.data = memory_.data();
    host.row_stride = x.cols;
    return host;
  }
  /// The bytes of x to `host`; there when this returns.
  void fetch(const Tensor& host, const Tensor& x) const {
    copy_to_host(stream_, host.data, x.data, num_bytes(x));
    stream_.synchronize();
  }
  /// `request` has begun; when it is done, `source` (host memory) goes to `target`.
  void begin(Request request, const Tensor& target, const Tensor& source) {
    request_ = std::move(request);
    finished_ = false;
    target_ = target;
    source_ = source;
  }
  Request& request() { return request_; }
  /// The request is done.
  void finish() {
    finished_ = true;
    if (!target_.empty()) copy_to_device(stream_, target_.data, source_.data, num_bytes(target_));
    target_ = Tensor();
  }

  void give_back() noexcept override;

 private:
  StagingPool& pool_;
  Stream& stream_;
  HostBuffer memory_;
  Request request_;
  bool finished_ = true;
  Tensor target_, source_;
};

/// Operations that are over, with their memory: once each size has been seen, a step makes no new ones.
class StagingPool {
 public:
  explicit StagingPool(Stream& stream) : stream_(stream) {}

  /// The smallest that is large enough; where none is, the largest grows.
  StagedOperation& take(std::size_t bytes) {
    std::size_t best = free_.size();
    for (std::size_t i = 0; i < free_.size(); ++i) {
      if (best == free_.size() || fits_better(*free_[i], *free_[best], bytes)) best = i;
    }
    if (best == free_.size()) {
      all_.push_back(std::make_unique<StagedOperation>(*this, stream_));
      free_.reserve(all_.size());
      all_.back()->reserve(bytes);
      return *all_.back();
    }
    StagedOperation& operation = *free_[best];
    free_[best] = free_.back();
    free_.pop_back();
    operation.reserve(bytes);
    return operation;
  }
  void put(StagedOperation& operation) noexcept { free_.push_back(&operation); }  // capacity: all_.size()

 private:
  static bool fits_better(const StagedOperation& a, const StagedOperation& b, std::size_t bytes) {
    const bool a_fits = a.capacity() >= bytes, b_fits = b.capacity() >= bytes;
    if (a_fits != b_fits) return a_fits;
    return a_fits ? a.capacity() < b.capacity() : a.capacity() > b.capacity();
  }

  Stream& stream_;
  std::vector<std::unique_ptr<StagedOperation>> all_;
  std::vector<StagedOperation*> free_;
};

/// Dropped unfinished, on the way out of an exception, it stays aside: MPI may write to its memory yet.
void StagedOperation::give_back() noexcept {
  request_ = Request();
  target_ = Tensor();
  if (finished_) pool_.put(*this);
}

StagedCommunicator::StagedCommunicator(Communicator& host, Stream& stream, MpiReach reach)
    : host_(host), stream_(stream), reach_(reach), pool_(std::make_shared<StagingPool>(stream)) {}

StagedCommunicator::StagedCommunicator(std::unique_ptr<Communicator> host, Stream& stream, MpiReach reach,
                                       std::shared_ptr<StagingPool> pool)
    : owned_(std::move(host)), host_(*owned_), stream_(stream), reach_(reach), pool_(std::move(pool)) {}

StagedCommunicator::~StagedCommunicator() = default;

/// Whether MPI is given x itself. It reads and writes device memory at any time after that, so the stream
/// must be done with it.
bool StagedCommunicator::passes_through(const Tensor& x) const {
  if (!on_device(x.data)) return true;
  if (reach_ == MpiReach::host_memory) return false;
  stream_.synchronize();
  return true;
}

Request StagedCommunicator::all_reduce(const Tensor& x, ReduceOp op) {
  if (!on_device(x.data)) return host_.all_reduce(x, op);
  check_contiguous(x);
  if (size() == 1) return {};
  StagedOperation& operation = pool_->take(num_bytes(x));
  Request request(&operation);
  const Tensor host = operation.on_host(x);
  operation.fetch(host, x);
  operation.begin(host_.all_reduce(host, op), x, host);
  return request;
}

Request StagedCommunicator::reduce_scatter(const Tensor& receive, const Tensor& send) {
  if (!on_device(send.data)) return host_.reduce_scatter(receive, send);
  check_contiguous(receive);
  check_contiguous(send);
  RED_CHECK(send.size() == receive.size() * size() && send.dtype == receive.dtype,
            "({}, {}) of {} is not {} times ({}, {}) of {}", send.rows, send.cols, name_of(send.dtype),
            size(), receive.rows, receive.cols, name_of(receive.dtype));
  if (size() == 1) {
    if (receive.data != send.data) copy_on_device(stream_, receive.data, send.data, num_bytes(send));
    return {};
  }
  StagedOperation& operation = pool_->take(num_bytes(send));
  Request request(&operation);
  Tensor all = operation.on_host(send);
  operation.fetch(all, send);
  Tensor own = receive;
  own.data = all.data + rank() * num_bytes(receive);
  operation.begin(host_.reduce_scatter(own, all), receive, own);
  return request;
}

Request StagedCommunicator::all_gather(const Tensor& receive, const Tensor& send) {
  if (!on_device(receive.data)) return host_.all_gather(receive, send);
  check_contiguous(receive);
  check_contiguous(send);
  RED_CHECK(receive.size() == send.size() * size() && send.dtype == receive.dtype,
            "({}, {}) of {} is not {} times ({}, {}) of {}", receive.rows, receive.cols,
            name_of(receive.dtype), size(), send.rows, send.cols, name_of(send.dtype));
  if (size() == 1) {
    if (receive.data != send.data) copy_on_device(stream_, receive.data, send.data, num_bytes(send));
    return {};
  }
  if (reach_ == MpiReach::device_memory) {
    Tensor row = send;
    row.data = check_rows(receive, send, size(), rank());
    if (row.data != send.data) copy_on_device(stream_, row.data, send.data, num_bytes(send));
    stream_.synchronize();
    return host_.all_gather(receive, row);
  }
  StagedOperation& operation = pool_->take(num_bytes(receive));
  Request request(&operation);
  const Tensor all = operation.on_host(receive);
  Tensor own = send;
  own.data = all.data + rank() * num_bytes(send);
  operation.fetch(own, send);
  operation.begin(host_.all_gather(all, own), receive, all);
  return request;
}

Request StagedCommunicator::broadcast(const Tensor& x, int root) {
  if (!on_device(x.data)) return host_.broadcast(x, root);
  check_contiguous(x);
  if (size() == 1) return {};
  StagedOperation& operation = pool_->take(num_bytes(x));
  Request request(&operation);
  const Tensor host = operation.on_host(x);
  if (rank() == root) operation.fetch(host, x);
  operation.begin(host_.broadcast(host, root), rank() == root ? Tensor() : x, host);
  return request;
}

Request StagedCommunicator::send(const Tensor& x, int destination, int tag) {
  if (passes_through(x)) return host_.send(x, destination, tag);
  check_contiguous(x);
  StagedOperation& operation = pool_->take(num_bytes(x));
  Request request(&operation);
  const Tensor host = operation.on_host(x);
  operation.fetch(host, x);
  operation.begin(host_.send(host, destination, tag), {}, host);
  return request;
}

Request StagedCommunicator::receive(const Tensor& x, int source, int tag) {
  if (passes_through(x)) return host_.receive(x, source, tag);
  check_contiguous(x);
  StagedOperation& operation = pool_->take(num_bytes(x));
  Request request(&operation);
  const Tensor host = operation.on_host(x);
  operation.begin(host_.receive(host, source, tag), x, host);
  return request;
}

void StagedCommunicator::wait(Request& request, std::string_view what) {
  auto* staged = dynamic_cast<StagedOperation*>(request.get());
  if (staged == nullptr) return host_.wait(request, what);
  host_.wait(staged->request(), what);
  staged->finish();
  request = Request();
}

bool StagedCommunicator::test(Request& request) {
  auto* staged = dynamic_cast<StagedOperation*>(request.get());
  if (staged == nullptr) return host_.test(request);
  if (!host_.test(staged->request())) return false;
  staged->finish();
  return true;
}

std::unique_ptr<Communicator> StagedCommunicator::split(int color, int key, std::string_view name) {
  return std::unique_ptr<Communicator>(
      new StagedCommunicator(host_.split(color, key, name), stream_, reach_, pool_));
}

}  // namespace red::parallel
