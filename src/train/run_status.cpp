#include "train/run_status.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/folders.hpp"
#include "checkpoint/verify.hpp"
#include "config/parse.hpp"
#include "train/run_directory.hpp"

namespace red::train {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kTailBytes = int64_t{1} << 20;
constexpr std::size_t kRecent = 50;  ///< logged steps

std::optional<double> number(const json& line, const char* key) {
  const auto at = line.find(key);
  if (at == line.end() || !at->is_number()) return std::nullopt;
  return at->get<double>();
}

std::optional<double> mean_of(const std::vector<json>& lines, const char* key) {
  double sum = 0.0;
  int count = 0;
  for (const json& line : lines) {
    if (const auto value = number(line, key)) {
      sum += *value;
      ++count;
    }
  }
  return count > 0 ? std::optional(sum / count) : std::nullopt;
}

/// Whole metrics near the file's end, in order.
std::vector<json> metrics_near_end(const fs::path& run_dir) {
  std::vector<json> lines;
  for (const std::string& text : last_lines(run_dir / "metrics.jsonl", kTailBytes)) {
    json line = json::parse(text, nullptr, false);
    if (line.is_object() && number(line, "step") && number(line, "wall_time"))
      lines.push_back(std::move(line));
  }
  return lines;
}

void take_validation(const json& line, Progressed& result) {
  const auto validation = line.find("validation");
  if (validation == line.end() || !validation->is_object() || validation->empty()) return;
  double sum = 0.0;
  for (const auto& source : *validation) {
    const auto loss = number(source, "loss");
    if (!loss) return;
    sum += *loss;
  }
  result.validation_loss = sum / static_cast<double>(validation->size());
  result.validation_step = line.at("step").get<int64_t>();
}

void take_stragglers(const json& line, Progressed& result) {
  const auto list = line.find("stragglers");
  if (list == line.end() || !list->is_array()) return;
  for (const json& s : *list) {
    if (!s.is_object()) continue;
    result.stragglers.push_back({s.value("rank", 0), s.value("host", ""), s.value("phase", ""),
                                 s.value("own_s", 0.0), s.value("expected_s", 0.0)});
  }
}

/// The pace counts from the start of the process that is running, where it has logged two steps.
std::optional<Progressed> progress_of(const fs::path& run_dir, double since) {
  const std::vector<json> lines = metrics_near_end(run_dir);
  if (lines.empty()) return std::nullopt;
  Progressed result;
  result.step = lines.back().at("step").get<int64_t>();
  result.time = *number(lines.back(), "wall_time");
  result.loss = number(lines.back(), "loss");
  take_stragglers(lines.back(), result);
  for (const json& line : lines) {
    take_validation(line, result);
    if (!line.value("applied", true)) ++result.skipped;
  }
  std::vector<json> recent;
  for (std::size_t i = lines.size() - std::min(lines.size(), kRecent); i < lines.size(); ++i) {
    if (*number(lines[i], "wall_time") >= since) recent.push_back(lines[i]);
  }
  result.tokens_per_s = mean_of(recent, "tokens_per_s");
  result.gflops_per_s = mean_of(recent, "model_gflops_per_s");
  result.peak_share = mean_of(recent, "peak_share");
  result.mfu = mean_of(recent, "mfu");
  result.step_s = mean_of(recent, "step_s");
  result.seconds_per_step = result.step_s;
  if (recent.size() > 1) {
    const double steps = *number(recent.back(), "step") - *number(recent.front(), "step");
    const double seconds = *number(recent.back(), "wall_time") - *number(recent.front(), "wall_time");
    if (steps > 0 && seconds > 0) result.seconds_per_step = seconds / steps;
  }
  return result;
}

double time_of(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return 0.0;
  return static_cast<double>(status.st_mtim.tv_sec) + 1e-9 * static_cast<double>(status.st_mtim.tv_nsec);
}

CheckpointStatus look_at(const fs::path& folder, int64_t step, bool verify) {
  CheckpointStatus status;
  status.folder = folder;
  status.step = step;
  status.time = time_of(folder);
  status.every_byte = verify;
  if (verify) status.damage = checkpoint::find_damage(folder);
  if (!status.damage.empty()) return status;
  try {
    const checkpoint::Reader reader(folder, checkpoint::Check::nothing);
    for (const checkpoint::ShardFile& file : reader.shard_files()) status.num_bytes += file.num_bytes;
  } catch (const DataError& error) {
    status.damage = {error.what()};
  }
  return status;
}

void take_checkpoints(const fs::path& run_dir, bool verify, RunStatus& status) {
  const fs::path dir = checkpoints_dir(run_dir);
  if (!fs::is_directory(dir)) return;
  // The retention may delete what was just listed: something newer is there then.
  for (int attempt = 0; attempt < 3; ++attempt) {
    const std::vector<checkpoint::FoundCheckpoint> found = checkpoint::list_checkpoints(dir);
    status.num_checkpoints = static_cast<int>(found.size());
    if (found.empty()) break;
    status.checkpoint = look_at(dir / found.front().name, found.front().step, verify);
    if (status.checkpoint->damage.empty() || fs::exists(status.checkpoint->folder)) break;
  }
  std::error_code error;
  for (fs::directory_iterator entry(dir, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.find(".damaged-") != std::string::npos || name.find(".incomplete-") != std::string::npos ||
        name.find(".called-off-") != std::string::npos)
      status.set_aside.push_back(name);
  }
  std::sort(status.set_aside.begin(), status.set_aside.end());
}

RunState state_of(const RunStatus& status) {
  if (status.starts.empty()) return RunState::unknown;
  const RunStart& last = status.starts.back();
  if (last.end) {
    if (last.end->code == static_cast<int>(ExitCode::ok)) return RunState::finished;
    return last.end->code == static_cast<int>(ExitCode::stopped) ? RunState::stopped : RunState::failed;
  }
  const auto& lock = status.lock;
  const bool held = lock && lock->holder && lock->holder->id == last.holder.id && may_be_alive(*lock);
  return held ? RunState::running : RunState::died;
}

}  // namespace

