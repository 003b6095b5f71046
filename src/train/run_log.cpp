#include "train/run_log.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/log.hpp"

namespace red::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// Several ranks may write: appended by one call each. What a crash cut off gets its line break first.
void append(const fs::path& run_dir, const Json& json) noexcept {
  const fs::path path = run_log_path(run_dir);
  try {
    std::string line = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC,
                            0666);  // NOLINT(cppcoreguidelines-pro-type-vararg)
    char last = '\n';
    if (file >= 0 && ::lseek(file, -1, SEEK_END) >= 0 && ::read(file, &last, 1) == 1 && last != '\n')
      line.insert(line.begin(), '\n');
    const bool written =
        file >= 0 && ::write(file, line.data(), line.size()) == static_cast<ssize_t>(line.size());
    const bool synced = written && ::fsync(file) == 0;
    const int reason = errno;
    if (file >= 0) ::close(file);
    if (!synced) log::rank_warning("{}: cannot write: {}", path.string(), std::strerror(reason));
  } catch (const std::exception& error) {
    log::rank_warning("{}: cannot write: {}", path.string(), error.what());
  }
}

std::string text(const nlohmann::json& json, const char* key) {
  return json.value(key, std::string());
}

void take(const nlohmann::json& json, std::vector<RunStart>& starts) {
  const std::string event = json.at("event"), id = json.at("id");
  if (event == "start") {
    RunStart& start = starts.emplace_back();
    start.holder.id = id;
    start.holder.host = text(json, "host");
    start.holder.job_id = text(json, "job_id");
    start.holder.pid = json.at("pid");
    start.time = json.at("time");
    start.num_ranks = json.at("ranks");
    start.layout = text(json, "layout");
    return;
  }
  const auto start =
      std::find_if(starts.rbegin(), starts.rend(), [&](const RunStart& s) { return s.holder.id == id; });
  if (start == starts.rend()) return;
  if (event == "train") {
    start->from_step = json.at("step").get<int64_t>();
    start->steps = json.at("steps");
    start->checkpoint = text(json, "checkpoint");
  } else if (event == "end" && !start->end) {
    start->end = RunEnd{json.at("time"), json.at("code"), text(json, "reason"), json.at("step")};
  }
}

}  // namespace

fs::path run_log_path(const fs::path& run_dir) {
  return run_dir / "runs.jsonl";
}

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void log_start(const fs::path& run_dir, const RunStart& start) noexcept {
  append(run_dir, {{"event", "start"},
                   {"id", start.holder.id},
                   {"time", start.time},
                   {"host", start.holder.host},
                   {"pid", start.holder.pid},
                   {"job_id", start.holder.job_id},
                   {"ranks", start.num_ranks},
                   {"layout", start.layout}});
}

void log_training(const fs::path& run_dir, const RunStart& start) noexcept {
  append(run_dir, {{"event", "train"},
                   {"id", start.holder.id},
                   {"time", seconds_since_1970()},
                   {"step", start.from_step.value_or(0)},
                   {"steps", start.steps},
                   {"checkpoint", start.checkpoint}});
}

void log_end(const fs::path& run_dir, const std::string& id, const RunEnd& end) noexcept {
  append(run_dir, {{"event", "end"},
                   {"id", id},
                   {"time", end.time},
                   {"code", end.code},
                   {"reason", end.reason},
                   {"step", end.step}});
}

void log_return(const fs::path& run_dir, const std::string& id, const RunReturn& r) noexcept {
  append(run_dir, {{"event", "return"},
                   {"id", id},
                   {"time", r.time},
                   {"step", r.step},
                   {"to_step", r.to_step},
                   {"left_out", r.left_out.to_string()},
                   {"reason", r.reason}});
}

namespace {

/// take(line) for each; what a crash cut off is passed over.
template <class Take>
void for_each_line(const fs::path& run_dir, const Take& take_line) {
  std::ifstream in(run_log_path(run_dir));
  for (std::string line; std::getline(in, line);) {
    try {
      take_line(nlohmann::json::parse(line));
    } catch (const nlohmann::json::exception&) {
      continue;
    }
  }
}

}  // namespace

std::vector<RunStart> read_run_log(const fs::path& run_dir) {
  std::vector<RunStart> starts;
  for_each_line(run_dir, [&](const nlohmann::json& line) { take(line, starts); });
  return starts;
}

std::vector<RunReturn> read_returns(const fs::path& run_dir) {
  std::vector<RunReturn> returns;
  for_each_line(run_dir, [&](const nlohmann::json& line) {
    if (line.at("event") != "return") return;
    RunReturn r{line.at("time"), line.at("step"), line.at("to_step"), {}, text(line, "reason")};
    if (data::parse_sample_ranges(text(line, "left_out"), r.left_out).empty())
      returns.push_back(std::move(r));
  });
  return returns;
}

}  // namespace red::train
