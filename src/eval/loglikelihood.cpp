#include "eval/loglikelihood.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.hpp"
#include "data/utf8.hpp"

namespace red::eval {
namespace {

/// What Python's str.isspace() says yes to.
bool is_space(char32_t c) {
  if ((c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || (c >= 0x2000 && c <= 0x200A)) return true;
  constexpr std::array others = {U'\u0085', U'\u00A0', U'\u1680', U'\u2028',
                                 U'\u2029', U'\u202F', U'\u205F', U'\u3000'};
  return std::find(others.begin(), others.end(), c) != others.end();
}

void check_text(std::string_view text, const char* what, const std::string& place) {
  const std::size_t invalid = data::find_invalid_utf8(text);
  if (invalid != std::string_view::npos)
    throw DataError("{}: invalid UTF-8 at byte {} of the {}", place, invalid, what);
}

/// Scores one data rank's requests.
class Scorer {
 public:
  Scorer(train::Engine& engine, Stream& stream, const model::ModelConfig& model,
         const LoglikelihoodOptions& options)
      : engine_(engine), stream_(stream), model_(model), options_(options) {
    if (!engine.stages().has_head()) return;
    logits_memory_ = Buffer(static_cast<std::size_t>(kRows * model.vocab_size) * sizeof(float));
    logits_.resize(static_cast<std::size_t>(kRows * model.vocab_size));
  }

  /// As many requests as fit a pass.
  void run(std::span<const Continuation> requests, std::span<Loglikelihood> results) {
    samples_.resize(requests.size());
    for (std::size_t i = 0; i < requests.size(); ++i) fill(requests[i], samples_[i]);
    data::pack(samples_, options_.positions, batch_);
    engine_.hidden(batch_);
    if (!engine_.stages().has_head()) return;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      results[i] = {0.0, true, static_cast<int64_t>(requests[i].tokens.size())};
      const int64_t end = batch_.decoder.offsets[i + 1];
      for (int64_t row = end - results[i].tokens; row < end; row += kRows)
        score(row, std::min(kRows, end - row), results[i]);
    }
  }

 private:
  static constexpr int64_t kRows = 64;  ///< tokens whose logits are in memory at a time

  void fill(const Continuation& request, data::Sample& sample) const {
    sample.clear();
    if (model_.has_encoder()) {
      sample.encoder_input = request.context;
      sample.decoder_input.push_back(options_.start_token);
    } else {
      sample.decoder_input = request.context;
      sample.decoder_target.assign(request.context.begin() + 1, request.context.end());
      if (options_.bidirectional_input) sample.prefix = static_cast<int32_t>(request.context.size());
    }
    const auto& tokens = request.tokens;
    sample.decoder_input.insert(sample.decoder_input.end(), tokens.begin(), tokens.end() - 1);
    sample.decoder_target.insert(sample.decoder_target.end(), tokens.begin(), tokens.end());
    sample.loss_mask.assign(sample.decoder_input.size(), 1);
  }

  void score(int64_t first, int64_t count, Loglikelihood& result) {
    engine_.stages().last().logits(
        make_tensor(reinterpret_cast<float*>(logits_memory_.data()), count, model_.vocab_size), first);
    copy_to_host(stream_, logits_.data(), logits_memory_.data(),
                 static_cast<std::size_t>(count * model_.vocab_size) * sizeof(float));
    stream_.synchronize();
    for (int64_t i = 0; i < count; ++i) {
      const std::span<const float> row(logits_.data() + i * model_.vocab_size,
                                       static_cast<std::size_t>(model_.vocab_size));
      add(row, static_cast<std::size_t>(batch_.targets[static_cast<std::size_t>(first + i)]), result);
    }
  }

  static void add(std::span<const float> logits, std::size_t target, Loglikelihood& result) {
    const auto largest = std::max_element(logits.begin(), logits.end());
    double sum = 0.0;
    for (const float logit : logits)
      sum += std::exp(static_cast<double>(logit) - static_cast<double>(*largest));
    result.sum += static_cast<double>(logits[target]) - static_cast<double>(*largest) - std::log(sum);
    result.is_greedy = result.is_greedy && static_cast<std::size_t>(largest - logits.begin()) == target;
  }

  train::Engine& engine_;
  Stream& stream_;
  const model::ModelConfig& model_;
  const LoglikelihoodOptions& options_;
  std::vector<data::Sample> samples_;
  data::MicroBatch batch_;
  Buffer logits_memory_;       ///< (kRows, V), where the head is
  std::vector<float> logits_;  ///< the same on the host
};

}  // namespace

std::size_t size_without_trailing_space(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    const std::size_t begin = data::utf8_floor(text, end - 1);
    if (!is_space(data::utf8_decode(text, begin))) break;
    end = begin;
  }
  return end;
}

