#include "config/option_table.hpp"

// FIELD(train.steps): the way to a field, for reading and for writing.
#define FIELD(member) ([](auto& config) -> auto& { return (config.member); })

namespace red::config {
namespace {

using RunSection = Section<RunConfig>;
using Int = Range<int64_t>;
using Real = Range<double>;

constexpr unsigned kEveryUse = kModelUse | kTrainUse | kBenchUse;
constexpr int64_t kMaxWidth = int64_t{1} << 20;

void add_model(std::vector<RunOption>& table) {
  using model::AttentionOutputNorm;
  using model::Kind;
  RunSection s("model", table);
  s.name("name", FIELD(model.name), "What reports call the model.");
  s.choice("kind", FIELD(model.kind), {{Kind::red, "red"}, {Kind::dec, "dec"}},
           "RedLLM (encoder-decoder) or DecLLM (decoder-only).")
      .aka({"type", "architecture"});
  s.number("vocab_size", FIELD(model.vocab_size), {.low = 1, .high = std::numeric_limits<int32_t>::max()},
           "Rows V of the embedding: as many as the tokenizer has pieces.")
      .in("tokens")
      .aka({"vocab", "vocabulary", "vocabulary_size"});
  s.number("d_model", FIELD(model.d_model), {.low = 1, .high = kMaxWidth}, "Model width d.")
      .needed(kEveryUse)
      .aka({"hidden_size", "n_embd", "width", "d"});
  s.number("d_ff", FIELD(model.d_ff), {.low = 1, .high = kMaxWidth},
           "Width f of the feed-forward blocks (SwiGLU).")
      .needed(kEveryUse)
      .aka({"ffn_hidden_size", "intermediate_size", "f"});
  s.number("num_heads", FIELD(model.num_heads), {.low = 1, .high = kMaxWidth}, "Attention heads h.")
      .needed(kEveryUse)
      .aka({"heads", "n_heads", "num_attention_heads"});
  s.number("head_dim", FIELD(model.head_dim), {.low = 2, .high = kMaxWidth},
           "Width d_h of one head; even, because rotary positions turn pairs.")
      .aka({"d_h", "d_head", "head_width"});
  s.number("encoder_layers", FIELD(model.encoder_layers), {.low = 0, .high = 4096},
           "Layers of the encoder: at least 1 for a RedLLM, 0 for a DecLLM.");
  s.number("decoder_layers", FIELD(model.decoder_layers), {.low = 1, .high = 4096}, "Layers of the decoder.")
      .needed(kEveryUse)
      .aka({"layers", "num_layers", "n_layers", "num_hidden_layers"});
  s.number("rope_base", FIELD(model.rope_base), {.low = 1.0}, "Base of the rotary positions' wavelengths.")
      .aka({"rope_theta", "rotary_base"});
  s.number("norm_epsilon", FIELD(model.norm_epsilon), {0.0, 1.0, true, true},
           "Added to the mean square inside every RMSNorm.")
      .aka({"rms_norm_eps", "layernorm_epsilon", "norm_eps"});
  s.choice("attention_output_norm", FIELD(model.attention_output_norm),
           {{AttentionOutputNorm::none, "none"},
            {AttentionOutputNorm::head, "head"},
            {AttentionOutputNorm::concat, "concat"},
            {AttentionOutputNorm::after_wo, "after_wo"}},
           "Where attention's result is normalised, without parameters: per head, over all heads before the "
           "output matrix, or after it. Of a RedLLM; a DecLLM has none.");
  s.boolean("continuous_positions", FIELD(model.continuous_positions),
            "Decoder positions begin after the sample's own encoder length instead of at 0.");
  s.number("init_seed", FIELD(model.init_seed), {}, "Seed of the initial parameters.").aka({"seed"});
}

void add_transport(RunSection& s) {
  using parallel::Transport;
  s.choice(
       "transport", FIELD(transport.transport),
       {{Transport::automatic, "auto"},
        {Transport::nccl, "nccl"},
        {Transport::cuda_aware, "cuda_aware"},
        {Transport::staged, "staged"}},
       "How ranks of redllm-cuda exchange GPU memory. auto: over NCCL where each has a GPU of its own, or "
       "cuda_aware in a program without NCCL where MPI says that it takes GPU memory; otherwise staged: over "
       "MPI, through host memory. The log says which.")
      .aka({"distributed_backend", "ddp_backend"});
  s.boolean("shared_memory", FIELD(transport.shared_memory),
            "Ranks of one machine add up and gather host memory through memory that they share; no: by MPI's "
            "messages, as between machines. The result is the same, bit for bit.");
  s.boolean("overlap", FIELD(transport.overlap),
            "Compute while gradients are summed over the data ranks and updated rows gathered. no: wait for "
            "each, and over NCCL for every collective. The result is the same.")
      .aka({"overlap_grad_reduce", "overlap_param_gather"});
  s.choice("check_collectives", FIELD(transport.check),
           {{parallel::CallCheck::automatic, "auto"},
            {parallel::CallCheck::yes, "yes"},
            {parallel::CallCheck::no, "no"}},
           "Compare once a step what collectives and messages all ranks have called: those that differ, or "
           "whose order on several communicators can make ranks wait in a circle, end the run with their "
           "names. auto: in Debug builds.");
}

void add_parallel(std::vector<RunOption>& table) {
  using parallel::PipelineSchedule;
  RunSection s("parallel", table);
  const Range<int> degree{.low = 1, .high = kMaxWidth};
  s.number("data", FIELD(parallel.data), degree, "Data-parallel replicas, over which gradients are summed.")
      .in("ranks")
      .aka({"dp", "data_parallel", "data_parallel_size"});
  s.number("tensor", FIELD(parallel.tensor), degree, "Ranks that share each layer's matrices.")
      .in("ranks")
      .aka({"tp", "tensor_parallel", "tensor_model_parallel_size"});
  s.number("encoder_stages", FIELD(parallel.encoder_stages), {.low = 0, .high = 4096},
           "Pipeline stages of the encoder; 0: it shares the decoder's stage, or there is none (DecLLM).")
      .in("stages")
      .aka({"encoder_pipeline", "pp_encoder"});
  s.number("decoder_stages", FIELD(parallel.decoder_stages), {.low = 1, .high = 4096},
           "Pipeline stages of the decoder.")
      .in("stages")
      .aka({"pp", "pipeline", "stages", "pipeline_model_parallel_size"});
  s.boolean("sequence_parallel", FIELD(parallel.sequence_parallel),
            "Between the tensor ranks' matrices, divide norms and residuals by tokens: less memory, the same "
            "result. Changes nothing with one tensor rank.")
      .aka({"sequence", "sp"});
  s.counts("encoder_split", FIELD(split.encoder),
           "Layers of each encoder stage in order, such as 5,7; empty: balanced by cost. With "
           "parallel.virtual_stages the first chunk of each stage, then the second, and so on.");
  s.counts("decoder_split", FIELD(split.decoder),
           "Layers of each decoder stage in order, likewise; empty: balanced by cost, the head included.");
  s.choice(
       "schedule", FIELD(pipeline_schedule),
       {{PipelineSchedule::one_forward_one_backward, "1f1b"},
        {PipelineSchedule::zero_bubble_h1, "zb_h1"},
        {PipelineSchedule::interleaved, "interleaved"}},
       "Order of work in the pipeline: one forward, one backward; or ZB-H1, which puts weight gradients "
       "into the time 1F1B waits, for more memory in all stages but the first; or 1F1B with several chunks "
       "of layers on each stage, which wait less and talk more. The result is the same.")
      .aka({"pipeline_schedule", "pipeline_parallel_schedule"});
  s.number("virtual_stages", FIELD(virtual_stages), {.low = 0, .high = 4096},
           "Chunks of layers on each stage, for parallel.schedule = interleaved, where 0 means 2; each needs "
           "a layer.")
      .in("chunks")
      .aka({"vpp", "virtual_pipeline_model_parallel_size"});
  add_transport(s);
}

void add_optimizer(std::vector<RunOption>& table) {
  RunSection s("optimizer", table);
  s.boolean("factored", FIELD(optimizer.factored),
            "Second moments as row and column means instead of one per element.");
  s.number("min_dim_to_factor", FIELD(optimizer.min_dim_to_factor), {.low = 1},
           "Both dims must be at least this for factored moments.")
      .in("elements");
  s.number("decay", FIELD(optimizer.decay), {0.0, 1.0, true, false},
           "Exponent of the second moments' decay: b = 1 - t^-decay.")
      .aka({"decay_rate", "beta2", "beta2_decay"});
  s.number("clip_threshold", FIELD(optimizer.clip_threshold), {.low = 0.0, .above_low = true},
           "Largest RMS of one tensor's update before the rate.");
  s.number("epsilon1", FIELD(optimizer.epsilon1), {.low = 0.0, .above_low = true},
           "Added to squared gradients.")
      .aka({"eps", "epsilon", "eps1"});
  s.number("epsilon2", FIELD(optimizer.epsilon2), {.low = 0.0, .above_low = true},
           "Smallest parameter RMS that scales an update.")
      .aka({"eps2"});
  s.number("gradient_clip", FIELD(optimizer.gradient_clip), {.low = 0.0},
           "Largest global norm of the gradient; 0: no clipping.")
      .aka({"clip_grad", "max_grad_norm", "grad_clip"});
}

void add_schedule(std::vector<RunOption>& table) {
  using optim::ScheduleKind;
  RunSection s("schedule", table);
  s.choice("kind", FIELD(schedule.kind),
           {{ScheduleKind::cosine, "cosine"}, {ScheduleKind::constant, "constant"}},
           "Course of the learning rate after the warm-up.")
      .aka({"lr_scheduler_type", "lr_decay_style"});
  s.number("peak", FIELD(schedule.peak), {.low = 0.0, .high = 1e6, .above_low = true},
           "Learning rate at the end of the warm-up.")
      .aka({"lr", "learning_rate", "max_lr"});
  s.number("warmup_steps", FIELD(schedule.warmup_steps), {.low = 0},
           "Steps over which the rate rises linearly from 0.")
      .in("steps")
      .aka({"warmup", "lr_warmup_iters"});
  s.number("total_steps", FIELD(schedule.total_steps), {.low = 0},
           "Step at which the cosine reaches its end; 0: train.steps.")
      .in("steps")
      .aka({"decay_steps", "lr_decay_iters"});
  s.number("final_fraction", FIELD(schedule.final_fraction), {.low = 0.0, .high = 1.0},
           "Rate at the cosine's end, as a share of the peak.")
      .aka({"min_lr_ratio", "min_lr"});
}

void add_rest(std::vector<RunOption>& table) {
  RunSection checkpoint("checkpoint", table);
  checkpoint.number("every", FIELD(checkpoint.every), {.low = 0}, "Steps between saves; 0: at the end alone.")
      .in("steps")
      .aka({"save_interval", "interval", "save_steps"});
  checkpoint
      .path("resume", FIELD(checkpoint.resume),
            "auto: go on from the run's newest checkpoint if there is one; must: there has to be one; never: "
            "begin anew; or the folder of a checkpoint, whose newer ones the run then calls off.")
      .aka({"load", "resume_from"});
  checkpoint
      .path("initialize_from", FIELD(checkpoint.initialize_from),
            "A checkpoint, or a run's folder (its newest), whose parameters a new run begins with at step 0, "
            "on its "
            "own data; a run that has checkpoints goes on from those. Empty: initial parameters.")
      .aka({"pretrained", "finetune", "init_from", "init_checkpoint"});
  checkpoint.choice(
      "optimizer_state", FIELD(checkpoint.keep_optimizer_state), {{true, "continue"}, {false, "reset"}},
      "With checkpoint.initialize_from: go on with its second moments and the count of its updates, or "
      "begin them anew.");
  checkpoint
      .choice(
          "async", FIELD(checkpoint.async), {{true, "on"}, {false, "off"}},
          "on: what is saved is copied in memory, and written while training goes on; off: steps wait until "
          "it is on the disk. The bytes are the same.")
      .aka({"async_save", "async_mode", "use_async"});
  checkpoint
      .number("max_failures", FIELD(checkpoint.max_failures), {.low = 1, .high = 1000000},
              "Saves that fail in a row before the run ends, with exit code 7.")
      .in("saves");
  checkpoint
      .number(
          "keep_last", FIELD(checkpoint.keep_last), {.low = 0, .high = 1000000},
          "The newest so many checkpoints stay, older ones are deleted but for those of the next two keys; "
          "0: all stay.")
      .in("checkpoints")
      .aka({"save_total_limit", "keep_latest_k", "max_to_keep"});
  checkpoint
      .number("keep_every", FIELD(checkpoint.keep_every), {.low = 0},
              "Checkpoints of every so many steps stay for ever; 0: none does for that.")
      .in("steps");
  checkpoint
      .number("keep_best", FIELD(checkpoint.keep_best), {.low = 0, .high = 1000000},
              "So many checkpoints with the lowest validation loss stay, of those saved after a step with "
              "validation (train.validate_every).")
      .in("checkpoints");
  RunSection bench("bench", table);
  bench.number("steps", FIELD(bench.steps), {.low = 1, .high = 1000000}, "Steps that are measured.")
      .in("steps");
  bench
      .number("warmup_steps", FIELD(bench.warmup_steps), {.low = 0, .high = 1000000},
              "Steps before the measured ones.")
      .in("steps")
      .aka({"warmup"});
}

}  // namespace

const std::vector<RunOption>& run_options() {
  static const std::vector<RunOption> table = [] {
    std::vector<RunOption> rows;
    add_model(rows);
    add_parallel(rows);
    add_train_options(rows);
    add_optimizer(rows);
    add_schedule(rows);
    add_data_options(rows);
    add_rest(rows);
    return rows;
  }();
  return table;
}

}  // namespace red::config
