// redllm status: how a run is doing, or how it ended, on one screen; from its folder, without MPI or a model.
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "config/command_line.hpp"
#include "launch/commands.hpp"
#include "launch/inspect_print.hpp"
#include "train/memory_plan.hpp"
#include "train/progress.hpp"
#include "train/run_status.hpp"

namespace red::launch {
namespace {

using nlohmann::ordered_json;
using train::RunStart;
using train::RunState;
using train::RunStatus;

constexpr std::size_t kShownStarts = 5;

config::CommandSpec spec() {
  return {
      .name = "status",
      .usage = "RUN_DIR [--verify] [--json]",
      .summary =
          "Shows how a run is doing, or how it ended: step, loss, speed, time left, the newest checkpoint, "
          "starts\nand the reasons of their ends. Reads the run's folder alone, while the run works or after "
          "it "
          "died.\nThe newest checkpoint's index is compared with its checksum, and whether every shard file "
          "is "
          "there\nwith its size.",
      .options = {{"verify", "",
                   "compare every byte of that checkpoint with its checksum; exit code 3 if it is damaged",
                   false},
                  {"json", "", "one JSON object; what is not known is null", false}},
      .min_positional = 1,
      .max_positional = 1,
      .example = "redllm status runs/quickstart-red"};
}

std::string time_text(double seconds_since_1970) {
  const auto time = static_cast<std::time_t>(seconds_since_1970);
  std::tm local{};
  localtime_r(&time, &local);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", local.tm_year + 1900, local.tm_mon + 1,
                     local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec);
}

std::string ago(double time) {
  return train::duration(std::max(0.0, train::seconds_since_1970() - time)) + " ago";
}

/// How a start ended, or that it did not.
std::string end_text(const RunStart& start, bool running) {
  if (start.end) {
    const std::string text = start.end->reason.substr(0, start.end->reason.find('\n'));
    return fmt::format("code {} at {} after step {}: {}", start.end->code, time_text(start.end->time),
                       start.end->step, text);
  }
  return running ? "running" : "died without a word";
}

std::string state_text(const RunStatus& status) {
  const std::string name(name_of(status.state));
  if (status.starts.empty()) return name + ": no runs.jsonl; it was written by an earlier build";
  const RunStart& last = status.starts.back();
  if (status.state == RunState::running) {
    return fmt::format("{}: {}; lock renewed {:.0f} s ago{}", name, last.holder.text(), status.lock->age_s,
                       status.progressed && status.progressed->time >= last.time
                           ? fmt::format(", last step {}", ago(status.progressed->time))
                           : ", no step logged yet");
  }
  if (status.state == RunState::died) {
    double sign = last.time;
    if (status.progressed) sign = std::max(sign, status.progressed->time);
    if (status.lock) sign = std::max(sign, 1e-9 * static_cast<double>(status.lock->renewed_ns));
    return fmt::format("{} without a word: {}; last sign of life {} ({})", name, last.holder.text(),
                       time_text(sign), ago(sign));
  }
  return fmt::format("{}: {}", name, end_text(last, false));
}

void print_progress(const RunStatus& status) {
  const auto& p = status.progressed;
  const double share =
      p && status.steps > 0 ? 100.0 * static_cast<double>(p->step) / static_cast<double>(status.steps) : 0;
  print_line("step", fmt::format("{} of {} ({:.1f} %)", p ? p->step : 0, status.steps, share));
  if (!p) return;
  std::string loss = p->loss ? fmt::format("{:.4f}", *p->loss) : "not finite";
  if (p->validation_loss)
    loss += fmt::format("; on held-out text {:.4f} at step {}", *p->validation_loss, p->validation_step);
  if (p->skipped > 0) loss += fmt::format("; {} recent step(s) were skipped", p->skipped);
  print_line("loss", loss);
  if (p->tokens_per_s)
    print_line("speed", fmt::format("{:.0f} tokens/s, {:.1f} GFLOP/s{}, {:.3f} s a step", *p->tokens_per_s,
                                    p->gflops_per_s.value_or(0.0),
                                    p->mfu          ? fmt::format(" ({:.1f} % MFU)", 100 * *p->mfu)
                                    : p->peak_share ? fmt::format(" ({:.0f} % of peak)", 100 * *p->peak_share)
                                                    : "",
                                    p->step_s.value_or(0.0)));
  for (const train::SlowRank& s : p->stragglers)
    print_line("slow",
               fmt::format("rank {} on {}: {:.4g} s of its own a step instead of {:.4g} s, mostly in {}",
                           s.rank, s.host, s.own_s, s.expected_s, s.phase));
  if (status.left_s) print_line("time left", train::duration(*status.left_s));
}

void print_returns(const RunStatus& status) {
  if (status.returns.empty()) return;
  print_line("returns", fmt::format("{}; the last:", status.returns.size()));
  const train::RunReturn& r = status.returns.back();
  print_line("", fmt::format("{} from step {} to {} without samples {}: {}", time_text(r.time), r.step,
                             r.to_step, r.left_out.to_string(), r.reason));
}

void print_checkpoint(const RunStatus& status) {
  if (!status.checkpoint) {
    print_line("checkpoint", "none yet");
  } else {
    const train::CheckpointStatus& c = *status.checkpoint;
    print_line("checkpoint",
               fmt::format("step {}, {}, {}: {}", c.step, ago(c.time), train::bytes_text(c.num_bytes),
                           !c.damage.empty() ? "DAMAGED"
                           : c.every_byte    ? "whole, every byte agrees with its checksum"
                                             : "index and sizes are right (--verify compares every byte)"));
    for (const std::string& line : c.damage) print_line("", line);
    print_line("", fmt::format("{}; {} checkpoint(s) in all", c.folder.string(), status.num_checkpoints));
  }
  for (const std::string& name : status.set_aside) print_line("set aside", name);
}

void print_starts(const RunStatus& status) {
  const std::vector<RunStart>& starts = status.starts;
  if (starts.empty()) return;
  print_line("starts",
             fmt::format("{}{}", starts.size(), starts.size() > kShownStarts ? "; the last ones:" : ""));
  for (std::size_t i = starts.size() - std::min(starts.size(), kShownStarts); i < starts.size(); ++i) {
    const RunStart& start = starts[i];
    const bool running = i + 1 == starts.size() && status.state == RunState::running;
    print_line(
        "",
        fmt::format("{} {}, {} rank(s), {}: {}", time_text(start.time), start.holder.text(), start.num_ranks,
                    start.from_step ? fmt::format("from step {}", *start.from_step) : "before training",
                    end_text(start, running)));
  }
}

template <class T>
ordered_json or_null(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

ordered_json json_of(const RunStart& start) {
  ordered_json json = {{"time", start.time},
                       {"host", start.holder.host},
                       {"pid", start.holder.pid},
                       {"job_id", start.holder.job_id},
                       {"ranks", start.num_ranks},
                       {"layout", start.layout},
                       {"from_step", or_null(start.from_step)},
                       {"checkpoint", start.checkpoint}};
  json["end"] = nullptr;
  if (start.end)
    json["end"] = {{"time", start.end->time},
                   {"code", start.end->code},
                   {"reason", start.end->reason},
                   {"step", start.end->step}};
  return json;
}

ordered_json json_of(const train::CheckpointStatus& c) {
  return {{"folder", c.folder.string()},
          {"step", c.step},
          {"time", c.time},
          {"num_bytes", c.num_bytes},
          {"every_byte", c.every_byte},
          {"whole", c.damage.empty()},
          {"damage", c.damage}};
}

void print_json(const std::string& run_dir, const RunStatus& status) {
  const train::Progressed p = status.progressed.value_or(train::Progressed{});
  ordered_json json = {{"run", run_dir},
                       {"state", name_of(status.state)},
                       {"model", status.model},
                       {"step", p.step},
                       {"steps", status.steps},
                       {"loss", or_null(p.loss)},
                       {"validation_loss", or_null(p.validation_loss)},
                       {"tokens_per_s", or_null(p.tokens_per_s)},
                       {"model_gflops_per_s", or_null(p.gflops_per_s)},
                       {"peak_share", or_null(p.peak_share)},
                       {"mfu", or_null(p.mfu)},
                       {"step_s", or_null(p.step_s)},
                       {"seconds_per_step", or_null(p.seconds_per_step)},
                       {"left_s", or_null(status.left_s)},
                       {"recently_skipped", p.skipped}};
  json["stragglers"] = ordered_json::array();
  for (const train::SlowRank& s : p.stragglers)
    json["stragglers"].push_back({{"rank", s.rank},
                                  {"host", s.host},
                                  {"phase", s.phase},
                                  {"own_s", s.own_s},
                                  {"expected_s", s.expected_s}});
  json["last_step_age_s"] = nullptr;
  if (status.progressed) json["last_step_age_s"] = std::max(0.0, train::seconds_since_1970() - p.time);
  json["lock_age_s"] = status.lock ? ordered_json(status.lock->age_s) : ordered_json(nullptr);
  json["checkpoint"] = status.checkpoint ? json_of(*status.checkpoint) : ordered_json(nullptr);
  json["num_checkpoints"] = status.num_checkpoints;
  json["set_aside"] = status.set_aside;
  json["returns"] = ordered_json::array();
  for (const train::RunReturn& r : status.returns)
    json["returns"].push_back({{"time", r.time},
                               {"step", r.step},
                               {"to_step", r.to_step},
                               {"left_out", r.left_out.to_string()},
                               {"reason", r.reason}});
  json["starts"] = ordered_json::array();
  for (const RunStart& start : status.starts) json["starts"].push_back(json_of(start));
  print_object(json);
}

}  // namespace

int run_status(std::span<const std::string> args) {
  const config::CommandLine line(spec(), args);
  if (line.help()) return print_help(spec());
  const std::string& run_dir = line.positional().front();
  const RunStatus status = train::read_run_status(run_dir, line.has("verify"));
  if (line.has("json")) {
    print_json(run_dir, status);
  } else {
    print_line("run", fmt::format("{}{}", run_dir, status.model.empty() ? "" : ", " + status.model));
    print_line("state", state_text(status));
    print_progress(status);
    print_returns(status);
    print_checkpoint(status);
    print_starts(status);
  }
  const bool damaged = line.has("verify") && status.checkpoint && !status.checkpoint->damage.empty();
  return static_cast<int>(damaged ? ExitCode::data : ExitCode::ok);
}

}  // namespace red::launch
