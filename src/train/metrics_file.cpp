#include "train/metrics_file.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

namespace red::train {
namespace {

namespace fs = std::filesystem;

/// Whether a line is of a step up to last_step. A line that is no metrics was cut off by a crash.
bool stays(const std::string& line, int64_t last_step) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return false;
  const auto step = json.find("step");
  return step != json.end() && step->is_number_integer() && step->get<int64_t>() <= last_step;
}

void finish(std::ofstream& out, const fs::path& path) {
  out.close();
  if (!out) throw IoError("{}: cannot write: {}", path.string(), std::strerror(errno));
}

bool has_lines_after(const fs::path& path, int64_t last_step) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!stays(line, last_step)) return true;
  }
  return false;
}

/// What was removed is safe before the file without it takes the file's place.
void cut_after(const fs::path& path, int64_t last_step) {
  if (!fs::is_regular_file(path) || !has_lines_after(path, last_step)) return;
  const fs::path aside = path.string() + ".partial";
  const fs::path removed = path.string() + fmt::format(".after-step-{}.removed", last_step);
  std::ifstream in(path);
  std::ofstream kept_out(aside, std::ios::trunc), removed_out(removed, std::ios::app);
  for (std::string line; std::getline(in, line);)
    (stays(line, last_step) ? kept_out : removed_out) << line << '\n';
  finish(removed_out, removed);
  finish(kept_out, aside);
  std::error_code error;
  fs::rename(aside, path, error);
  if (error) throw IoError("{}: cannot rename to {}: {}", aside.string(), path.string(), error.message());
}

}  // namespace

MetricsFile::MetricsFile(const fs::path& path, int64_t last_step) {
  cut_after(path, last_step);
  file_.emplace(path, RecordFile::Open::append);
}

}  // namespace red::train
