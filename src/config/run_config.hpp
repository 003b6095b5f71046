// Everything a run is told, as one value: the sections of its INI files, defaults filled in, checked.
#pragma once

#include <filesystem>
#include <string>

#include "data/data_config.hpp"
#include "device/stream.hpp"
#include "model/model_config.hpp"
#include "model/precision.hpp"
#include "model/recompute.hpp"
#include "optim/optimizer_config.hpp"
#include "parallel/layout.hpp"
#include "parallel/placement.hpp"
#include "parallel/schedule.hpp"
#include "parallel/transport.hpp"

namespace red::config {

/// Section [train].
struct TrainConfig {
  int64_t steps = 0;         ///< optimizer steps of the whole run
  int64_t global_batch = 0;  ///< sequences per step, over all ranks
  int64_t micro_batch = 0;   ///< sequences per forward pass of one data rank
  double z_loss = 1e-4;
  int64_t log_every = 1;             ///< steps between progress lines and metrics
  int64_t straggler_every = 20;      ///< steps of a window in which ranks are compared; 0: they are not
  int64_t trace_step = 0;            ///< first step of a trace into run_dir; 0: none is written
  int64_t trace_steps = 2;           ///< steps of it
  int64_t validate_every = 0;        ///< steps between validations; 0: none
  int64_t validation_windows = 256;  ///< of each source, from the beginning of its held-out text; 0: all
  int64_t max_skipped_steps = 10;    ///< steps with NaN or Inf in a row before the run ends
  double spike_threshold = 0.0;  ///< of a loss, in spreads above the median of those before; 0: none is high
  int64_t spike_window = 128;    ///< losses of these
  int64_t spike_steps = 3;       ///< high losses in a row that make the run go back
  int64_t spike_back = 100;      ///< steps before them whose samples are left out too
  int64_t max_returns = 10;      ///< of the whole run
  int threads = 0;               ///< per rank; 0: cores of the rank's binding divided by ranks sharing it
  int64_t head_chunk = 512;      ///< tokens whose logits are in memory at a time
  model::Precision precision = model::Precision::automatic;
  model::Recompute recompute = model::Recompute::none;
  int64_t recompute_layers = 0;        ///< of each stack of a stage, from the first; 0: all
  double dropout = 0.0;                ///< share of elements that are dropped
  int64_t bucket_mib = 32;             ///< gradient reduce-scatter bucket
  DType gradient_dtype = DType::fp32;  ///< of that, on the way
  double timeout_s = 600;      ///< a wait for another rank, or one computation, ends the run after this
  double io_timeout_s = 1800;  ///< so does one call that waits for a disk
  AttentionChoice attention = AttentionChoice::own;
  std::string gemm = "auto";      ///< auto, openblas, onednn, plain, tf32
  bool deterministic = false;     ///< nothing is chosen by how fast it is
  std::filesystem::path run_dir;  ///< metrics, configuration and checkpoints of the run
};

/// Section [checkpoint].
struct CheckpointConfig {
  int64_t every = 0;            ///< steps between saves; 0: at the end alone
  std::string resume = "auto";  ///< auto: newest if there is one; must; never; or a checkpoint folder
  /// Checkpoint or run whose parameters a new run begins with; empty: initial ones.
  std::filesystem::path initialize_from;
  bool keep_optimizer_state = true;  ///< of initialize_from; key checkpoint.optimizer_state
  bool async = true;                 ///< written behind training, from a copy
  int64_t max_failures = 3;          ///< saves in a row that fail before the run ends
  int64_t keep_last = 0;             ///< newest checkpoints that stay; 0: all
  int64_t keep_every = 0;            ///< and those of every so many steps; 0: none of them
  int64_t keep_best = 0;             ///< and so many with the lowest validation loss
};

/// Section [bench].
struct BenchConfig {
  int64_t steps = 5;  ///< measured
  int64_t warmup_steps = 2;
};

struct RunConfig {
  model::ModelConfig model;
  parallel::Layout parallel;
  parallel::LayerSplit split;  ///< keys parallel.encoder_split and decoder_split
  parallel::PipelineSchedule pipeline_schedule =
      parallel::PipelineSchedule::one_forward_one_backward;  ///< key parallel.schedule
  int virtual_stages = 0;                ///< key parallel.virtual_stages; 0: what the schedule wants
  parallel::TransportOptions transport;  ///< keys parallel.transport, overlap, check_collectives

  /// Chunks of layers on each stage.
  int num_chunks() const {
    if (virtual_stages != 0) return virtual_stages;
    return pipeline_schedule == parallel::PipelineSchedule::interleaved ? 2 : 1;
  }
  TrainConfig train;
  optim::AdafactorConfig optimizer;
  optim::ScheduleConfig schedule;
  data::DataConfig data;
  CheckpointConfig checkpoint;
  BenchConfig bench;
};

}  // namespace red::config
