// The keys of [train].
#include "config/option_table.hpp"

#define FIELD(member) ([](auto& config) -> auto& { return (config.member); })

namespace red::config {
namespace {

using RunSection = Section<RunConfig>;

/// What a step is.
void add_steps(RunSection& s) {
  s.number("steps", FIELD(train.steps), {.low = 1, .high = int64_t{1} << 40},
           "Optimizer steps of the whole run, those before a resume included.")
      .in("steps")
      .needed(kTrainUse)
      .aka({"max_steps", "train_iters", "iterations"});
  s.number("global_batch", FIELD(train.global_batch), {.low = 1, .high = int64_t{1} << 31},
           "Sequences of one step, over all ranks; a multiple of micro_batch x parallel.data.")
      .in("sequences")
      .needed(kTrainUse | kBenchUse)
      .aka({"batch_size", "global_batch_size", "batch"});
  s.number("micro_batch", FIELD(train.micro_batch), {.low = 1, .high = int64_t{1} << 20},
           "Sequences of one forward pass of one replica; memory decides, the result stays the same.")
      .in("sequences")
      .needed(kTrainUse | kBenchUse)
      .aka({"micro_batch_size", "microbatch"});
  s.number("z_loss", FIELD(train.z_loss), {.low = 0.0, .high = 1.0},
           "Weight z of (log Z)^2 in the loss; 0: none.");
  s.number("dropout", FIELD(train.dropout), {.low = 0.0, .high = 0.999},
           "Share of elements dropped from embeddings, each residual branch, the feed-forward blocks' hidden "
           "activations and the final norms' results; the same ones in every layout.")
      .aka({"dropout_rate", "hidden_dropout"});
}

/// What is written down about it, and when.
void add_watching(RunSection& s) {
  s.number("log_every", FIELD(train.log_every), {.low = 1}, "Steps between lines of progress and metrics.")
      .in("steps")
      .aka({"log_interval"});
  s.number(
       "straggler_every", FIELD(train.straggler_every), {.low = 0, .high = 100000},
       "Steps over which the ranks' own times are compared, to name those that are 15 % slower than their "
       "peers; 0: they are not.")
      .in("steps");
  s.number("trace_step", FIELD(train.trace_step), {.low = 0, .high = int64_t{1} << 40},
           "First step of a trace of all ranks, run_dir/trace-step-N.json for ui.perfetto.dev; 0: none.")
      .in("steps");
  s.number("trace_steps", FIELD(train.trace_steps), {.low = 1, .high = 10000}, "Steps of that trace.")
      .in("steps");
  s.number(
       "validate_every", FIELD(train.validate_every), {.low = 0},
       "Steps between losses on held-out text ([data.source.NAME] held_out), one more at the end; 0: none.")
      .in("steps")
      .aka({"validation_interval", "val_interval", "eval_interval", "eval_every", "eval_steps"});
  s.number("validation_windows", FIELD(train.validation_windows), {.low = 0, .high = int64_t{1} << 40},
           "Windows or pairs of each source that validation takes, from the beginning of its held-out text; "
           "0: all.")
      .in("windows")
      .aka({"eval_iters", "eval_samples", "max_windows"});
}

/// What happens when losses are high, or not finite.
void add_guard(RunSection& s) {
  s.number("max_skipped_steps", FIELD(train.max_skipped_steps), {.low = 0},
           "Steps in a row with NaN or Inf that are skipped before the run ends.")
      .in("steps");
  s.number(
       "spike_threshold", FIELD(train.spike_threshold), {.low = 0.0, .high = 1e6},
       "Spreads (1.4826 x median distance from it) above the median of earlier losses from where a loss is "
       "high. After train.spike_steps of them, or too many steps with NaN or Inf, the run goes back to a "
       "checkpoint and leaves samples out; 0: it does not.")
      .aka({"loss_spike_threshold"});
  s.number("spike_window", FIELD(train.spike_window), {.low = 8, .high = 2048},
           "Losses that median and spread are of; before there are so many, none is high.")
      .in("steps");
  s.number("spike_steps", FIELD(train.spike_steps), {.low = 1, .high = 1000000},
           "Steps in a row whose loss is high.")
      .in("steps");
  s.number("spike_back", FIELD(train.spike_back), {.low = 0, .high = 1000000},
           "Steps before those whose samples are left out as well; the checkpoint is one from before them.")
      .in("steps");
  s.number("max_returns", FIELD(train.max_returns), {.low = 1, .high = 1000000},
           "How often a run goes back, over all its starts; once more ends it with exit code 5.");
}

/// Where the time and memory of a step go.
void add_memory(RunSection& s) {
  s.number("threads", FIELD(train.threads), {.low = 0, .high = 4096},
           "Threads of one rank; 0: the cores that it may run on, each divided by the ranks that may.")
      .in("threads");
  s.number("head_chunk", FIELD(train.head_chunk), {.low = 1, .high = int64_t{1} << 24},
           "Tokens whose logits are in memory at a time.")
      .in("tokens");
  s.choice(
       "precision", FIELD(train.precision),
       {{model::Precision::automatic, "auto"},
        {model::Precision::fp32, "fp32"},
        {model::Precision::bf16, "bf16"}},
       "Of matrix products and activations; weights, optimizer state and sums are fp32 in any case. auto: "
       "what the run's checkpoint was made with; in a new run bf16 where every rank has bf16 arithmetic.")
      .aka({"dtype", "bf16", "fp16", "mixed_precision"});
  s.choice("recompute", FIELD(train.recompute),
           {{model::Recompute::none, "none"},
            {model::Recompute::selective, "selective"},
            {model::Recompute::full, "full"}},
           "What the backward pass computes again instead of keeping it: nothing; the feed-forward blocks' "
           "first product; or all of a layer but its input.")
      .aka({"recompute_granularity", "activation_checkpointing", "remat", "gradient_checkpointing"});
  s.number(
       "recompute_layers", FIELD(train.recompute_layers), {.low = 0},
       "How many layers of each stack of a stage (or chunk), from the first, train.recompute is for; 0: all.")
      .in("layers")
      .aka({"recompute_num_layers"});
  s.number("bucket_mib", FIELD(train.bucket_mib), {.low = 1, .high = 65536},
           "Gradients that are reduced together.")
      .in("MiB")
      .aka({"bucket_cap_mb", "bucket_size"});
  s.choice(
       "gradient_dtype", FIELD(train.gradient_dtype), {{DType::fp32, "fp32"}, {DType::bf16, "bf16"}},
       "Of gradients on their way between data ranks. bf16 takes half the time and rounds each rank's part "
       "and the sum, which is added in fp32.")
      .aka({"grad_reduce_in_bf16", "communication_data_type", "grad_allreduce_dtype"});
}

void add_deadlines(RunSection& s) {
  s.number(
       "timeout_s", FIELD(train.timeout_s), {.low = 0.0, .high = 1e7, .above_low = true},
       "A wait for another rank that takes longer ends the run, and so does a step that stays as long at one "
       "point of its computation.")
      .in("seconds")
      .aka({"timeout", "nccl_timeout"});
  s.number("io_timeout_s", FIELD(train.io_timeout_s), {.low = 0.0, .high = 1e7, .above_low = true},
           "A read, write or sync of a file that takes longer ends the run, also behind training.")
      .in("seconds")
      .aka({"io_timeout"});
}

/// Who computes.
void add_libraries(RunSection& s) {
  s.choice(
      "gemm", FIELD(train.gemm),
      {{"auto", "auto"},
       {"openblas", "openblas"},
       {"onednn", "onednn"},
       {"plain", "plain"},
       {"tf32", "tf32"}},
      "Library of matrix products; auto: the fastest here that computes rightly, and in a resumed run the "
      "one it had. In generation, products of up to 16 rows have their own kernel. tf32 is for redllm-cuda, "
      "where auto multiplies fp32 exactly.");
  s.boolean(
       "deterministic", FIELD(train.deterministic),
       "Repeats of a run on the same ranks, threads and kind of machine have the same bits: libraries and "
       "algorithms of products are not chosen by measuring, which may come out differently each time. "
       "Somewhat slower.")
      .aka({"deterministic_mode", "use_deterministic_algorithms"});
  s.choice(
      "attention", FIELD(train.attention), {{AttentionChoice::own, "own"}, {AttentionChoice::cudnn, "cudnn"}},
      "Kernels of attention. cudnn: for redllm-cuda built with cuDNN, where it takes the shape (bf16, no "
      "document or prefix mask); it is tried against our own first, and repeats bit by bit only with "
      "train.deterministic = yes.");
}

}  // namespace

void add_train_options(std::vector<RunOption>& table) {
  RunSection s("train", table);
  add_steps(s);
  add_watching(s);
  add_guard(s);
  add_memory(s);
  add_deadlines(s);
  add_libraries(s);
  s.path("run_dir", FIELD(train.run_dir), "Folder of the run: metrics, effective configuration, checkpoints.")
      .needed(kTrainUse)
      .aka({"output_dir", "save", "save_dir", "out_dir"});
}

}  // namespace red::config
