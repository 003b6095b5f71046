// Where the tests find the Python packages of launch/python_packages.sh, and what becomes of a test without
// them.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "integration/child_process.hpp"

namespace red::test {

inline const std::filesystem::path kConvertPython = RED_SOURCE_DIR "/build/python-convert";

/// PyTorch, Transformers and lm-evaluation-harness are there. Otherwise the test is skipped, or fails where
/// RED_REQUIRE_PYTHON=1 asks for them.
inline bool has_convert_python() {
  if (std::filesystem::exists(kConvertPython / "installed")) return true;
  const char* demanded = std::getenv("RED_REQUIRE_PYTHON");
  if (demanded != nullptr && std::string_view(demanded) == "1")
    ADD_FAILURE() << kConvertPython << " is missing, and RED_REQUIRE_PYTHON asks for it";
  return false;
}
inline constexpr const char* kNoConvertPython =
    "PyTorch, Transformers and lm_eval are not installed: launch/python_packages.sh convert does";

/// A command with nothing but local files, and caches in `folder`.
inline ChildResult run_offline(std::vector<std::string> command, const std::filesystem::path& folder,
                               double deadline_s = 300) {
  std::vector<std::string> words = {"/usr/bin/env",
                                    "HF_HOME=" + (folder / "hf-home").string(),
                                    "HF_HUB_OFFLINE=1",
                                    "HF_DATASETS_OFFLINE=1",
                                    "TRANSFORMERS_OFFLINE=1",
                                    "HF_HUB_DISABLE_TELEMETRY=1",
                                    "TOKENIZERS_PARALLELISM=false",
                                    "CUDA_VISIBLE_DEVICES=",
                                    "OMP_NUM_THREADS=1",
                                    "PYTHONDONTWRITEBYTECODE=1"};
  words.insert(words.end(), command.begin(), command.end());
  return run_child(words, folder, deadline_s);
}

inline ChildResult run_python(const std::string& script, const std::vector<std::string>& args,
                              const std::filesystem::path& folder, double deadline_s = 300) {
  std::vector<std::string> command = {(kConvertPython / "bin/python").string(),
                                      RED_SOURCE_DIR "/tests/convert/" + script};
  command.insert(command.end(), args.begin(), args.end());
  return run_offline(command, folder, deadline_s);
}

}  // namespace red::test
