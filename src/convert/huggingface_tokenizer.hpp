// A tokenizer for Transformers out of a SentencePiece model: the same ids for every text, and text never
// becomes a control id. Pieces are written with plain spaces instead of U+2581, so nothing has to replace
// spaces, and U+2581 in a text goes through bytes as it does here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "data/token_stream.hpp"

namespace red::convert {

/// What stands around a text unless special tokens are switched off.
struct TokenizerEnds {
  bool begin_with_bos = false;  ///< a DecLLM's input
  bool end_with_eos = false;    ///< inputs of a RedLLM that was trained on pairs with data.end_input
};

struct TokenizerFiles {
  std::string tokenizer;  ///< tokenizer.json
  std::string settings;   ///< tokenizer_config.json
};

/// `model`: bytes of the SentencePiece file; `name` is for messages. Throws DataError for a model that is not
/// BPE or has user-defined pieces: their ids could not be kept.
TokenizerFiles huggingface_tokenizer(std::string_view model, const std::string& name,
                                     const data::SpecialIds& ids, const TokenizerEnds& ends,
                                     int64_t max_length);

}  // namespace red::convert
