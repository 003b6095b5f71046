#include "launch/trained_model.hpp"

#include "checkpoint/checkpoint.hpp"

namespace red::launch {

std::filesystem::path find_checkpoint(const std::filesystem::path& path) {
  if (std::filesystem::exists(path / "index.h5")) return path;
  for (const std::filesystem::path& dir : {path / "checkpoints", path}) {
    if (!std::filesystem::is_directory(dir)) continue;
    if (const auto latest = checkpoint::find_latest(dir)) return *latest;
  }
  throw ConfigError("'{}' is neither a checkpoint (no index.h5 in it) nor a run's folder with one",
                    path.string());
}

config::Loaded load_from_checkpoint(const std::filesystem::path& checkpoint, const config::Sources& changes) {
  const checkpoint::Reader reader(checkpoint);
  config::Sources sources = changes;
  sources.base = {reader.metadata().configuration, (checkpoint / "index.h5").string()};
  return config::load(sources);
}

data::Tokenizer load_tokenizer(const config::RunConfig& config) {
  data::Tokenizer tokenizer(config.data.tokenizer);
  if (tokenizer.vocabulary_size() != config.model.vocab_size) {
    throw ConfigError("data.tokenizer = {} has {} pieces, but model.vocab_size = {}: make them equal",
                      config.data.tokenizer.string(), tokenizer.vocabulary_size(), config.model.vocab_size);
  }
  return tokenizer;
}

}  // namespace red::launch
