// A checkpoint through an engine of any layout and backend: loaded, and saved again.
#pragma once

#include <string>

#include "checkpoint/background_saver.hpp"
#include "train/small_run.hpp"

namespace red::test {

/// Loads `from` into an engine of this layout; saves it at once, or behind training. Returns what went wrong.
/// Collective over `world`, which has messages of the stream's memory.
inline std::string save_again(parallel::Communicator& world, Stream& stream, config::RunConfig config,
                              const parallel::Layout& layout, const std::filesystem::path& from,
                              const std::filesystem::path& to, bool behind) {
  config.parallel = layout;
  config.checkpoint.async = behind;
  parallel::Mesh mesh(layout, world, model::layout_limits(config.model));
  const data::SyntheticProvider provider = small_provider(config.model.kind);
  train::Engine engine(
      train::training_options(config, {provider.max_encoder_length(), provider.max_decoder_length()}), mesh,
      stream);
  const checkpoint::Reader reader(from);
  engine.load(reader, true);
  checkpoint::Metadata metadata = reader.metadata();
  metadata.extra = engine.checkpoint_extra();
  // Another backend has another library of products, of which nothing was computed here.
  metadata.extra.at(train::kGemmKey) = reader.metadata().extra.at(train::kGemmKey);
  metadata.layout = layout.to_string();
  for (const auto& [name, value] : reader.metadata().extra) metadata.extra.emplace(name, value);
  if (!behind) {
    const auto fetch = [&stream](void* host, const void* device, std::size_t num_bytes) {
      copy_to_host(stream, host, device, num_bytes);
      stream.synchronize();
    };
    checkpoint::save(to, metadata, engine.checkpoint_shards(), world, {fetch, {}});
    return {};
  }
  checkpoint::BackgroundSaver saver(to, {}, world);
  saver.begin(metadata, engine.copy_checkpoint_shards());
  engine.initialize_parameters();  // whatever becomes of the engine now
  saver.finish();
  return saver.take_result().value().error;
}

}  // namespace red::test
