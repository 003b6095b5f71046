#include "parallel/nccl_context.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/log.hpp"
#include "device/stream_backend_cuda.hpp"

namespace red::parallel {

NcclContext::NcclContext(std::shared_ptr<MpiContext> mpi, Stream& stream)
    : mpi_(std::move(mpi)), stream_(stream), element_(sizeof(float)) {
  mpi_->set_companion([this] { poll(); });
  stream_.backend().wait_for_ranks = [this](const std::function<bool()>& idle) { wait_for_stream(idle); };
}

NcclContext::~NcclContext() {
  stream_.backend().wait_for_ranks = {};
  mpi_->set_companion({});
}

NcclOperation& NcclContext::start(const NcclCall& call, NcclLink& link) {
  retire();
  if (free_.empty()) {
    all_.push_back(std::make_unique<NcclOperation>(*this));
    free_.reserve(all_.size());
    waited_.reserve(all_.size());
    free_.push_back(all_.back().get());
  }
  NcclOperation& operation = *free_.back();
  free_.pop_back();
  operation.prepare(call, link, stream_.handle());
  link.push(operation);
  advance(link);
  return operation;
}

void NcclContext::wait(NcclOperation& operation, std::string_view what) {
  NcclLink& link = operation.link();
  WorkTimer* timer = stream_.backend().work_timer;
  if (timer != nullptr) timer->begin_wait();
  advance(link);
  if (!operation.is_launched()) hold_until([&] { return operation.is_launched(); }, what, link.name());
  operation.end().hold(stream_.handle());
  if (timer != nullptr) timer->end_wait();
  operation.waited(what);
  waited_.push_back(&operation);
}

bool NcclContext::test(NcclOperation& operation) {
  mpi_->progress();  // which polls here
  mpi_->throw_if_failed();
  return operation.is_over();
}

/// One that was waited for comes back when the stream has passed it.
void NcclContext::give_back(NcclOperation& operation) noexcept {
  if (operation.was_waited()) return;
  if (operation.is_launched()) {
    try {
      if (operation.is_over()) return free_.push_back(&operation);
    } catch (const std::exception& error) {
      log::rank_warning("{}", error.what());
    }
  }
  if (std::uncaught_exceptions() == 0) log::rank_error("a request was dropped before it was waited for");
}

void NcclContext::retire() {
  std::size_t over = 0;
  while (over < waited_.size() && waited_[over]->is_over()) free_.push_back(waited_[over++]);
  waited_.erase(waited_.begin(), waited_.begin() + static_cast<std::ptrdiff_t>(over));
}

/// One at a time: a link that moves on may ask MPI, and MPI's progress asks the links. What fails is
/// announced before the stack unwinds.
template <class Look>
void NcclContext::look(const Look& body) {
  if (polling_) return;
  polling_ = true;
  try {
    body();
  } catch (...) {
    polling_ = false;
    mpi_->announce(std::current_exception());
    throw;
  }
  polling_ = false;
}

void NcclContext::advance(NcclLink& link) {
  look([&] { link.advance(); });
}

void NcclContext::poll() {
  look([this] {
    for (NcclLink* link : links_) {
      link->look_for_error();
      link->advance();
    }
    retire();
  });
}

void NcclContext::hold_until(const std::function<bool()>& done, std::string_view what,
                             std::string_view communicator) {
  mpi_->wait_until(done, what, communicator);
}

void NcclContext::connect(NcclKind kind, int peer, NcclLink& link) {
  const bool reads = kind != NcclKind::receive, writes = kind != NcclKind::send;
  NcclOperation& operation = start({kind, reads ? element_.data() : nullptr,
                                    writes ? element_.data() : nullptr, 1, DType::fp32, ReduceOp::sum, peer},
                                   link);
  const Request request(&operation);
  hold_until([&] { return operation.is_over(); }, "the connections of NCCL", link.name());
}

/// The stream waits for what was waited for; one after another, so that a wait that does not end has a name.
void NcclContext::wait_for_stream(const std::function<bool()>& idle) {
  poll();
  while (!waited_.empty() && !idle()) {
    const NcclOperation& first = *waited_.front();
    hold_until([&] { return first.is_over() || idle(); }, first.what(), first.link().name());
    retire();
  }
}

void NcclContext::in_order(const std::function<void()>& work) noexcept {
  try {
    work();
  } catch (...) {
    mpi_->fail(std::current_exception());
  }
}

void NcclContext::leave(NcclLink& link) noexcept {
  std::erase(links_, &link);
}

}  // namespace red::parallel
