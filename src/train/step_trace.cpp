#include "train/step_trace.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/log.hpp"
#include "checkpoint/exchange.hpp"
#include "parallel/clock_offset.hpp"
#include "parallel/message_tags.hpp"
#include "parallel/star.hpp"

namespace red::train {
namespace {

using nlohmann::ordered_json;
using parallel::TraceLog;
using parallel::TraceSlice;
using parallel::TraceTransfer;

/// The events of one rank as text, one a line and a comma behind each.
class EventWriter {
 public:
  EventWriter(int rank, double origin) : rank_(rank), origin_(origin) {}

  /// Microseconds on rank 0's clock since the trace's begin.
  double time(double seconds) const { return std::max(0.0, 1e6 * (seconds - origin_)); }

  void add(ordered_json event) {
    event["pid"] = rank_;
    event["tid"] = 0;
    text_ += event.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + ",\n";
  }
  void name_process(const std::string& name) {
    add({{"ph", "M"}, {"name", "process_name"}, {"args", {{"name", name}}}});
    add({{"ph", "M"}, {"name", "process_sort_index"}, {"args", {{"sort_index", rank_}}}});
    add({{"ph", "M"}, {"name", "thread_name"}, {"args", {{"name", "main thread"}}}});
  }
  void add_slice(const TraceSlice& slice) {
    const double begin = time(slice.begin);
    add({{"ph", "X"},
         {"cat", slice.category},
         {"name", slice.name},
         {"ts", begin},
         {"dur", time(slice.end) - begin}});
  }
  /// A span of its own beside the slices, and of a message an end of its arrow.
  void add_transfer(const TraceTransfer& transfer, std::size_t number) {
    const ordered_json span = {{"cat", "transfer"},
                               {"name", transfer.name},
                               {"id2", {{"local", fmt::format("{:#x}", number)}}}};  // of this rank alone
    ordered_json begin = span, end = span;
    begin.update({{"ph", "b"}, {"ts", time(transfer.begin)}});
    begin["args"] = {{"peers", transfer.peers}, {"bytes", transfer.num_bytes}};
    end.update({{"ph", "e"}, {"ts", time(transfer.end)}});
    add(std::move(begin));
    add(std::move(end));
    if (transfer.message.empty()) return;
    // Viewers join the two ends by a number, which every rank's program forms alike; JSON's hold 53 bits.
    ordered_json arrow = {{"ph", transfer.sends ? "s" : "f"},
                          {"cat", "message"},
                          {"name", "message"},
                          {"id", std::hash<std::string>()(transfer.message) >> 11},
                          {"ts", time(transfer.sends ? transfer.begin : transfer.end)},
                          {"args", {{"message", transfer.message}}}};
    if (!transfer.sends) arrow["bp"] = "e";
    add(std::move(arrow));
  }
  const std::string& text() const { return text_; }

 private:
  int rank_;
  double origin_;
  std::string text_;
};

std::vector<int32_t> packed(const std::string& text) {
  std::vector<int32_t> words((text.size() + sizeof(int32_t) - 1) / sizeof(int32_t) + 1);
  std::memcpy(words.data(), text.data(), text.size());
  return words;
}

/// Every rank's text goes through `take` on rank 0, one after another.
template <class Take>
void gather_texts(parallel::Communicator& world, const std::string& own, const Take& take) {
  const std::vector<uint64_t> sizes = checkpoint::gather_numbers(world, own.size());
  if (world.rank() != 0) {
    std::vector<int32_t> words = packed(own);
    parallel::Request request =
        world.send(make_tensor(words.data(), static_cast<int64_t>(words.size()), 1), 0, parallel::kTagTrace);
    return world.wait(request, "events of the trace");
  }
  take(own);
  for (int rank = 1; rank < world.size(); ++rank) {
    std::string text(sizes[rank], ' ');
    std::vector<int32_t> words = packed(text);
    parallel::Request request = world.receive(
        make_tensor(words.data(), static_cast<int64_t>(words.size()), 1), rank, parallel::kTagTrace);
    world.wait(request, "events of the trace");
    std::memcpy(text.data(), words.data(), text.size());
    take(text);
  }
}

/// Of all ranks the earliest, on rank 0's clock.
double earliest(parallel::Communicator& world, double own) {
  parallel::Request request = world.all_reduce(make_tensor(&own, 1, 1), parallel::ReduceOp::min);
  world.wait(request, "the trace's begin");
  return own;
}

}  // namespace

StepTrace::StepTrace(parallel::Communicator& world, const parallel::Layout& layout, int64_t first,
                     int64_t num_steps, std::filesystem::path path)
    : world_(world), layout_(layout), first_(first), last_(first + num_steps - 1), path_(std::move(path)) {}

void StepTrace::begin_step(int64_t step) {
  if (step < first_ || step > last_) return;
  if (!log_.on()) log_.start();
  step_begin_ = TraceLog::now();
}

void StepTrace::end_step(int64_t step) {
  if (!log_.on()) return;
  log_.slice("step", fmt::format("step {}", step), step_begin_, TraceLog::now());
  if (step >= last_) finish();
}

void StepTrace::finish() {
  if (!log_.on()) return;
  log_.stop();
  write();
}

void StepTrace::write() {
  const double offset = parallel::clock_offset(world_, TraceLog::now).seconds;
  double begin = log_.slices().empty() ? TraceLog::now() : log_.slices().front().begin;
  for (const TraceSlice& slice : log_.slices()) begin = std::min(begin, slice.begin);
  const double origin = earliest(world_, begin - offset);
  const parallel::Coordinates at = coordinates_of(layout_, world_.rank());
  EventWriter events(world_.rank(), origin + offset);
  events.name_process(fmt::format("rank {}: stage {} data {} tensor {} on {}", world_.rank(), at.stage,
                                  at.data, at.tensor, parallel::host_name()));
  for (const TraceSlice& slice : log_.slices()) events.add_slice(slice);
  for (std::size_t i = 0; i < log_.transfers().size(); ++i) events.add_transfer(log_.transfers()[i], i);

  std::ofstream out;
  if (world_.rank() == 0) out.open(path_, std::ios::trunc);
  out << "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n";
  std::string last;  // without its comma
  gather_texts(world_, events.text(), [&](const std::string& text) {
    out << last << text.substr(0, text.size() - 2);
    last = ",\n";
  });
  out << "\n]}\n";
  out.close();
  written_ = true;
  if (world_.rank() != 0) return;
  if (!out) {
    error_ = fmt::format("{}: cannot write: {}", path_.string(), std::strerror(errno));
    log::warning("the trace is lost: {}", error_);
    return;
  }
  log::info("trace of steps {} to {}: {} (open it in ui.perfetto.dev or chrome://tracing)", first_, last_,
            path_.string());
}

}  // namespace red::train
