#include "data/token_build.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "data/test_files.hpp"
#include "data/texts.hpp"
#include "data/token_verify.hpp"
#include "data/tokenizer_training.hpp"

namespace red::data {
namespace {

using Texts = std::vector<std::string>;

const Tokenizer& tokenizer() {
  static const Tokenizer shared = [] {
    TrainingSample sample(1 << 20, 1);
    for (const std::string& text : make_texts(200)) sample.add_document(text);
    TokenizerTraining options;
    options.vocabulary_size = 700;
    return Tokenizer::from_bytes(train_tokenizer(sample.take_sentences(), options), "test");
  }();
  return shared;
}

std::string json_line(const std::string& text) {
  return nlohmann::json({{"id", 1}, {"text", text}}).dump() + "\n";
}

class Build : public testing::Test {
 protected:
  Build() {
    options_.prefix = folder_ / "out";
    options_.workers = 2;
  }
  void give(const std::string& name, const std::string& bytes) {
    write_file(folder_ / name, bytes);
    options_.corpus.inputs.push_back(folder_ / name);
  }
  void give_json(const std::string& name, const Texts& texts) {
    std::string lines;
    for (const std::string& text : texts) lines += json_line(text);
    give(name, lines);
  }
  /// Texts of a token file, document by document; each must end with [EOD].
  static Texts read_back(const std::filesystem::path& prefix) {
    const TokenFile file(prefix);
    Texts texts;
    for (int64_t d = 0; d < file.num_documents(); ++d) {
      std::vector<int32_t> ids(static_cast<std::size_t>(file.document_begin(d + 1) - file.document_begin(d)));
      file.read(file.document_begin(d), ids);
      EXPECT_EQ(ids.back(), tokenizer().ids().eod);
      EXPECT_EQ(ids, [&] {
        auto again = tokenizer().encode(tokenizer().decode(ids));
        again.push_back(tokenizer().ids().eod);
        return again;
      }());
      texts.push_back(tokenizer().decode(ids));
    }
    return texts;
  }
  Texts training() const { return read_back(training_prefix(options_.prefix)); }
  Texts held_out() const { return read_back(held_out_prefix(options_.prefix)); }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
      all.push_back(entry.path().filename());
    std::sort(all.begin(), all.end());
    return all;
  }
  TempFolder folder_;
  TokenBuildOptions options_;
};

Texts sorted(Texts texts) {
  std::sort(texts.begin(), texts.end());
  return texts;
}

TEST_F(Build, DocumentsComeBackInOrderWithoutShuffling) {
  const Texts texts = make_texts(300, 4);
  give_json("a.jsonl", {texts.begin(), texts.begin() + 150});
  give("b.txt", texts[150]);
  give_json("c.jsonl", {texts.begin() + 151, texts.end()});
  options_.shuffle = false;
  const TokenBuildSummary summary = build_token_files(tokenizer(), options_);
  EXPECT_EQ(training(), texts);
  EXPECT_EQ(summary.training.documents, 300);
  EXPECT_EQ(summary.held_out.documents, 0);
  int64_t bytes = 0;
  for (const std::string& text : texts) bytes += static_cast<int64_t>(text.size());
  EXPECT_EQ(summary.training.text_bytes, bytes);
  EXPECT_EQ(names(), (Texts{"a.jsonl", "b.txt", "c.jsonl", "out_text_document.bin", "out_text_document.idx",
                            "out_text_document.json"}));
}

TEST_F(Build, HardTextsComeBack) {
  Texts texts = hard_texts();
  give_json("a.jsonl", texts);
  options_.shuffle = false;
  build_token_files(tokenizer(), options_);
  texts.erase(texts.begin());  // the empty one is no document
  EXPECT_EQ(training(), texts);
}

TEST_F(Build, TheOrderDependsOnTheSeedAlone) {
  const Texts texts = make_texts(800, 4);
  give_json("a.jsonl", texts);
  ASSERT_GT(std::filesystem::file_size(folder_ / "a.jsonl"), 8U << 16);  // a worker takes 64 KiB at a time
  options_.held_out = 0.1;
  const auto both = [&] {
    Texts all = training();
    for (const std::string& text : held_out()) all.push_back(text);
    return all;
  };
  const auto bytes = [&] {
    Texts all;
    for (const std::string& name : names()) all.push_back(read_file(folder_ / name));
    return all;
  };
  build_token_files(tokenizer(), options_);
  const Texts order = both(), files = bytes();
  EXPECT_EQ(files.size(), 7U);  // the input, and .bin, .idx, .json of either
  EXPECT_TRUE(order != texts);
  EXPECT_TRUE(sorted(order) == sorted(texts));
  for (const int workers : {1, 3, 7}) {
    options_.workers = workers;
    build_token_files(tokenizer(), options_);
    EXPECT_TRUE(bytes() == files) << workers << " workers";
  }
  options_.seed = 2;
  build_token_files(tokenizer(), options_);
  EXPECT_TRUE(both() != order);
  EXPECT_TRUE(sorted(both()) == sorted(texts));
}

TEST_F(Build, HeldOutDocumentsAreAShareAndNeverInBoth) {
  const Texts texts = make_texts(200, 4);
  ASSERT_EQ(std::set<std::string>(texts.begin(), texts.end()).size(), texts.size());
  give_json("a.jsonl", texts);
  options_.held_out = 0.1;
  const TokenBuildSummary summary = build_token_files(tokenizer(), options_);
  EXPECT_EQ(summary.training.documents, 180);
  EXPECT_EQ(summary.held_out.documents, 20);
  Texts both = training();
  const Texts out = held_out();
  both.insert(both.end(), out.begin(), out.end());
  EXPECT_EQ(sorted(both), sorted(texts));
  // The same ones without shuffling, in their order of arrival.
  options_.shuffle = false;
  build_token_files(tokenizer(), options_);
  EXPECT_EQ(sorted(held_out()), sorted(out));
  const Texts in_order = training();
  EXPECT_TRUE(
      std::is_sorted(in_order.begin(), in_order.end(), [&](const std::string& a, const std::string& b) {
        return std::find(texts.begin(), texts.end(), a) < std::find(texts.begin(), texts.end(), b);
      }));
}

TEST_F(Build, SmallCorporaHoldOutOneAtLeast) {
  give_json("a.jsonl", {"one", "two", "three"});
  options_.held_out = 0.01;
  EXPECT_EQ(build_token_files(tokenizer(), options_).held_out.documents, 1);
  options_.held_out = 0.9;
  EXPECT_EQ(message_of<DataError>([&] { build_token_files(tokenizer(), options_); }),
            "all 3 documents would be held out: give a smaller --held-out than 0.9");
  options_.corpus.inputs.clear();
  give("b.txt", "alone");
  EXPECT_EQ(message_of<DataError>([&] { build_token_files(tokenizer(), options_); }),
            "1 document cannot be split: leave out --held-out, or give more");
}

TEST_F(Build, LongTextsAreOneDocumentWithTheIdsOfOne) {
  std::string text;
  while (text.size() < 5 * kMaxPieceBytes / 2) {
    for (const std::string& part : make_texts(40)) text += part;
  }
  give("a.txt", text);
  const TokenBuildSummary summary = build_token_files(tokenizer(), options_);
  EXPECT_EQ(summary.training.documents, 1);
  EXPECT_EQ(training(), (Texts{text}));  // and read_back() compares the ids with those of the whole
}

TEST_F(Build, SidecarTellsWhatIsInside) {
  give_json("a.jsonl", {"aa", "a"});
  const TokenBuildSummary summary = build_token_files(tokenizer(), options_);
  const auto sidecar = read_token_sidecar(training_prefix(options_.prefix));
  ASSERT_TRUE(sidecar);
  EXPECT_EQ(sidecar->tokenizer_sha256, tokenizer().digest());
  EXPECT_EQ(sidecar->vocabulary_size, 700);
  EXPECT_EQ(sidecar->statistics.documents, 2);
  EXPECT_EQ(sidecar->statistics.text_bytes, 3);
  EXPECT_EQ(sidecar->inputs, (Texts{(folder_ / "a.jsonl").string()}));
  EXPECT_TRUE(sidecar->shuffled);
  // Entropy by hand from the tokens themselves.
  const TokenFile file(training_prefix(options_.prefix));
  std::vector<int32_t> ids(static_cast<std::size_t>(file.num_tokens()));
  file.read(0, ids);
  double nats = 0;
  for (const int32_t id : std::set<int32_t>(ids.begin(), ids.end())) {
    const double share =
        static_cast<double>(std::count(ids.begin(), ids.end(), id)) / static_cast<double>(ids.size());
    nats -= share * std::log(share);
  }
  EXPECT_NEAR(summary.training.unigram_entropy, nats, 1e-12);
  EXPECT_GT(nats, 0.5);
  EXPECT_EQ(sidecar->statistics.unigram_entropy, summary.training.unigram_entropy);
}

TEST_F(Build, BadLinesStopOrAreSkipped) {
  give("a.jsonl", json_line("one") + "broken\n" + json_line("two") + "{\"txt\":1}\n" + json_line("three"));
  const std::string text = message_of<DataError>([&] { build_token_files(tokenizer(), options_); });
  EXPECT_NE(text.find("a.jsonl:2: is no valid JSON"), std::string::npos) << text;
  EXPECT_EQ(names(), (Texts{"a.jsonl"}));  // nothing is left behind
  options_.max_bad_lines = 1;
  EXPECT_NE(message_of<DataError>([&] {
              build_token_files(tokenizer(), options_);
            }).find("a.jsonl:4: has no field \"text\"; bad line number 2"),
            std::string::npos);
  options_.max_bad_lines = 2;
  options_.shuffle = false;
  EXPECT_EQ(build_token_files(tokenizer(), options_).bad_lines, 2);
  EXPECT_EQ(training(), (Texts{"one", "two", "three"}));
}

TEST_F(Build, AFailureLeavesTheOldFiles) {
  give_json("a.jsonl", {"one", "two"});
  options_.shuffle = false;
  build_token_files(tokenizer(), options_);
  give("b.txt", "fine at first, then \xff");
  const std::string text = message_of<DataError>([&] { build_token_files(tokenizer(), options_); });
  EXPECT_NE(text.find("b.txt: invalid UTF-8 at byte 20"), std::string::npos) << text;
  EXPECT_EQ(training(), (Texts{"one", "two"}));
  EXPECT_EQ(names(), (Texts{"a.jsonl", "b.txt", "out_text_document.bin", "out_text_document.idx",
                            "out_text_document.json"}));
}

TEST_F(Build, CutOffAtAnyStageNothingIsUnderAFinalName) {
  give_json("a.jsonl", make_texts(3000));
  options_.held_out = 0.1;
  for (const std::string_view stage : {"encoding", "writing"}) {
    const std::string text = message_of<DataError>([&] {
      build_token_files(tokenizer(), options_, [&](const TokenBuildStage& now) {
        if (now.name == stage && now.done > now.total / 4) throw DataError("stop");
      });
    });
    EXPECT_EQ(text, "stop") << stage;
    EXPECT_EQ(names(), (Texts{"a.jsonl"})) << stage;
  }
}

TEST_F(Build, NoDocumentIsAnError) {
  give("a.jsonl", "\n\n" + json_line(""));
  EXPECT_EQ(message_of<DataError>([&] { build_token_files(tokenizer(), options_); }),
            "the input holds no document: is it empty, or are all its texts?");
}

TEST_F(Build, ProgressReachesTheEndOfTheInput) {
  give_json("a.jsonl", make_texts(300));
  uint64_t done = 0, total = 0;
  std::set<std::string> stages;
  build_token_files(tokenizer(), options_, [&](const TokenBuildStage& stage) {
    stages.emplace(stage.name);
    if (stage.name != "encoding") return;
    EXPECT_GE(stage.done, done);
    done = stage.done;
    total = stage.total;
  });
  EXPECT_EQ(done, total);
  EXPECT_EQ(total, std::filesystem::file_size(folder_ / "a.jsonl"));
  EXPECT_EQ(stages, (std::set<std::string>{"encoding", "writing"}));
}

TEST_F(Build, VerifyAgreesAndFindsWhatIsChanged) {
  give_json("a.jsonl", make_texts(50));
  build_token_files(tokenizer(), options_);
  const auto prefix = training_prefix(options_.prefix);
  const TokenFileReport report = verify_token_file(prefix, &tokenizer().ids());
  EXPECT_EQ(report.documents, 50);
  EXPECT_TRUE(report.has_sidecar);
  EXPECT_LT(report.largest_id, 700);
  const auto error = [&] {
    return message_of<DataError>([&] { verify_token_file(prefix, &tokenizer().ids()); });
  };
  const std::string bin = read_file(with_suffix(prefix, ".bin")),
                    json = read_file(with_suffix(prefix, ".json"));
  std::string bad = bin;
  bad[1] = '\x7f';
  write_file(with_suffix(prefix, ".bin"), bad);
  EXPECT_NE(error().find(".bin: token 0 (in document 0) is 32"), std::string::npos) << error();
  bad = bin;
  bad[0] = 4;
  bad[1] = 0;
  write_file(with_suffix(prefix, ".bin"), bad);
  EXPECT_NE(error().find("token 0 (in document 0) is [EOD] (4), but its document goes on"),
            std::string::npos);
  bad = bin;
  bad[bad.size() - 2] = 9;
  write_file(with_suffix(prefix, ".bin"), bad);
  EXPECT_NE(error().find("(in document 49) is 9, but the last of a document must be [EOD] (4)"),
            std::string::npos);
  write_file(with_suffix(prefix, ".bin"), bin.substr(0, bin.size() - 2));
  EXPECT_NE(error().find("it was truncated"), std::string::npos);
  write_file(with_suffix(prefix, ".bin"), bin);

  std::string other = json;
  other.replace(other.find(tokenizer().digest()), 4, "beef");
  write_file(with_suffix(prefix, ".json"), other);
  EXPECT_NE(error().find("was built with the tokenizer of SHA-256 beef"), std::string::npos);
  other = json;
  other.replace(other.find("\"documents\": 50"), 15, "\"documents\": 51");
  write_file(with_suffix(prefix, ".json"), other);
  EXPECT_NE(error().find(".json: tells of 51 documents"), std::string::npos);
  write_file(with_suffix(prefix, ".json"), "{}");
  EXPECT_NE(error().find(".json: does not describe a token file"), std::string::npos);
  std::filesystem::remove(with_suffix(prefix, ".json"));
  EXPECT_FALSE(verify_token_file(prefix, &tokenizer().ids()).has_sidecar);
}

TEST_F(Build, VerifyFindsLengthsThatWereChanged) {
  give_json("a.jsonl", {"aa bb cc dd", "a"});
  build_token_files(tokenizer(), options_);
  const auto prefix = training_prefix(options_.prefix);
  const std::string idx = read_file(with_suffix(prefix, ".idx"));
  const auto error = [&](const std::string& bytes, const SpecialIds* ids) {
    write_file(with_suffix(prefix, ".idx"), bytes);
    return message_of<DataError>([&] { verify_token_file(prefix, ids); });
  };
  EXPECT_EQ(error(idx, &tokenizer().ids()), "no error");
  EXPECT_NE(error(idx.substr(0, idx.size() - 8), nullptr).find(".idx: 74 bytes do not fit"),
            std::string::npos);
  // 34 bytes of header, lengths of four bytes, offsets of eight.
  std::string bad = idx;
  ++bad[34];
  EXPECT_NE(error(bad, nullptr).find(".idx: sequence 1 begins at byte"), std::string::npos);
  // A token moved from one document to the next with all else in accord: only [EOD] tells.
  --bad[38];
  bad[50] = static_cast<char>(bad[50] + 2);
  EXPECT_EQ(error(bad, nullptr), "no error");
  const std::string text = error(bad, &tokenizer().ids());
  EXPECT_NE(text.find("(in document 0) is [EOD] (4), but its document goes on"), std::string::npos) << text;
  bad = idx;
  --bad[34];
  ++bad[38];
  bad[50] = static_cast<char>(bad[50] - 2);
  const std::string other = error(bad, &tokenizer().ids());
  EXPECT_NE(other.find("but the last of a document must be [EOD] (4)"), std::string::npos) << other;
}

TEST_F(Build, VerifyFindsChangedIdsWithoutTheTokenizer) {
  give_json("a.jsonl", make_texts(50));
  build_token_files(tokenizer(), options_);
  const auto prefix = training_prefix(options_.prefix), bin_path = with_suffix(prefix, ".bin");
  const std::string bin = read_file(bin_path);
  EXPECT_EQ(verify_token_file(prefix, nullptr).documents, 50);
  const auto error = [&](char low, char high) {
    std::string bad = bin;
    bad[40] = low;
    bad[41] = high;
    write_file(bin_path, bad);
    return message_of<DataError>([&] { verify_token_file(prefix, nullptr); });
  };
  const auto id_700 = std::pair('\xbc', '\2');
  EXPECT_NE(error(id_700.first, id_700.second)
                .find(".bin: token 20 (in document 0) is 700, outside the vocabulary of 700"),
            std::string::npos);
  const std::string text = error('\0', '\0');  // <pad>, an id like any other here
  EXPECT_NE(text.find(".bin: the unigram entropy of its tokens is"), std::string::npos) << text;
}

TEST_F(Build, WindowsRefuseAnotherTokenizer) {
  give_json("a.jsonl", make_texts(50));
  build_token_files(tokenizer(), options_);
  const auto prefix = training_prefix(options_.prefix);
  check_tokenizer(prefix, tokenizer().digest());
  check_tokenizer(prefix, "");
  EXPECT_NE(
      message_of<DataError>([&] { check_tokenizer(prefix, "1234"); }).find("not with 1234; use that one"),
      std::string::npos);
}

}  // namespace
}  // namespace red::data
