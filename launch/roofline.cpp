#include "launch/roofline.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "launch/op_cases.hpp"
#include "model/cost_model.hpp"

namespace red::launch {

Roofline roofline_of(const config::RunConfig& config, const data::SampleLengths& lengths,
                     const GpuSpecs& specs) {
  const config::TrainConfig& train = config.train;
  const DType dtype = train.precision == model::Precision::bf16 ? DType::bf16 : DType::fp32;
  Roofline roofline;
  roofline.gpu = specs.name;
  const GemmChoice gemm = train.gemm == "tf32" ? GemmChoice::tf32 : GemmChoice::plain;
  roofline.peak_gflops = stated_gflops(specs, dtype, gemm);
  roofline.memory_gb_per_s = specs.memory_gb_per_s;
  const double num_micro_batches =
      static_cast<double>(train.global_batch) / static_cast<double>(train.micro_batch);
  for (const OpCase& op : op_cases(config, lengths)) {
    OpMemory counted;
    const OpWork work = op.build(counted);
    const double runs = num_micro_batches * op.per_micro_batch + op.per_step;
    const double products_s = work.flops / 1e9 / roofline.peak_gflops;
    const double memory_s = work.bytes / 1e9 / roofline.memory_gb_per_s;
    roofline.ops.push_back({op.name, op.shape, runs, runs * work.flops, runs * work.other_flops,
                            runs * work.bytes, runs * std::max(products_s, memory_s), products_s > memory_s});
    roofline.seconds += roofline.ops.back().seconds;
    roofline.flops += roofline.ops.back().flops;
    roofline.other_flops += roofline.ops.back().other_flops;
    roofline.bytes += roofline.ops.back().bytes;
  }
  roofline.model_flops =
      static_cast<double>(train.global_batch) *
      model::training_flops(config.model, model::work_of(lengths.encoder, lengths.decoder));
  return roofline;
}

void print_roofline(const Roofline& roofline, const config::RunConfig& config, int num_ranks) {
  fmt::print("\n{:<50} {:<39} {:>7} {:>11} {:>10} {:>9} {:>10} {:>9} {:>7}\n", "op, all its runs in a step",
             "shape", "runs", "products", "others", "GB", "bound by", "ms", "share");
  fmt::print("{:<98} {:>11} {:>10}\n", "", "GFLOP", "GFLOP");
  const auto gflop = [](double flops) { return flops > 0.0 ? fmt::format("{:.1f}", flops / 1e9) : "-"; };
  for (const RooflineOp& op : roofline.ops) {
    fmt::print("{:<50} {:<39} {:>7.0f} {:>11} {:>10} {:>9.3f} {:>10} {:>9.3f} {:>6.1f}%\n", op.name, op.shape,
               op.runs, gflop(op.flops), gflop(op.other_flops), op.bytes / 1e9,
               op.by_products ? "products" : "memory", 1e3 * op.seconds,
               100.0 * op.seconds / roofline.seconds);
  }
  const int64_t tokens =
      config.train.global_batch * (config.data.samples == data::SampleKind::windows
                                       ? config.data.window
                                       : config.data.input_length + config.data.target_length);
  fmt::print(
      "\nroofline     {} (stated: {:.0f} TFLOP/s in {}, {:.0f} GB/s): a step of {} samples takes {:.4g} s on "
      "one at "
      "least,\n"
      "             {:.4g} s on {}; {:.0f} tokens/s for each, {:.1f} % of the peak; {:.4g} TFLOP of "
      "products, "
      "of which the\n"
      "             model's are {:.4g}, {:.4g} TFLOP of other arithmetic, and {:.4g} GB; without "
      "communication, "
      "bubble and\n"
      "             whatever ops lose\n",
      roofline.gpu, roofline.peak_gflops / 1e3, name_of(config.train.precision), roofline.memory_gb_per_s,
      config.train.global_batch, roofline.seconds, roofline.seconds / num_ranks, num_ranks,
      static_cast<double>(tokens) / roofline.seconds, 100.0 * roofline.mfu(), roofline.flops / 1e12,
      roofline.model_flops / 1e12, roofline.other_flops / 1e12, roofline.bytes / 1e9);
}

nlohmann::ordered_json roofline_json(const Roofline& roofline) {
  nlohmann::ordered_json json = {{"gpu", roofline.gpu},
                                 {"peak_gflops_per_s", roofline.peak_gflops},
                                 {"memory_gb_per_s", roofline.memory_gb_per_s},
                                 {"step_s", roofline.seconds},
                                 {"flops", roofline.flops},
                                 {"model_flops", roofline.model_flops},
                                 {"other_flops", roofline.other_flops},
                                 {"bytes", roofline.bytes},
                                 {"mfu", roofline.mfu()}};
  for (const RooflineOp& op : roofline.ops) {
    json["ops"].push_back({{"op", op.name},
                           {"shape", op.shape},
                           {"runs", op.runs},
                           {"flops", op.flops},
                           {"other_flops", op.other_flops},
                           {"bytes", op.bytes},
                           {"bound_by", op.by_products ? "products" : "memory"},
                           {"s", op.seconds}});
  }
  return json;
}

}  // namespace red::launch
