// Inputs as they should be, made by the program itself, for tests that damage them:
//   wiki.jsonl, t.model                  text, and a tokenizer of kGoodVocabulary pieces
//   wiki_text_document.{bin,idx}         token files; wiki_heldout_text_document.* held out
//   run.ini, run/                        a RedLLM for `train --config run.ini`, and its run of two steps
#pragma once

#include <cstdint>
#include <filesystem>

namespace red::test {

constexpr int64_t kGoodVocabulary = 320, kGoodWindow = 32;

/// Copies them into a folder. The first call makes them, in about a second.
void copy_good_inputs(const std::filesystem::path& to);

}  // namespace red::test
