// The keys of [data], and of one [data.source.NAME].
#include "config/option_table.hpp"

#define FIELD(member) ([](auto& config) -> auto& { return (config.member); })

namespace red::config {

void add_data_options(std::vector<RunOption>& table) {
  using data::MissingEod;
  using data::SampleKind;
  Section<RunConfig> s("data", table);
  s.path("tokenizer", FIELD(data.tokenizer), "SentencePiece model that the token files were made with.")
      .needed(kTrainUse)
      .aka({"tokenizer_model", "tokenizer_path", "vocab_file"});
  s.choice("samples", FIELD(data.samples), {{SampleKind::windows, "windows"}, {SampleKind::pairs, "pairs"}},
           "What a sample is: a window of text, or a pair of inputs and targets with the loss on the targets "
           "(redllm data build --pairs).")
      .aka({"objective", "task"});
  s.number("input_length", FIELD(data.input_length), {.low = 2, .high = int64_t{1} << 24},
           "Longest inputs of a pair; of longer ones the beginning is kept.")
      .in("tokens")
      .aka({"max_source_length", "max_input_length", "encoder_seq_length"});
  s.number("target_length", FIELD(data.target_length), {.low = 2, .high = int64_t{1} << 24},
           "Longest targets of a pair, their </s> included; of longer ones the beginning is kept.")
      .in("tokens")
      .aka({"max_target_length", "decoder_seq_length"});
  s.boolean("end_input", FIELD(data.end_input), "The inputs of a pair end with </s>, as its targets do.")
      .aka({"add_eos"});
  s.number("window", FIELD(data.window), {.low = 2, .high = int64_t{1} << 24},
           "Tokens of one window cut from the documents; a RedLLM's encoder sees the first half.")
      .in("tokens")
      .aka({"seq_len", "seq_length", "sequence_length", "context_length", "block_size"});
  s.boolean("document_mask", FIELD(data.document_mask), "Attention stays inside a document.")
      .aka({"reset_attention_mask"});
  s.boolean("bidirectional_input", FIELD(data.bidirectional_input),
            "DecLLM alone: the first half of the window, or the inputs of a pair, are input whose tokens all "
            "see each other.")
      .aka({"biattn", "prefix_lm"});
  s.choice("missing_eod", FIELD(data.missing_eod), {{MissingEod::refuse, "refuse"}, {MissingEod::add, "add"}},
           "Token files whose documents do not end with [EOD]: refuse them, or add it while reading.");
  s.number("seed", FIELD(data.seed), {}, "Seed of the order of samples.");
  s.samples(
       "skip_samples", FIELD(data.skip_samples),
       "Samples that training passes over, by global index (redllm inspect samples); may change when a run "
       "goes on. What the run itself left out is left out as well.")
      .in("samples")
      .aka({"skip_batches", "skip_data", "exclude_samples"});
  s.number("block", FIELD(data.block), {.low = 1, .high = int64_t{1} << 24},
           "Samples within which every source has its exact share.")
      .in("samples");
}

const std::vector<SourceOption>& source_options() {
  static const std::vector<SourceOption> table = [] {
    std::vector<SourceOption> rows;
    Section<data::SourceConfig> s("data.source.NAME", rows);
    s.path("tokens", FIELD(tokens),
           "Token files: PREFIX.bin and PREFIX.idx; \"_text_document\" is added where needed.")
        .needed(kTrainUse)
        .aka({"path", "data_path", "file", "prefix"});
    s.path("held_out", FIELD(held_out), "The same for held-out text; empty: none.")
        .aka({"valid", "validation"});
    s.number("weight", FIELD(weight), {.low = 0.0, .high = 1e12, .above_low = true},
             "Share of the mixture, relative to the other sources' weights.")
        .aka({"share"});
    return rows;
  }();
  return table;
}

}  // namespace red::config
