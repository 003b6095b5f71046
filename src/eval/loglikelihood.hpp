// How likely continuations of contexts are. Texts become tokens as lm-evaluation-harness makes them
// (docs/conversion.md), so that its figures of an exported model can be compared with these.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.hpp"
#include "train/run_options.hpp"

namespace red::eval {

/// One continuation to be scored. A RedLLM reads the context in its encoder; a DecLLM's begins with the start
/// token.
struct Continuation {
  std::vector<int32_t> context;  ///< at least one
  std::vector<int32_t> tokens;   ///< at least one
};

struct Loglikelihood {
  double sum = 0.0;        ///< of log p over the continuation's tokens, nats
  bool is_greedy = false;  ///< each token is the likeliest
  int64_t tokens = 0;
};

/// What stands around texts.
struct TextForm {
  bool has_encoder = true;
  bool ends_input = false;  ///< an encoder's input ends with </s>, as it did in training
};

/// White space at the context's end goes to the continuation. For an encoder both parts are encoded by
/// themselves; for a decoder alone they are encoded together, behind the start token, and the tokens beyond
/// the context's own count are the continuation. An empty context is the start token. `place` is for
/// messages. Throws DataError: not UTF-8, a continuation without tokens.
Continuation encode_continuation(const data::Tokenizer& tokenizer, std::string_view context,
                                 std::string_view continuation, const TextForm& form,
                                 const std::string& place);

/// Bytes of the text that are left when white space at its end is taken away, as Python's str.rstrip() does.
std::size_t size_without_trailing_space(std::string_view text);

/// Takes tokens away from the front where there are more than the model should see: of a DecLLM context and
/// continuation but its last token together, of a RedLLM the context. Throws DataError for a longer
/// continuation.
void limit_length(Continuation& request, int64_t max_length, bool has_encoder, const std::string& place);

/// Longest sequences among the requests, for the engine's room.
train::SampleLengths lengths_of(std::span<const Continuation> requests, bool has_encoder);

struct LoglikelihoodOptions {
  int64_t batch = 8;        ///< requests per forward pass
  int32_t start_token = 1;  ///< of an encoder-decoder's decoder
  data::DecoderPositions positions = data::DecoderPositions::after_encoder;
  bool bidirectional_input = false;  ///< DecLLM with BiAttn: the context's tokens see each other
};

/// One result for each request, the same on every rank. Collective; data ranks share the requests.
std::vector<Loglikelihood> loglikelihoods(train::Engine& engine, Stream& stream,
                                          const model::ModelConfig& model,
                                          std::span<const Continuation> requests,
                                          const LoglikelihoodOptions& options);

}  // namespace red::eval
