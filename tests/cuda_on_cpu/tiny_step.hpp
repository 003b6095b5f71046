// A tiny model, and a training step of it, as words of the program's command line.
#pragma once

#include <string>
#include <vector>

#include "integration/child_process.hpp"

namespace red::test {

inline const std::string kBench = std::string(RED_SOURCE_DIR) + "/configs/bench/red_tiny.ini";

inline const std::vector<std::string> kTinyModel = {"--config",
                                                    kBench,
                                                    "--json",
                                                    "--model.vocab_size=96",
                                                    "--model.d_model=32",
                                                    "--model.d_ff=64",
                                                    "--model.num_heads=2",
                                                    "--model.head_dim=16",
                                                    "--model.encoder_layers=1",
                                                    "--model.decoder_layers=1",
                                                    "--data.window=32",
                                                    "--train.micro_batch=2"};

/// `bench WORDS...` of it.
inline std::vector<std::string> bench_tiny(std::vector<std::string> words) {
  words.insert(words.begin(), "bench");
  words.insert(words.end(), kTinyModel.begin(), kTinyModel.end());
  return words;
}

inline const std::vector<std::string> kTinyStep =
    bench_tiny({"step", "--train.global_batch=4", "--bench.steps=1", "--bench.warmup_steps=1"});

}  // namespace red::test
