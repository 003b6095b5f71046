// The least time that a training step can take on a GPU of stated peaks: each op at the faster of what its
// products and what its bytes allow (the roofline model of Williams, Waterman and Patterson, 2009), one after
// another, without communication and without idle stages. Other arithmetic bounds no op: outside of
// attention none has 2 FLOPs a byte of it, and these GPUs do 9 and more in fp32 while they read one;
// attention has 5 a score beside many more in its products.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "config/run_config.hpp"
#include "data/sample.hpp"
#include "device/gpu_specs.hpp"

namespace red::launch {

/// One op, all its runs in a step together.
struct RooflineOp {
  std::string name, shape;
  double runs = 0.0, flops = 0.0, other_flops = 0.0, bytes = 0.0;  ///< as OpWork counts them
  double seconds = 0.0;                                            ///< at least
  bool by_products = false;                                        ///< what bounds it; otherwise memory
};

struct Roofline {
  std::string_view gpu;
  std::vector<RooflineOp> ops;
  double peak_gflops = 0.0, memory_gb_per_s = 0.0;     ///< stated
  double seconds = 0.0;                                ///< sum over the ops
  double flops = 0.0, other_flops = 0.0, bytes = 0.0;  ///< likewise
  double model_flops = 0.0;  ///< by docs/flops.md, of windows or pairs of full length

  /// Share of the peak that model FLOPs reach at best.
  double mfu() const { return model_flops / 1e9 / seconds / peak_gflops; }
};

/// Of all micro-batches of a step on one GPU that does what all ranks do (op_cases.hpp); R of them take 1/R
/// of it at best.
Roofline roofline_of(const config::RunConfig& config, const data::SampleLengths& lengths,
                     const GpuSpecs& specs);

/// Every op and the sum, with what `num_ranks` such GPUs could do at best.
void print_roofline(const Roofline& roofline, const config::RunConfig& config, int num_ranks);
nlohmann::ordered_json roofline_json(const Roofline& roofline);

}  // namespace red::launch
