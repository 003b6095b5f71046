// What NVIDIA states of its GPUs: dense peaks and memory, by the name a device gives itself. Model FLOPs are
// counted against these ("mfu"), and plans for a machine one does not have are made from them. No CUDA in it.
//
// Source of every number: NVIDIA's data sheet of that product (A100 of 2021, A30, A40, A10, L4, L40, L40S,
// H100, H200, GH200; B200 and GB200: "individual GPU" of the Blackwell data sheet). Where a sheet gives a
// rate of the tensor cores with sparsity only, it is halved: dense.
#pragma once

#include <span>
#include <string_view>

#include "base/dtype.hpp"
#include "device/gemm_library.hpp"

namespace red {

struct GpuSpecs {
  std::string_view name;    ///< as cudaDeviceProp.name and nvidia-smi give it
  double bf16_tflops;       ///< tensor cores, dense, sums in fp32
  double tf32_tflops;       ///< the same on fp32 matrices rounded to TF32
  double fp32_tflops;       ///< fp32 as it is: no tensor cores
  double memory_gb_per_s;   ///< 1e9 bytes
  double memory_gib;        ///< capacity on the sheet; what a program gets is a little less
  std::string_view others;  ///< further names, as `find_gpu_specs` compares them, between spaces
};

/// The GPU of that name: what a device calls itself ("NVIDIA H100 80GB HBM3") or a short name ("h100", which
/// is the SXM module; "h100-pcie"). Case, spaces, dashes and a leading "NVIDIA" do not matter, all else does:
/// a part of a GPU ("... MIG 1g.10gb") is not the GPU. nullptr: nothing is stated here for such a device.
const GpuSpecs* find_gpu_specs(std::string_view device_name);

/// GFLOP/s that products of bf16 or fp32 matrices can reach at most, fp32 in the way of `gemm`.
double stated_gflops(const GpuSpecs& specs, DType dtype, GemmChoice gemm);

/// All of them, for lists and messages.
std::span<const GpuSpecs> all_gpu_specs();

}  // namespace red
