#include "convert/huggingface_config.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "config/option_table.hpp"
#include "config/parse.hpp"
#include "config/print.hpp"
#include "data/file_io.hpp"

namespace red::convert {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

/// Keys of [model] as config.json has them, in its order. model.kind is the model type, model.name and
/// init_seed stay behind: they are of the run.
const std::vector<const char*>& model_keys(bool has_encoder) {
  static const std::vector<const char*> dec = {"vocab_size", "d_model",        "d_ff",      "num_heads",
                                               "head_dim",   "decoder_layers", "rope_base", "norm_epsilon"};
  static const std::vector<const char*> red = [] {
    std::vector<const char*> keys = dec;
    keys.insert(keys.end(), {"encoder_layers", "attention_output_norm", "continuous_positions"});
    return keys;
  }();
  return has_encoder ? red : dec;
}

/// What an evaluation must know besides, below "redllm" in config.json: how a sample looked, how the model
/// computes.
struct RunKey {
  const char* section;
  const char* key;
};
constexpr std::array kRunKeys = {RunKey{"data", "samples"},
                                 RunKey{"data", "window"},
                                 RunKey{"data", "input_length"},
                                 RunKey{"data", "target_length"},
                                 RunKey{"data", "end_input"},
                                 RunKey{"data", "document_mask"},
                                 RunKey{"data", "bidirectional_input"},
                                 RunKey{"train", "precision"}};

const config::RunOption& option_of(const std::string& section, const std::string& key) {
  for (const config::RunOption& option : config::run_options()) {
    if (option.section == section && option.key == key) return option;
  }
  throw LogicError("no configuration key {}.{}", section, key);
}

/// As JSON has it: numbers and truth values are not texts.
ordered_json value_of(const config::RunOption& option, const config::RunConfig& config) {
  const std::string text = option.get(config);
  if (option.type == "yes or no") return text == "yes";
  if (option.type == "integer" || option.type == "number") return ordered_json::parse(text);
  return text;
}

/// A JSON value as an INI file would spell it.
std::string text_of(const json& value, const std::string& what) {
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number()) return value.dump();
  throw DataError("{}: is neither a number nor a text nor a truth value", what);
}

std::string text_at(const json& content, const char* key, const std::string& file) {
  const auto found = content.find(key);
  if (found == content.end() || !found->is_string()) throw DataError("{}: needs a text \"{}\"", file, key);
  return found->get<std::string>();
}

/// model.KEY = value, and what is told of the run.
std::vector<std::pair<std::string, std::string>> values_of(const json& content, bool has_encoder,
                                                           const std::string& file) {
  std::vector<std::pair<std::string, std::string>> values = {{"model.kind", has_encoder ? "red" : "dec"}};
  for (const char* key : model_keys(has_encoder)) {
    if (!content.contains(key)) throw DataError("{}: \"{}\" is missing", file, key);
    values.emplace_back(fmt::format("model.{}", key),
                        text_of(content[key], fmt::format("{}: \"{}\"", file, key)));
  }
  const json run = content.value("redllm", json::object());
  for (const RunKey& of : kRunKeys) {
    if (run.is_object() && run.contains(of.key))
      values.emplace_back(fmt::format("{}.{}", of.section, of.key),
                          text_of(run[of.key], fmt::format("{}: \"{}\"", file, of.key)));
  }
  return values;
}

}  // namespace

int64_t trained_length(const config::RunConfig& config) {
  const data::DataConfig& data = config.data;
  if (data.samples == data::SampleKind::windows)
    return config.model.has_encoder() ? data.window / 2 : data.window;
  return config.model.has_encoder() ? std::max(data.input_length, data.target_length)
                                    : data.input_length + data.target_length;
}