std::string_view name_of(RunState state) {
  static constexpr std::array<std::string_view, 6> names = {"running", "finished", "stopped",
                                                            "failed",  "died",     "unknown"};
  return names[static_cast<std::size_t>(state)];
}

std::vector<std::string> last_lines(const fs::path& path, int64_t num_bytes) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) {
    if (!fs::exists(path)) return {};
    throw IoError("{}: cannot open: {}", path.string(), std::strerror(errno));
  }
  const int64_t size = in.tellg();
  const int64_t begin = std::max<int64_t>(0, size - num_bytes);
  in.seekg(begin);
  std::string text(static_cast<std::size_t>(size - begin), '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(0, in.gcount())));
  std::vector<std::string> lines;
  std::size_t at = begin == 0 ? 0 : text.find('\n') + 1;  // npos + 1: none begins here
  if (begin > 0 && at == 0) return lines;
  for (std::size_t end; (end = text.find('\n', at)) != std::string::npos; at = end + 1)
    lines.push_back(text.substr(at, end - at));
  return lines;
}

RunStatus read_run_status(const fs::path& run_dir, bool verify) {
  const fs::path configuration = run_dir / "configuration.ini";
  std::error_code error;
  if (!fs::is_directory(run_dir, error))
    throw ConfigError("'{}': there is no such folder; give a run's, the train.run_dir of its training",
                      run_dir.string());
  RunStatus status;
  // The lock before the log: a run that ends meanwhile has its end there.
  status.lock = look_at_lock(run_dir);
  status.starts = read_run_log(run_dir);
  status.returns = read_returns(run_dir);
  const bool configured = fs::exists(configuration, error);
  if (!configured && status.starts.empty())
    throw ConfigError(
        "'{}' is no run's folder: it has neither runs.jsonl nor configuration.ini; give the train.run_dir of "
        "a training",
        run_dir.string());
  if (configured) {
    const config::RunConfig config =
        config::load({.base = {}, .files = {configuration}, .overrides = {}}).config;
    status.steps = config.train.steps;
    status.model = config.model.name;
  }
  status.state = state_of(status);
  const bool running = status.state == RunState::running;
  status.progressed = progress_of(run_dir, running ? status.starts.back().time : 0.0);
  take_checkpoints(run_dir, verify, status);
  if (running && status.progressed && status.progressed->seconds_per_step && status.starts.back().from_step)
    status.left_s = *status.progressed->seconds_per_step *
                    static_cast<double>(std::max<int64_t>(0, status.steps - status.progressed->step));
  return status;
}

}  // namespace red::train