Continuation encode_continuation(const data::Tokenizer& tokenizer, std::string_view context,
                                 std::string_view continuation, const TextForm& form,
                                 const std::string& place) {
  check_text(context, "context", place);
  check_text(continuation, "continuation", place);
  const data::SpecialIds& ids = tokenizer.ids();
  Continuation request;
  const std::string_view kept = context.substr(0, size_without_trailing_space(context));
  const std::string rest = std::string(context.substr(kept.size())) + std::string(continuation);
  if (form.has_encoder) {
    if (!context.empty()) tokenizer.encode(kept, request.context);
    if (!context.empty() && form.ends_input) request.context.push_back(ids.eos);
    if (request.context.empty()) request.context = {ids.bos};
    tokenizer.encode(rest, request.tokens);
  } else {
    request.context = {ids.bos};
    tokenizer.encode(kept, request.context);
    std::vector<int32_t> whole = {ids.bos};
    tokenizer.encode(std::string(kept) + rest, whole);
    if (whole.size() > request.context.size())
      request.tokens.assign(whole.begin() + static_cast<std::ptrdiff_t>(request.context.size()), whole.end());
  }
  if (request.tokens.empty())
    throw DataError("{}: the continuation has no tokens behind its context; give some text", place);
  return request;
}

void limit_length(Continuation& request, int64_t max_length, bool has_encoder, const std::string& place) {
  const auto tokens = static_cast<int64_t>(request.tokens.size());
  if (tokens > max_length)
    throw DataError("{}: the continuation has {} tokens, more than --max-length {}", place, tokens,
                    max_length);
  // The last token of a decoder's sequence is never read; one of the context's must be.
  const int64_t room = has_encoder ? max_length : std::max<int64_t>(max_length + 1 - tokens, 1);
  const auto have = static_cast<int64_t>(request.context.size());
  if (have > room) request.context.erase(request.context.begin(), request.context.end() - room);
}

train::SampleLengths lengths_of(std::span<const Continuation> requests, bool has_encoder) {
  train::SampleLengths lengths;
  for (const Continuation& request : requests) {
    const auto context = static_cast<int64_t>(request.context.size()),
               tokens = static_cast<int64_t>(request.tokens.size());
    lengths.encoder = std::max(lengths.encoder, has_encoder ? context : 0);
    lengths.decoder = std::max(lengths.decoder, has_encoder ? tokens : context + tokens - 1);
  }
  return lengths;
}

std::vector<Loglikelihood> loglikelihoods(train::Engine& engine, Stream& stream,
                                          const model::ModelConfig& model,
                                          std::span<const Continuation> requests,
                                          const LoglikelihoodOptions& options) {
  const parallel::Mesh& mesh = engine.mesh();
  const std::size_t total = requests.size();
  const auto data = static_cast<std::size_t>(mesh.layout().data),
             at = static_cast<std::size_t>(mesh.at().data);
  std::vector<Loglikelihood> results(total);
  Scorer scorer(engine, stream, model, options);
  const std::size_t end = total * (at + 1) / data;
  for (std::size_t first = total * at / data; first < end; first += static_cast<std::size_t>(options.batch)) {
    const std::size_t count = std::min(static_cast<std::size_t>(options.batch), end - first);
    scorer.run(requests.subspan(first, count), std::span(results).subspan(first, count));
  }
  // One rank of each pipeline speaks; the others add nothing.
  std::vector<double> figures(2 * total, 0.0);
  for (std::size_t i = 0; i < total && engine.speaks_for_samples(); ++i) {
    figures[2 * i] = results[i].sum;
    figures[2 * i + 1] = results[i].is_greedy ? 1.0 : 0.0;
  }
  parallel::Request request = mesh.world().all_reduce(
      make_tensor(figures.data(), static_cast<int64_t>(figures.size()), 1), parallel::ReduceOp::sum);
  mesh.world().wait(request, "all-reduce of log-likelihoods");
  for (std::size_t i = 0; i < total; ++i)
    results[i] = {figures[2 * i], figures[2 * i + 1] > 0.5, static_cast<int64_t>(requests[i].tokens.size())};
  return results;
}

}  // namespace red::eval
