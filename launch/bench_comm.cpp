#include "launch/bench_comm.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>

#include "config/command_line.hpp"
#include "config/validate.hpp"
#include "device/backend.hpp"
#include "launch/commands.hpp"
#include "launch/figures.hpp"
#include "launch/median.hpp"
#include "ops/elementwise.hpp"
#include "parallel/message_tags.hpp"
#include "train/precision.hpp"

namespace red::launch {
namespace {

using Clock = std::chrono::steady_clock;
using parallel::Communicator;
using parallel::Request;

constexpr int64_t kKiB = 1024;
constexpr int64_t kInARow = 10;  // on a GPU, where a launch takes as long as a small collective

config::CommandSpec spec() {
  return {.name = "bench comm",
          .summary =
              "Times what ranks exchange along every axis of a layout that has more than one rank, all its "
              "groups at once,\n"
              "in the engine's own memory and dtype, from --from-kib to --to-mib. Data and tensor axis: "
              "all-reduce,\n"
              "reduce-scatter, all-gather and broadcast. Pipeline: each stage to the next one, and to both "
              "neighbours at once.\n"
              "Of each: bytes of the tensor, microseconds of the slowest rank, GB/s of the tensor (algorithm "
              "bandwidth), and bus\n"
              "GB/s, by which collectives of any number of ranks compare with a link, as nccl-tests defines "
              "it: all-reduce\n"
              "2 (n - 1) / n times the tensor's rate, reduce-scatter and all-gather (n - 1) / n times, "
              "broadcast and messages\n"
              "once, those that go both ways counted in one direction.",
          .options = {{"from-kib", "N", "smallest tensor (default 64)", false},
                      {"to-mib", "N", "largest tensor (default 64)", false},
                      device_option(),
                      {"json", "", "one JSON object on one line", false}},
          .takes_config = true,
          .example =
              "launch/local.sh -n 4 build/release/redllm bench comm --config configs/models/red_150m.ini \\\n"
              "  --parallel.data=2 --parallel.encoder_stages=1"};
}

/// x: as many rows as ranks; own: this rank's row of it; arriving: other x, for messages of two neighbours.
struct Operands {
  Tensor x, own;
  std::array<Tensor, 2> arriving;
};

using Requests = std::array<Request, 4>;  ///< some may be none

/// What is timed.
struct Operation {
  const char* name;
  double bus;  ///< bus rate over the tensor's rate: github.com/NVIDIA/nccl-tests, doc/PERFORMANCE.md
  std::function<Requests(Communicator&, const Operands&)> begin;
};

Requests one(Request request) {
  Requests all;
  all[0] = std::move(request);
  return all;
}

std::vector<Operation> operations(int size) {
  const double others = static_cast<double>(size - 1) / size;
  return {
      {"all-reduce", 2.0 * others,
       [](Communicator& c, const Operands& o) { return one(c.all_reduce(o.x, parallel::ReduceOp::sum)); }},
      {"reduce-scatter", others,
       [](Communicator& c, const Operands& o) { return one(c.reduce_scatter(o.own, o.x)); }},
      {"all-gather", others,
       [](Communicator& c, const Operands& o) { return one(c.all_gather(o.x, o.own)); }},
      {"broadcast", 1.0, [](Communicator& c, const Operands& o) { return one(c.broadcast(o.x, 0)); }}};
}

/// As activations go, and with `back` the gradients the other way at the same time. The order in which the
/// messages begin is one in which each may wait for its other end: connections are made with the first.
Requests begin_messages(Communicator& c, const Operands& o, bool back) {
  const bool is_first = c.rank() == 0, is_last = c.rank() + 1 == c.size();
  Requests all;
  if (!is_first) all[0] = c.receive(o.arriving[0], c.rank() - 1, parallel::kTagActivation);
  if (!is_last) all[1] = c.send(o.x, c.rank() + 1, parallel::kTagActivation);
  if (!back) return all;
  if (!is_last) all[2] = c.receive(o.arriving[1], c.rank() + 1, parallel::kTagGradient);
  if (!is_first) all[3] = c.send(o.x, c.rank() - 1, parallel::kTagGradient);
  return all;
}

std::vector<Operation> messages() {
  return {
      {"send to the next stage", 1.0,
       [](Communicator& c, const Operands& o) { return begin_messages(c, o, false); }},
      {"send both ways", 1.0, [](Communicator& c, const Operands& o) { return begin_messages(c, o, true); }}};
}

class CommBench {
 public:
  CommBench(const Ranks& ranks, DType dtype, int64_t most_bytes, int64_t repeats)
      : ranks_(ranks),
        dtype_(dtype),
        repeats_(repeats),
        arena_("bench comm", 3 * Arena::rounded(static_cast<std::size_t>(most_bytes))) {
    const auto count = most_bytes / static_cast<int64_t>(size_of(dtype));
    for (Tensor* all : {&all_, &arriving_[0], &arriving_[1]}) {
      *all = arena_.allocate(1, count, dtype);
      ops::fill(ranks.stream, *all, 0.0F);
    }
  }

