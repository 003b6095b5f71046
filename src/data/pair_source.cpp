#include "data/pair_source.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/error.hpp"
#include "data/token_sidecar.hpp"

namespace red::data {
namespace {

void check_pairs(const TokenFile& file) {
  if (file.num_documents() == 0) throw DataError("{}: holds no pair", file.bin_path().string());
  for (int64_t document = 0; document < file.num_documents(); ++document) {
    const int64_t sequences = file.num_sequences_of(document);
    if (sequences == 2) continue;
    throw DataError(
        "{}.idx: document {} has {} sequences, a pair has two, inputs and targets; build it with `redllm "
        "data "
        "build --pairs`, or set data.samples = windows",
        file.prefix().string(), document, sequences);
  }
}

}  // namespace

PairShape pair_shape(const DataConfig& config, bool has_encoder) {
  if (config.document_mask)
    throw ConfigError(
        "data.document_mask = yes: a pair is one document, there is nothing to keep apart; leave it out with "
        "data.samples = pairs");
  if (config.missing_eod == MissingEod::add)
    throw ConfigError(
        "data.missing_eod = add: pairs are built with [EOD]; leave it out with data.samples = pairs");
  PairShape shape;
  shape.has_encoder = has_encoder;
  shape.bidirectional = !has_encoder && config.bidirectional_input;
  shape.end_input = config.end_input;
  shape.input_length = config.input_length;
  shape.target_length = config.target_length;
  return shape;
}

PairSource::PairSource(std::string name, TokenStream stream, const SpecialIds& ids, const PairShape& shape)
    : ItemSource(std::move(name), std::move(stream)), bos_(ids.bos), eos_(ids.eos), shape_(shape) {
  RED_CHECK(input_room() >= 1 && target_room() >= 1, "input length {}, target length {}", shape.input_length,
            shape.target_length);
  check_pairs(this->stream().file());
}

PairSource::Range PairSource::inputs(int64_t pair) const {
  const TokenFile& file = stream().file();
  const int64_t first = file.document_begin(pair);
  return {first, file.sequence_begin(2 * pair + 1) - first};
}

PairSource::Range PairSource::targets(int64_t pair) const {
  const TokenFile& file = stream().file();
  const int64_t first = file.sequence_begin(2 * pair + 1);
  return {first, std::max<int64_t>(0, file.document_begin(pair + 1) - 1 - first)};
}

void PairSource::append(const Range& range, int64_t at_most, std::vector<int32_t>& ids) const {
  const auto count = static_cast<std::size_t>(std::min(range.count, at_most));
  ids.resize(ids.size() + count);
  stream().read(range.first, std::span(ids).last(count));
}

void PairSource::cut(int64_t item, Sample& sample) const {
  RED_CHECK(item >= 0 && item < num_items(), "pair {} of {}", item, num_items());
  sample.clear();
  sample.source_item = static_cast<uint64_t>(item);
  std::vector<int32_t>& input = shape_.has_encoder ? sample.encoder_input : sample.decoder_target;
  append(inputs(item), input_room(), input);
  if (shape_.end_input) input.push_back(eos_);
  if (shape_.has_encoder && input.empty())
    throw DataError(
        "{}: pair {} has empty inputs, and with data.end_input = no its encoder would see nothing; set "
        "data.end_input = yes, or leave the pair out",
        stream().file().bin_path().string(), item);
  const auto num_inputs = static_cast<std::ptrdiff_t>(input.size());
  append(targets(item), target_room(), sample.decoder_target);
  sample.decoder_target.push_back(eos_);
  sample.decoder_input.push_back(bos_);
  sample.decoder_input.insert(sample.decoder_input.end(), sample.decoder_target.begin(),
                              sample.decoder_target.end() - 1);
  sample.loss_mask.assign(sample.decoder_target.size(), 1);
  if (shape_.has_encoder) return;
  std::fill_n(sample.loss_mask.begin(), num_inputs, uint8_t{0});
  // The start slot counts as input; the last input position predicts the first target.
  if (shape_.bidirectional) sample.prefix = static_cast<int32_t>(1 + num_inputs);
}

std::string PairSource::describe() const {
  int64_t long_inputs = 0, long_targets = 0;
  for (int64_t pair = 0; pair < num_items(); ++pair) {
    long_inputs += inputs(pair).count > input_room() ? 1 : 0;
    long_targets += targets(pair).count > target_room() ? 1 : 0;
  }
  return fmt::format("{} pairs, {} inputs cut to {}, {} targets cut to {}", num_items(), long_inputs,
                     shape_.input_length, long_targets, shape_.target_length);
}

std::unique_ptr<PairSource> open_pairs(const std::string& name, const std::filesystem::path& prefix,
                                       const SpecialIds& ids, const PairShape& shape) {
  const std::filesystem::path files = resolve_token_prefix(prefix);
  check_tokenizer(files, ids.tokenizer_sha256);
  return std::make_unique<PairSource>(name, TokenStream(TokenFile(files), ids, MissingEod::refuse), ids,
                                      shape);
}

}  // namespace red::data
