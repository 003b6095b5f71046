#include "train/run_directory.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "base/log.hpp"
#include "checkpoint/choose.hpp"
#include "checkpoint/folders.hpp"
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
  if (option.section == "data")
    return option.key != "tokenizer" && option.key != "missing_eod" && option.key != "skip_samples";
  return false;
}

/// Keys that say where and how fast, and change no result beyond rounding.
bool may_change_silently(const config::OptionInfo& option) {
  static constexpr std::array sections = {"parallel", "checkpoint", "bench"};
  static constexpr std::array keys = {"steps",
                                      "micro_batch",
                                      "log_every",
                                      "threads",
                                      "recompute",
                                      "recompute_layers",
                                      "head_chunk",
                                      "bucket_mib",
                                      "timeout_s",
                                      "io_timeout_s",
                                      "gemm",
                                      "deterministic",
                                      "run_dir",
                                      "max_skipped_steps",
                                      "spike_threshold",
                                      "spike_window",
                                      "spike_steps",
                                      "spike_back",
                                      "max_returns",
                                      "validate_every",
                                      "validation_windows",
                                      "straggler_every",
                                      "trace_step",
                                      "trace_steps"};
  if (std::find(sections.begin(), sections.end(), option.section) != sections.end()) return true;
  return option.section == "train" && std::find(keys.begin(), keys.end(), option.key) != keys.end();
}

std::string names_of(const std::vector<data::SourceConfig>& sources) {
  std::string names;
  for (const data::SourceConfig& source : sources) names += (names.empty() ? "" : ", ") + source.name;
  return names.empty() ? "none" : names;
}

/// What differs and must not between the sources: their names, in this order, and weights decide which source
/// a sample is of. Where their files lie may change; what is in them, check_contents() compares.
std::string source_differences(const std::vector<data::SourceConfig>& saved,
                               const std::vector<data::SourceConfig>& now) {
  const std::string names = names_of(now), names_before = names_of(saved);
  if (names != names_before)
    return fmt::format("\n  [data.source.NAME] of {}, in the checkpoint of {}, in this order", names,
                       names_before);
  std::string wrong;
  for (std::size_t i = 0; i < now.size(); ++i) {
    for (const config::SourceOption& option : config::source_options()) {
      const std::string value = option.get(now[i]), before = option.get(saved[i]);
      if (value == before) continue;
      const std::string line = fmt::format("{}{}.{} = {}, in the checkpoint {}", config::kSourcePrefix,
                                           now[i].name, option.key, value, before);
      if (option.key == "weight") {
        wrong += "\n  " + line;
      } else {
        log::warning("resume: {}", line);
      }
    }
  }
  return wrong;
}

constexpr const char* kContents = "contents of data.source.";

}  // namespace

void add_contents(const data::SampleProvider& provider, std::map<std::string, std::string>& extra) {
  const std::vector<std::string> names = provider.source_names(), contents = provider.source_contents();
  for (std::size_t i = 0; i < contents.size(); ++i) extra[kContents + names[i]] = contents[i];
}

void check_contents(const checkpoint::Metadata& metadata, const data::SampleProvider& provider,
                    const std::filesystem::path& checkpoint) {
  std::map<std::string, std::string> now;
  add_contents(provider, now);
  for (const auto& [key, contents] : now) {
    const auto before = metadata.extra.find(key);
    if (before == metadata.extra.end()) {
      log::warning("resume: {} is of a build that did not keep {}; they are not compared",
                   checkpoint.string(), key);
      continue;
    }
    if (before->second == contents) continue;
    throw DataError(
        "{} was made with other data: {} are {}, there {}; give the files of then, or begin another "
        "train.run_dir",
        checkpoint.string(), key, contents, before->second);
  }
}

std::filesystem::path checkpoints_dir(const std::filesystem::path& run_dir) {
  return run_dir / "checkpoints";
}

