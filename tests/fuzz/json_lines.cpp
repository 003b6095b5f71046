// Texts: the first byte says how they are packed, the second how they are cut, the rest is the file.
#include <array>

#include "data/corpus_reader.hpp"
#include "data/piece_parser.hpp"
#include "data/utf8.hpp"
#include "fuzz/fuzz_target.hpp"

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace red;
  static constexpr std::array names = {"a.jsonl",     "a.txt",    "a.jsonl.gz",
                                       "a.jsonl.zst", "a.txt.gz", "a.txt.zst"};
  test::ByteSource source(data, size);
  data::CorpusOptions options;
  const std::string name = names[static_cast<std::size_t>(source.below(static_cast<int>(names.size())))];
  options.split = static_cast<data::CorpusOptions::Split>(source.below(3));
  options.separator = "--";
  options.inputs = {test::fuzz_file(name, source.rest())};
  test::survive([&] {
    data::CorpusReader reader(options);
    std::mutex long_lines;
    data::PieceParser parser(options.field, long_lines);
    while (std::optional<data::RawPiece> piece = reader.next()) {
      data::BadLine bad;
      const std::optional<std::string_view> text = parser.parse(*piece, bad);
      RED_CHECK(text.has_value() != !bad.reason.empty(), "a line is neither good nor bad");
      RED_CHECK(!text || data::find_invalid_utf8(*text) == std::string_view::npos,
                "a text that is not UTF-8");
      if (!piece->is_json) continue;
      data::BadLine bad_pair;
      const std::optional<data::TextPair> pair = parser.parse_pair(*piece, options.field, bad_pair);
      RED_CHECK(pair.has_value() != !bad_pair.reason.empty(), "a pair is neither good nor bad");
      RED_CHECK(!pair || !pair->targets.empty(), "a pair with empty targets");
    }
  });
  return 0;
}
