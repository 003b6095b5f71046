// Gradients and weights made of small whole numbers, so that sums over ranks are exact in fp32 whatever
// their order, and say where they came from.
#pragma once

#include <cstdint>

#include "device/tensor.hpp"
#include "optim/parameter_shards.hpp"

namespace red::optim {

/// Of element `index` (row-major, global) of the parameter of this name: 1 ... 13.
inline double element_value(const model::ParameterSpec& spec, int64_t index) {
  return static_cast<double>(1 + (index * 7 + static_cast<int64_t>(spec.name.size()) * 3) % 13);
}

/// value(index) for every element of rows first_row ... of a parameter.
template <class Value>
void fill(const Tensor& part, int64_t first_row, Value value) {
  for (int64_t i = 0; i < part.rows; ++i) {
    float* row = part.row_range(i, 1).as<float>();
    for (int64_t j = 0; j < part.cols; ++j)
      row[j] = static_cast<float>(value((first_row + i) * part.cols + j));
  }
}

/// How many elements of rows first_row ... differ from value(index).
template <class Value>
int64_t num_wrong(const Tensor& part, int64_t first_row, Value value) {
  int64_t wrong = 0;
  for (int64_t i = 0; i < part.rows; ++i) {
    const float* row = part.row_range(i, 1).as<float>();
    for (int64_t j = 0; j < part.cols; ++j) {
      if (static_cast<double>(row[j]) != value((first_row + i) * part.cols + j)) ++wrong;
    }
  }
  return wrong;
}

inline double sum_of_squares(const Tensor& part) {
  double sum = 0.0;
  for (int64_t i = 0; i < part.rows; ++i) {
    const float* row = part.row_range(i, 1).as<float>();
    for (int64_t j = 0; j < part.cols; ++j) sum += static_cast<double>(row[j]) * row[j];
  }
  return sum;
}

}  // namespace red::optim