std::filesystem::path watchdog_folder(const std::filesystem::path& run_dir) {
  return run_dir / "watchdog";
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
                                                          const std::string& resume,
                                                          parallel::Communicator& world) {
  const std::filesystem::path dir = checkpoints_dir(run_dir);
  checkpoint::set_aside_unfinished_together(dir, world);
  if (resume == "never") {
    if (!checkpoint::list_checkpoints(dir).empty()) {
      throw ConfigError(
          "checkpoint.resume = never, but {} holds checkpoints: choose another train.run_dir, or resume with "
          "auto",
          dir.string());
    }
    return std::nullopt;
  }
  if (resume == "auto" || resume == "must") {
    auto newest = checkpoint::choose_newest(dir, world);
    if (resume == "must" && !newest) {
      throw ConfigError(
          "checkpoint.resume = must, but {} holds no checkpoint: check train.run_dir, or use auto",
          dir.string());
    }
    return newest;
  }
  const std::filesystem::path given(resume);
  if (!std::filesystem::is_directory(given)) {
    throw ConfigError(
        "checkpoint.resume = {}: no such folder; give auto, must, never or a checkpoint's folder", resume);
  }
  const std::string damage = checkpoint::find_damage_together(given, world);
  if (!damage.empty()) {
    throw DataError("checkpoint.resume = {}: this checkpoint is damaged; give another, or auto:\n{}", resume,
                    damage.substr(0, damage.size() - 1));
  }
  return given;
}

namespace {

/// Throws ConfigError where keys that `must_stay` differ from the checkpoint's, or the tokenizer does.
/// Returns the checkpoint's configuration.
template <class MustStay>
config::RunConfig compare(const checkpoint::Metadata& metadata, const config::RunConfig& config,
                          const std::string& tokenizer_digest, const std::filesystem::path& checkpoint,
                          bool resumes, MustStay must_stay) {
  config::Sources sources;
  sources.base = {metadata.configuration, (checkpoint / "index.h5").string()};
  config::RunConfig saved = config::load(sources).config;
  std::string wrong;
  for (const config::RunOption& option : config::run_options()) {
    const std::string before = option.get(saved), now = option.get(config);
    if (before == now) continue;
    if (must_stay(option, saved)) {
      wrong += fmt::format("\n  {} = {}, in the checkpoint {}", option.name(), now, before);
    } else if (resumes && !may_change_silently(option)) {
      log::warning("resume: {} = {}, in the checkpoint {}", option.name(), now, before);
    }
  }
  if (resumes) wrong += source_differences(saved.data.sources, config.data.sources);
  if (!wrong.empty()) {
    throw ConfigError("{} was made with another configuration:{}\nUse its values, or another {}",
                      checkpoint.string(), wrong, resumes ? "train.run_dir" : "checkpoint");
  }
  if (!metadata.tokenizer_digest.empty() && metadata.tokenizer_digest != tokenizer_digest) {
    throw ConfigError("{} was made with another tokenizer: SHA-256 {} there, {} of data.tokenizer = {}",
                      checkpoint.string(), metadata.tokenizer_digest, tokenizer_digest,
                      config.data.tokenizer.string());
  }
  return saved;
}

}  // namespace

void check_resume(const checkpoint::Metadata& metadata, const config::RunConfig& config,
                  const std::string& tokenizer_digest, const std::filesystem::path& checkpoint) {
  compare(metadata, config, tokenizer_digest, checkpoint, true, must_stay);
}

void check_initialization(const checkpoint::Metadata& metadata, const config::RunConfig& config,
                          const std::string& tokenizer_digest, const std::filesystem::path& checkpoint) {
  compare(metadata, config, tokenizer_digest, checkpoint, false,
          [&](const config::OptionInfo& option, const config::RunConfig& saved) {
            if (option.section == "data") return false;
            if (option.section == "optimizer" && !config.checkpoint.keep_optimizer_state) return false;
            return must_stay(option, saved);
          });
}

std::filesystem::path checkpoint_to_initialize_from(const std::filesystem::path& given) {
  if (std::filesystem::exists(given / "index.h5")) return given;
  const std::filesystem::path dir = checkpoints_dir(given);
  if (std::filesystem::is_directory(dir)) {
    if (const auto latest = checkpoint::find_latest(dir)) return *latest;
  }
  throw ConfigError(
      "checkpoint.initialize_from = {}: is neither a checkpoint (no index.h5 in it) nor a run's folder with "
      "one",
      given.string());
}

}  // namespace red::train
