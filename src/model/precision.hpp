// In what numbers a run computes (key train.precision). With bf16 matrices and activations are bf16; sums,
// softmax, norms, loss, gradients of parameters, optimizer state and the weights that it updates stay fp32.
#pragma once

#include <array>
#include <string_view>

#include "base/dtype.hpp"

namespace red::model {

enum class Precision {
  automatic,  ///< bf16 where every rank's CPU has bf16 arithmetic, fp32 elsewhere
  fp32,
  bf16,
};

constexpr std::string_view name_of(Precision precision) {
  return std::array<std::string_view, 3>{"auto", "fp32", "bf16"}[static_cast<std::size_t>(precision)];
}

}  // namespace red::model
