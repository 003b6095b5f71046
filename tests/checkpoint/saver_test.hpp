// What tests of saves behind training need: something to save, and steps to save it behind.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "checkpoint/background_saver.hpp"
#include "checkpoint/test_run.hpp"
#include "checkpoint/tiled_model.hpp"

namespace red::checkpoint::test {

class SaverTest : public CheckpointTest {
 protected:
  int last() const { return size() - 1; }

  /// What a rank would save, and memory for its copy.
  struct Source {
    OwnedShards owned;
    std::shared_ptr<HostBuffer> memory;
  };
  Source source(int version) {
    Source s{shards_of(tilings()[2], rank(), size(), 3), nullptr};
    s.owned.fill(version);
    s.memory = std::make_shared<HostBuffer>(copy_bytes(s.owned.shards()));
    return s;
  }
  void begin(BackgroundSaver& saver, int64_t step, Source& from) {
    saver.begin(metadata_of(step), copy_shards(stream_, from.owned.shards(), from.memory));
  }
  /// Step after step until the saver is idle; `between` is called behind each.
  SaveResult result_after_steps(
      BackgroundSaver& saver, const std::function<void()>& between = [] {}) {
    for (int boundary = 0; boundary < 100000; ++boundary) {
      saver.at_step_boundary();
      between();
      if (auto result = saver.take_result()) return *result;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return {0, 0.0, "it never ends"};
  }
  int64_t count_wrong(const std::filesystem::path& checkpoint, int version) {
    const Reader reader(checkpoint);
    OwnedShards owned = shards_of(tilings()[3], 0, 1, 1);
    for (const Shard& shard : owned.shards()) reader.read(shard);
    return owned.count_wrong(version);
  }
  bool on_all_ranks(bool here) {
    float all = here ? 1.0F : 0.0F;
    parallel::Request request = world().all_reduce(make_tensor(&all, 1, 1), parallel::ReduceOp::min);
    world().wait(request, "whether all ranks");
    return all == 1.0F;
  }
  /// Rank 0's text everywhere, to compare with.
  std::string text_of_rank_0(std::string text) {
    text.resize(4096);
    parallel::Request request =
        world().broadcast(make_tensor(reinterpret_cast<uint8_t*>(text.data()), 1, 4096), 0);
    world().wait(request, "text of rank 0");
    return text.substr(0, text.find('\0'));
  }

  Stream stream_{1, 0, GemmChoice::plain};
};

}  // namespace red::checkpoint::test
