// Texts of several kinds, made here: prose, code, tables, other scripts, and what breaks careless tokenizers.
#pragma once

#include <string>
#include <vector>

#include "base/philox.hpp"

namespace red::data {

/// Small documents, each of another kind; `count` of them from a fixed set of words.
inline std::vector<std::string> make_texts(uint64_t count, uint64_t seed = 1) {
  const std::vector<std::string> words = {"the",   "river", "of",     "morning", "carried", "small",
                                          "boats", "and",   "light",  "down",    "toward",  "harbour",
                                          "where", "every", "sailor", "waits"};
  const auto pick = [&](uint64_t d, uint64_t i) { return words[philox(seed, d, i)[0] % words.size()]; };
  std::vector<std::string> texts;
  for (uint64_t d = 0; d < count; ++d) {
    std::string text;
    const uint64_t length = 20 + philox(seed, d, 1000)[1] % 60;
    for (uint64_t i = 0; i < length; ++i) {
      switch (d % 4) {
        case 0:
          text += pick(d, i) + (i % 12 == 11 ? ".\n\n" : " ");
          break;
        case 1:
          text += "    if (" + pick(d, i) + " == " + std::to_string(i * i) + ") {\n\t\treturn " +
                  pick(d, i + 500) + ";\n    }\n";
          break;
        case 2:
          text += pick(d, i) + "\t" + std::to_string(philox(seed, d, i)[2] % 1000) +
                  (i % 3 == 2 ? "\r\n" : "\t|  ");
          break;
        default:
          text += (i % 2 == 0 ? "漢字かな交じり文、" : "Ünïcödé façade — naïve; ") + pick(d, i) +
                  " 😀👩‍🔬 ";
          break;
      }
    }
    texts.push_back(text);
  }
  return texts;
}

/// Texts that must come back byte for byte.
inline std::vector<std::string> hard_texts() {
  return {
      "",
      " ",
      "\n",
      "\t",
      "   leading and trailing   ",
      "\n\n\n\t\t  \r\n mixed \t white \n space\n",
      "int main() {\n    return 0;\n}\n",
      "def f(x):\n\treturn x  # two  spaces\n",
      "漢字、ひらがな、カタカナ。한국어 العربية עברית ไทย",
      "😀👩‍🔬🏳️‍🌈 e\xcc\x81 \xef\xac\x81 \xe2\x91\xa0 \xc2\xa0nbsp\xe3\x80\x80ideographic",
      "[EOD]<s></s><pad><unk><0x41>[EOD]",
      "the mark \xe2\x96\x81 itself, \xe2\x96\x81\xe2\x96\x81twice, and \xe2\x96\x85 \xe2\x81\x87 too",
      std::string("\xef\xbb\xbf") + "byte order mark",
      std::string("NUL \0 inside\0", 13),
      "\x01\x02\x1b[0m\x7f\xc2\x85\xe2\x80\xa8\xe2\x80\xa9 controls",
      "\xef\xbf\xbd replacement, \xf4\x8f\xbf\xbf last, \xed\x9f\xbf \xee\x80\x80 private",
  };
}

}  // namespace red::data