std::string huggingface_config(const config::RunConfig& config, const data::SpecialIds& ids, DType dtype,
                               const ExportOrigin& origin) {
  const bool has_encoder = config.model.has_encoder();
  ordered_json out;
  out["model_type"] = has_encoder ? "redllm" : "decllm";
  const std::string model_class = has_encoder ? "RedLLMForConditionalGeneration" : "DecLLMForCausalLM";
  out["architectures"] = ordered_json::array({model_class});
  out["auto_map"]["AutoConfig"] =
      std::string("configuration_redllm.") + (has_encoder ? "RedLLMConfig" : "DecLLMConfig");
  out["auto_map"][has_encoder ? "AutoModelForSeq2SeqLM" : "AutoModelForCausalLM"] =
      "modeling_redllm." + model_class;
  for (const char* key : model_keys(has_encoder)) out[key] = value_of(option_of("model", key), config);
  if (!has_encoder) out["bidirectional_input"] = config.data.bidirectional_input;
  out["max_position_embeddings"] = trained_length(config);
  out["is_encoder_decoder"] = has_encoder;
  out["tie_word_embeddings"] = true;
  out["use_cache"] = true;
  out["pad_token_id"] = ids.pad;
  out["bos_token_id"] = ids.bos;
  out["eos_token_id"] = {ids.eos, ids.eod};
  if (has_encoder) out["decoder_start_token_id"] = ids.bos;
  out["dtype"] = dtype == DType::bf16 ? "bfloat16" : "float32";
  for (const RunKey& of : kRunKeys) out["redllm"][of.key] = value_of(option_of(of.section, of.key), config);
  out["redllm"]["step"] = origin.step;
  out["redllm"]["tokenizer_sha256"] = origin.tokenizer_sha256;
  return out.dump(2) + "\n";
}

std::string huggingface_generation_config(const data::SpecialIds& ids, bool has_encoder) {
  ordered_json out = {
      {"bos_token_id", ids.bos}, {"eos_token_id", {ids.eos, ids.eod}}, {"pad_token_id", ids.pad}};
  if (has_encoder) out["decoder_start_token_id"] = ids.bos;
  return out.dump(2) + "\n";
}

ImportedConfig read_huggingface_config(const std::filesystem::path& path, const std::string& tokenizer) {
  const std::string file = path.string();
  std::error_code failed;
  if (!std::filesystem::exists(path, failed) && !failed)
    throw DataError("{}: is missing; give the folder of a model that redllm or Transformers wrote", file);
  const json content = json::parse(data::read_whole(path), nullptr, false);
  if (!content.is_object()) throw DataError("{}: is no JSON object", file);
  const std::string type = text_at(content, "model_type", file);
  if (type != "redllm" && type != "decllm")
    throw DataError("{}: is of model type \"{}\"; only redllm and decllm can become checkpoints", file, type);
  if (!content.value("tie_word_embeddings", json(true)).is_boolean() ||
      !content.value("tie_word_embeddings", json(true)).get<bool>())
    throw DataError(
        "{}: \"tie_word_embeddings\" is not true; these models have one matrix for input and output", file);
  ImportedConfig imported;
  config::Sources sources;
  sources.overrides = values_of(content, type == "redllm", file);
  if (!tokenizer.empty()) sources.overrides.emplace_back("data.tokenizer", tokenizer);
  try {
    const config::Loaded loaded = config::load(sources);
    imported.model = loaded.config.model;
    model::validate(imported.model);
    imported.configuration = config::print_effective(loaded);
  } catch (const ConfigError& error) {
    throw DataError("{}: {}", file, error.what());
  }
  const json run = content.value("redllm", json::object());
  if (!run.is_object()) return imported;
  const json step = run.value("step", json(0)), digest = run.value("tokenizer_sha256", json(""));
  if (!step.is_number_unsigned() || step.get<uint64_t>() > uint64_t{1} << 40 || !digest.is_string())
    throw DataError("{}: \"redllm\" needs a step of at least 0 and the tokenizer_sha256 as a text", file);
  imported.origin = {step.get<int64_t>(), digest.get<std::string>()};
  return imported;
}

}  // namespace red::convert