  /// Collective over all ranks, whose groups along an axis have one size and are timed together.
  void time_axis(const std::string& axis, Communicator& group, const std::vector<Operation>& list,
                 int64_t from_bytes, int64_t to_bytes, nlohmann::ordered_json& rows) {
    if (group.size() == 1) return;
    for (const Operation& operation : list) {
      for (int64_t bytes = from_bytes; bytes <= to_bytes; bytes *= 4) {
        const int64_t row = bytes / static_cast<int64_t>(size_of(dtype_)) / group.size();
        const double seconds = time(operation, group, row);
        const int64_t moved = row * group.size() * static_cast<int64_t>(size_of(dtype_));
        const double rate = static_cast<double>(moved) / seconds / 1e9;
        rows.push_back({{"operation", operation.name},
                        {"axis", axis},
                        {"ranks", group.size()},
                        {"bytes", moved},
                        {"kib", bytes / kKiB},
                        {"us", 1e6 * seconds},
                        {"gb_per_s", rate},
                        {"bus_gb_per_s", rate * operation.bus}});
      }
    }
  }

 private:
  /// Seconds of one, by the slowest rank; the median of some, on a GPU each of several in a row. count:
  /// elements for each rank of the group.
  double time(const Operation& operation, Communicator& group, int64_t count) {
    const auto rows_of = [&](const Tensor& all) {
      return Tensor{all.data, group.size(), count, count, all.dtype};
    };
    const Tensor x = rows_of(all_);
    const Operands operands{x, x.row_range(group.rank(), 1), {rows_of(arriving_[0]), rows_of(arriving_[1])}};
    const int64_t in_a_row = backend_name() == "cuda" ? kInARow : 1;
    std::vector<double> each;
    for (int64_t i = 0; i < repeats_ + 1; ++i) {
      Request start = ranks_.world.barrier();
      ranks_.world.wait(start, "bench comm: start");
      const auto begin = Clock::now();
      for (int64_t j = 0; j < in_a_row; ++j) {
        for (Request& request : operation.begin(group, operands)) {
          if (request) group.wait(request, operation.name);
        }
      }
      ranks_.stream.synchronize();
      double seconds =
          std::chrono::duration<double>(Clock::now() - begin).count() / static_cast<double>(in_a_row);
      Request slowest = ranks_.world.all_reduce(make_tensor(&seconds, 1, 1), parallel::ReduceOp::max);
      ranks_.world.wait(slowest, "bench comm: the slowest rank");
      if (i > 0) each.push_back(seconds);  // the first one warms up
    }
    return median(each);
  }

  const Ranks& ranks_;
  const DType dtype_;
  const int64_t repeats_;
  Arena arena_;
  Tensor all_;
  std::array<Tensor, 2> arriving_;
};

void print_rows(const nlohmann::ordered_json& rows) {
  fmt::print("\n{:<24} {:<9} {:>6} {:>9} {:>11} {:>9} {:>9}\n", "operation", "axis", "ranks", "KiB", "us",
             "algo GB/s", "bus GB/s");
  for (const auto& row : rows)
    fmt::print("{:<24} {:<9} {:>6} {:>9} {:>11.1f} {:>9.2f} {:>9.2f}\n", row["operation"].get<std::string>(),
               row["axis"].get<std::string>(), row["ranks"].get<int>(), row["kib"].get<int64_t>(),
               row["us"].get<double>(), row["gb_per_s"].get<double>(), row["bus_gb_per_s"].get<double>());
}

int run(const Ranks& ranks, config::RunConfig config, int64_t from_bytes, int64_t to_bytes, bool as_json) {
  config.train.precision =
      train::settle_precision(config.train.precision, std::nullopt, ranks.world, ranks.stream);
  const bool bf16 = config.train.precision == model::Precision::bf16;
  CommBench bench(ranks, bf16 ? DType::bf16 : DType::fp32, to_bytes, config.bench.steps);
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  const parallel::Mesh& mesh = ranks.mesh;
  bench.time_axis("data", mesh.data(), operations(mesh.data().size()), from_bytes, to_bytes, rows);
  bench.time_axis("tensor", mesh.tensor(), operations(mesh.tensor().size()), from_bytes, to_bytes, rows);
  bench.time_axis("pipeline", mesh.pipeline(), messages(), from_bytes, to_bytes, rows);
  if (ranks.world.rank() != 0) return 0;
  nlohmann::ordered_json figures = figures_of_run(config, ranks);
  figures["repeats"] = config.bench.steps;
  if (as_json) {
    figures["comm"] = rows;
    print_figures(figures, true);
    return 0;
  }
  print_figures(figures, false);
  print_rows(rows);
  return 0;
}

}  // namespace

int bench_comm(std::span<const std::string> args) {
  const config::CommandLine line(spec(), args);
  if (line.help()) return print_help(spec());
  check_device(line);
  const config::Loaded loaded = config::load(line.sources());
  config::validate(loaded, config::kModelUse);
  const int64_t from = line.get_integer("from-kib", 64, 1, int64_t{1} << 24) * kKiB;
  const int64_t to = line.get_integer("to-mib", 64, 1, int64_t{1} << 14) * kKiB * kKiB;
  if (from > to) throw ConfigError("bench comm: --from-kib is more than --to-mib");
  return run_on_ranks(
      loaded.config,
      [&](int num_ranks) {
        if (num_ranks < 2) throw ConfigError("bench comm needs two ranks at least: launch/local.sh -n 2 ...");
        return loaded.config.parallel;
      },
      [&](const Ranks& ranks) { return run(ranks, loaded.config, from, to, line.has("json")); });
}

}  // namespace red::launch
