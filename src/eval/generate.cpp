#include "eval/generate.hpp"

#include <algorithm>
#include <chrono>

namespace red::eval {
namespace {

using Tokens = std::vector<int32_t>;

class Timer {
 public:
  explicit Timer(double& seconds) : seconds_(seconds) {}
  ~Timer() { seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// Generates one data rank's prompts. Everything that a token needs is made when the object is.
class Generator {
 public:
  Generator(train::Engine& engine, Stream& stream, const model::ModelConfig& model,
            const GenerationConfig& config)
      : engine_(engine), stream_(stream), model_(model), config_(config) {
    const auto places = static_cast<std::size_t>(engine.cache().sequences);
    open_.reserve(places);
    chosen_.reserve(places);
    for (Tokens* tokens : {&places_, &step_.decoder.ids, &step_.decoder.positions, &step_.decoder.offsets})
      tokens->reserve(places + 1);
    step_.sample_ids.reserve(places);
    if (!engine.stages().has_head()) return;
    samplers_.assign(places, Sampler(config.sampling));
    logits_memory_ = Buffer(places * static_cast<std::size_t>(model.vocab_size) * sizeof(float));
    logits_.resize(places * static_cast<std::size_t>(model.vocab_size));
  }

  /// prompts[first ...], as many as there are places; `result` is of all prompts.
  void run(std::span<const Tokens> prompts, std::size_t first, std::size_t count, Generation& result) {
    open_.clear();
    for (std::size_t i = 0; i < count; ++i) {
      Tokens& written = result.tokens[first + i];
      written.reserve(static_cast<std::size_t>(config_.max_tokens));
      const auto length = static_cast<int64_t>(prompts[first + i].size());
      const bool after = config_.positions == data::DecoderPositions::after_encoder;
      const int64_t begin = model_.has_encoder() ? (after ? length : 0) : length;
      open_.push_back({first + i, static_cast<int32_t>(i), static_cast<int32_t>(begin), &written});
    }
    {
      const Timer timer(result.prefill_s);
      prefill(prompts);
    }
    const Timer timer(result.decode_s);
    while (!open_.empty()) decode();
  }

 private:
  /// A prompt that is being continued.
  struct Sequence {
    std::size_t prompt;      ///< index among all prompts
    int32_t place;           ///< in the cache
    int32_t start_position;  ///< rotary position of the decoder's input before the first new token
    Tokens* written;
  };

  /// Whole prompts, as many in a pass as fit the engine; the first new token of each.
  void prefill(std::span<const Tokens> prompts) {
    chosen_.resize(open_.size());
    for (std::size_t begin = 0, end = 0; begin < open_.size(); begin = end) {
      int64_t tokens = 0;
      places_.clear();
      for (; end < open_.size(); ++end) {
        const auto length = static_cast<int64_t>(prompts[open_[end].prompt].size());
        if (end > begin && !fits(end - begin + 1, tokens + length)) break;
        tokens += length;
        samples_.resize(end - begin + 1);
        fill_sample(prompts[open_[end].prompt], samples_.back());
        places_.push_back(open_[end].place);
      }
      data::pack(samples_, config_.positions, prompts_batch_);
      engine_.prefill(prompts_batch_, places_);
      choose(begin, end);
    }
    accept();
  }

  bool fits(std::size_t sequences, int64_t prompt_tokens) const {
    const auto starts = static_cast<int64_t>(sequences);
    const int64_t decoder_tokens = starts + (model_.has_encoder() ? 0 : prompt_tokens);
    return decoder_tokens <= engine_.capacity().decoder_tokens &&
           (!model_.has_encoder() || prompt_tokens <= engine_.capacity().encoder_tokens);
  }

  /// A prompt as a sample without targets.
  void fill_sample(const Tokens& prompt, data::Sample& sample) const {
    sample.clear();
    sample.decoder_input.push_back(config_.start_token);
    if (model_.has_encoder()) {
      sample.encoder_input = prompt;
    } else {
      sample.decoder_input.insert(sample.decoder_input.end(), prompt.begin(), prompt.end());
      if (config_.bidirectional_input) sample.prefix = static_cast<int32_t>(sample.decoder_input.size());
    }
    sample.decoder_target.assign(sample.decoder_input.size(), 0);
    sample.loss_mask.assign(sample.decoder_input.size(), 0);
  }

  /// One row for each open sequence: its last token.
  void decode() {
    data::PackedSequences& rows = step_.decoder;
    rows.ids.clear();
    rows.positions.clear();
    rows.offsets.assign(1, 0);
    places_.clear();
    for (const Sequence& s : open_) {
      rows.ids.push_back(s.written->back());
      rows.positions.push_back(s.start_position + static_cast<int32_t>(s.written->size()));
      rows.offsets.push_back(static_cast<int32_t>(rows.ids.size()));
      places_.push_back(s.place);
    }
    step_.sample_ids.assign(open_.size(), 0);
    engine_.decode(step_, places_);
    chosen_.resize(open_.size());
    choose(0, open_.size());
    accept();
  }

  /// Where the head is: the next token of the open sequences begin ... end - 1, which went forward last.
  void choose(std::size_t begin, std::size_t end) {
    if (!engine_.stages().has_head()) return;
    const auto count = static_cast<int64_t>(end - begin), vocabulary = model_.vocab_size;
    engine_.stages().last().last_logits(
        make_tensor(reinterpret_cast<float*>(logits_memory_.data()), count, vocabulary));
    copy_to_host(stream_, logits_.data(), logits_memory_.data(),
                 static_cast<std::size_t>(count * vocabulary) * sizeof(float));
    stream_.synchronize();
    stream_.parallel_for(count, [&](int64_t i) {
      const Sequence& s = open_[begin + static_cast<std::size_t>(i)];
      const std::span<const float> row(logits_.data() + i * vocabulary, static_cast<std::size_t>(vocabulary));
      chosen_[begin + static_cast<std::size_t>(i)] =
          samplers_[static_cast<std::size_t>(i)].pick(row, s.prompt, s.written->size());
    });
  }

  /// From the last stage to all: everyone goes on with the same sequences. Tensor ranks have chosen from the
  /// same logits.
  void accept() {
    const parallel::Mesh& mesh = engine_.mesh();
    const int last = mesh.layout().num_stages() - 1;
    if (last > 0) {
      parallel::Request request = mesh.pipeline().broadcast(
          make_tensor(chosen_.data(), static_cast<int64_t>(chosen_.size()), 1), last);
      mesh.pipeline().wait(request, "tokens from the last stage");
    }
    std::size_t still_open = 0;
    for (std::size_t i = 0; i < open_.size(); ++i) {
      const Sequence s = open_[i];
      const auto& stop = config_.stop_tokens;
      if (std::find(stop.begin(), stop.end(), chosen_[i]) != stop.end()) continue;
      s.written->push_back(chosen_[i]);
      if (static_cast<int64_t>(s.written->size()) < config_.max_tokens) open_[still_open++] = s;
    }
    open_.resize(still_open);
  }

  train::Engine& engine_;
  Stream& stream_;
  const model::ModelConfig& model_;
  const GenerationConfig& config_;
  std::vector<Sequence> open_;  ///< in the order of prompts
  Tokens chosen_;               ///< the next token of each open sequence
  Tokens places_;
  std::vector<data::Sample> samples_;
  data::MicroBatch prompts_batch_, step_;
  std::vector<Sampler> samplers_;  ///< by row; where the head is, like the next two
  Buffer logits_memory_;           ///< (places, V)
  std::vector<float> logits_;      ///< the same on the host
};

void check_prompts(const train::Engine& engine, const model::ModelConfig& model,
                   std::span<const Tokens> prompts, const GenerationConfig& config) {
  validate(config.sampling);
  RED_CHECK(config.max_tokens > 0, "{} new tokens", config.max_tokens);
  const model::CacheShape& cache = engine.cache();
  RED_CHECK(cache.sequences > 0, "the engine was built without a key-value cache");
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto length = static_cast<int64_t>(prompts[i].size());
    RED_CHECK(length > 0, "prompt {} is empty", i);
    const model::CacheShape needed = cache_for(model, {1, length, config.max_tokens});
    RED_CHECK(needed.decoder_positions <= cache.decoder_positions &&
                  needed.encoder_positions <= cache.encoder_positions,
              "prompt {}: {} tokens and {} new ones in a cache of {} + {} positions", i, length,
              config.max_tokens, cache.encoder_positions, cache.decoder_positions);
  }
}

/// Each data rank has the tokens of its own prompts; all get all.
void share(const parallel::Mesh& mesh, Generation& result) {
  const auto reduce = [&](parallel::Communicator& ranks, const Tensor& x, parallel::ReduceOp op) {
    parallel::Request request = ranks.all_reduce(x, op);
    ranks.wait(request, "generated tokens of the other data ranks");
  };
  double seconds[2] = {result.prefill_s, result.decode_s};
  reduce(mesh.world(), make_tensor(seconds, 2, 1), parallel::ReduceOp::max);
  result.prefill_s = seconds[0];
  result.decode_s = seconds[1];
  if (mesh.layout().data == 1 || result.tokens.empty()) return;
  const auto count = static_cast<int64_t>(result.tokens.size());
  Tokens lengths;
  for (const Tokens& tokens : result.tokens) lengths.push_back(static_cast<int32_t>(tokens.size()));
  reduce(mesh.data(), make_tensor(lengths.data(), count, 1), parallel::ReduceOp::sum);
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  if (longest == 0) return;
  Tokens all(static_cast<std::size_t>(count * longest), 0);
  for (int64_t i = 0; i < count; ++i)
    std::copy(result.tokens[i].begin(), result.tokens[i].end(), all.begin() + i * longest);
  reduce(mesh.data(), make_tensor(all.data(), count, longest), parallel::ReduceOp::sum);
  for (int64_t i = 0; i < count; ++i)
    result.tokens[i].assign(all.begin() + i * longest, all.begin() + i * longest + lengths[i]);
}

}  // namespace

model::CacheShape cache_for(const model::ModelConfig& model, const GenerationRoom& room) {
  // The start token goes in, the last new token does not.
  if (model.has_encoder()) return {room.sequences, room.max_tokens, room.longest_prompt};
  return {room.sequences, room.longest_prompt + room.max_tokens, 0};
}

train::EngineOptions generation_options(const config::RunConfig& config, const GenerationRoom& room) {
  const model::CacheShape cache = cache_for(config.model, room);
  train::EngineOptions options = train::evaluation_options(
      config, {cache.encoder_positions, cache.decoder_positions}, room.sequences, 1);
  options.cache = cache;
  const auto tokens = [&](int64_t longest) {
    return std::max({longest, std::min(room.sequences * longest, kPrefillTokens), room.sequences});
  };
  const bool has_encoder = config.model.has_encoder();
  options.capacity = {room.sequences, has_encoder ? tokens(room.longest_prompt) : 0,
                      has_encoder ? room.sequences : tokens(1 + room.longest_prompt)};
  return options;
}

Generation generate(train::Engine& engine, Stream& stream, const model::ModelConfig& model,
                    std::span<const Tokens> prompts, const GenerationConfig& config) {
  check_prompts(engine, model, prompts, config);
  const parallel::Mesh& mesh = engine.mesh();
  Generation result;
  result.tokens.resize(prompts.size());
  const auto data = static_cast<std::size_t>(mesh.layout().data),
             at = static_cast<std::size_t>(mesh.at().data);
  const std::size_t begin = prompts.size() * at / data, end = prompts.size() * (at + 1) / data;
  const auto places = static_cast<std::size_t>(engine.cache().sequences);
  Generator generator(engine, stream, model, config);
  for (std::size_t first = begin; first < end; first += places) {
    const std::size_t count = std::min(places, end - first);
    generator.run(prompts, first, count, result);
    for (std::size_t i = first; i < first + count; ++i) result.tokens[i].shrink_to_fit();
  }
  share(mesh, result);
  for (const Tokens& prompt : prompts) result.prompt_tokens += static_cast<int64_t>(prompt.size());
  for (const Tokens& tokens : result.tokens)
    result.decoded_tokens += std::max<int64_t>(0, static_cast<int64_t>(tokens.size()) - 1);
  return result;
}

}  // namespace red::eval
