#include "train/run_directory.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "base/log.hpp"
#include "config/option_table.hpp"
#include "config/parse.hpp"

namespace red::train {
namespace {

/// Keys that decide what parameters, state and samples mean. A resume must keep them.
bool must_stay(const config::OptionInfo& option, const config::RunConfig& saved) {
  if (option.section == "model") return option.key != "name" && option.key != "init_seed";
  if (option.section == "optimizer") {
    return option.key == "factored" || (saved.optimizer.factored && option.key == "min_dim_to_factor");
  }
  if (option.section == "data") return option.key != "tokenizer" && option.key != "missing_eod";
  return false;
}

/// Keys that say where and how fast, and change no result beyond rounding.
bool may_change_silently(const config::OptionInfo& option) {
  static constexpr std::array sections = {"parallel", "checkpoint", "bench"};
  static constexpr std::array keys = {
      "steps",          "micro_batch",       "log_every", "threads", "recompute", "recompute_layers",
      "head_chunk",     "bucket_mib",        "timeout_s", "gemm",    "run_dir",   "max_skipped_steps",
      "validate_every", "validation_windows"};
  if (std::find(sections.begin(), sections.end(), option.section) != sections.end()) return true;
  return option.section == "train" && std::find(keys.begin(), keys.end(), option.key) != keys.end();
}

}  // namespace

std::filesystem::path checkpoints_dir(const std::filesystem::path& run_dir) {
  return run_dir / "checkpoints";
}

void prepare_run_directory(const std::filesystem::path& run_dir, const std::string& configuration,
                           parallel::Communicator& world) {
  std::string complaint;
  if (world.rank() == 0) {
    std::error_code error;
    std::filesystem::create_directories(run_dir, error);
    if (error)
      complaint = fmt::format("{}: cannot make the run's folder: {}", run_dir.string(), error.message());
    if (!error) {
      const std::filesystem::path path = run_dir / "configuration.ini",
                                  aside = run_dir / "configuration.ini.partial";
      std::ofstream out(aside);
      out << configuration;
      out.close();
      if (!out) complaint = fmt::format("{}: cannot write: {}", aside.string(), std::strerror(errno));
      if (out) std::filesystem::rename(aside, path, error);
      if (error) complaint = fmt::format("{}: cannot write: {}", path.string(), error.message());
    }
  }
  int32_t failed = complaint.empty() ? 0 : 1;
  parallel::Request request = world.all_reduce(make_tensor(&failed, 1, 1), parallel::ReduceOp::max);
  world.wait(request, "preparation of the run's folder");
  if (failed == 0) return;
  if (complaint.empty())
    complaint = fmt::format("{}: rank 0 cannot prepare the run's folder", run_dir.string());
  throw IoError("{}", complaint);
}

std::optional<std::filesystem::path> checkpoint_to_resume(const std::filesystem::path& run_dir,
                                                          const std::string& resume) {
  const std::filesystem::path dir = checkpoints_dir(run_dir);
  if (resume == "auto" || resume == "must" || resume == "never") {
    auto latest = checkpoint::find_latest(dir);
    if (resume == "never" && latest) {
      throw ConfigError(
          "checkpoint.resume = never, but {} holds checkpoints: choose another train.run_dir, or resume with "
          "auto",
          dir.string());
    }
    if (resume == "must" && !latest) {
      throw ConfigError(
          "checkpoint.resume = must, but {} holds no checkpoint: check train.run_dir, or use auto",
          dir.string());
    }
    return latest;
  }
  const std::filesystem::path given(resume);
  if (!std::filesystem::is_directory(given)) {
    throw ConfigError(
        "checkpoint.resume = {}: no such folder; give auto, must, never or a checkpoint's folder", resume);
  }
  return given;
}

void check_resume(const checkpoint::Metadata& metadata, const config::RunConfig& config,
                  const std::string& tokenizer_digest, const std::filesystem::path& checkpoint) {
  config::Sources sources;
  sources.base = {metadata.configuration, (checkpoint / "index.h5").string()};
  const config::RunConfig saved = config::load(sources).config;
  std::string wrong;
  for (const config::RunOption& option : config::run_options()) {
    const std::string before = option.get(saved), now = option.get(config);
    if (before == now) continue;
    if (must_stay(option, saved)) {
      wrong += fmt::format("\n  {} = {}, in the checkpoint {}", option.name(), now, before);
    } else if (!may_change_silently(option)) {
      log::warning("resume: {} = {}, in the checkpoint {}", option.name(), now, before);
    }
  }
  if (!wrong.empty()) {
    throw ConfigError("{} was made with another configuration:{}\nUse its values, or another train.run_dir",
                      checkpoint.string(), wrong);
  }
  if (!metadata.tokenizer_digest.empty() && metadata.tokenizer_digest != tokenizer_digest) {
    throw ConfigError("{} was made with another tokenizer: SHA-256 {} there, {} of data.tokenizer = {}",
                      checkpoint.string(), metadata.tokenizer_digest, tokenizer_digest,
                      config.data.tokenizer.string());
  }
}

}  // namespace red::train
