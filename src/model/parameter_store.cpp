#include "model/parameter_store.hpp"

#include <utility>

#include "ops/matmul.hpp"

namespace red::model {
namespace {

/// One matrix in memory: a parameter of its own, or several as column blocks.
struct Group {
  std::string name;
  std::vector<std::size_t> members;  // indices of specs
  int64_t rows = 0, cols = 0;
  DType dtype = DType::fp32;

  std::size_t num_bytes(DType type) const {
    return Arena::rounded(static_cast<std::size_t>(rows * cols) * size_of(type));
  }
};

std::vector<Group> group_by_storage(const std::vector<StoredParameter>& parameters, DType dtype) {
  std::vector<Group> groups;
  std::unordered_map<std::string, std::size_t> index;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto& [spec, region, weight] = parameters[i];
    const auto [it, is_new] = index.emplace(fused_name(spec.name), groups.size());
    if (is_new) groups.push_back({it->first, {}, region.num_rows, 0, spec.is_gain() ? DType::fp32 : dtype});
    Group& group = groups[it->second];
    RED_CHECK(group.rows == region.num_rows, "{} has {} rows, {} has {}", group.name, group.rows, spec.name,
              region.num_rows);
    group.members.push_back(i);
    group.cols += region.num_cols;
  }
  return groups;
}

/// Of a tensor without gaps.
void set_zero(Stream& stream, const Tensor& x) {
  fill_zero(stream, x.data, static_cast<std::size_t>(x.size()) * size_of(x.dtype));
}

}  // namespace

std::string fused_name(std::string_view name) {
  const auto with = [&](std::string_view ending, std::string_view fused) -> std::string {
    if (!name.ends_with(ending)) return {};
    return std::string(name.substr(0, name.size() - ending.size())).append(fused);
  };
  for (const std::string_view part : {"query", "key", "value"}) {
    if (auto fused =
            with(fmt::format("self_attention.{}.weight", part), "self_attention.query_key_value.weight");
        !fused.empty())
      return fused;
  }
  for (const std::string_view part : {"key", "value"}) {
    if (auto fused = with(fmt::format("cross_attention.{}.weight", part), "cross_attention.key_value.weight");
        !fused.empty())
      return fused;
  }
  for (const std::string_view part : {"gate", "up"}) {
    if (auto fused = with(fmt::format("ffn.{}.weight", part), "ffn.gate_up.weight"); !fused.empty())
      return fused;
  }
  return std::string(name);
}

ParameterStore::ParameterStore(const std::vector<ParameterSpec>& specs, const TensorRank& at,
                               bool with_gradients, DType dtype, Memory memory)
    : dtype_(dtype) {
  for (const ParameterSpec& spec : specs) parameters_.push_back({spec, region_of(spec, at), {}});
  const std::vector<Group> groups = group_by_storage(parameters_, dtype);
  std::size_t value_bytes = 0, gradient_bytes = 0;
  for (const Group& group : groups) {
    value_bytes += group.num_bytes(group.dtype);
    gradient_bytes += group.num_bytes(DType::fp32);
  }
  values_ = Buffer(value_bytes, memory);
  if (with_gradients) gradients_ = Buffer(gradient_bytes, memory);
  std::size_t value_offset = 0, gradient_offset = 0;
  for (const Group& group : groups) {
    const auto tensor_in = [&](const Buffer& buffer, DType type, std::size_t& offset) {
      if (buffer.num_bytes() == 0) return Tensor{};
      std::byte* begin = buffer.data() == nullptr ? nullptr : buffer.data() + offset;
      offset += group.num_bytes(type);
      return Tensor{begin, group.rows, group.cols, group.cols, type};
    };
    Weight whole{tensor_in(values_, group.dtype, value_offset),
                 tensor_in(gradients_, DType::fp32, gradient_offset)};
    if (with_gradients) {
      const ParameterSpec& first = parameters_[group.members.front()].spec;
      const bool by_products = !first.is_gain() && first.name != "embedding.weight";
      whole.begun = &gradient_of_.emplace_back(Gradient{whole.gradient, by_products}).begun;
    }
    int64_t col = 0;
    for (const std::size_t member : group.members) {
      auto& [spec, region, part] = parameters_[member];
      part.value = whole.value.col_range(col, region.num_cols);
      if (with_gradients) part.gradient = whole.gradient.col_range(col, region.num_cols);
      part.begun = whole.begun;
      index_.emplace(spec.name, member);
      weights_.emplace(spec.name, part);
      col += region.num_cols;
    }
    weights_.emplace(group.name, whole);
  }
}

const StoredParameter& ParameterStore::find(std::string_view name) const {
  const auto it = index_.find(std::string(name));
  RED_CHECK(it != index_.end(), "this stage holds no parameter {}", name);
  return parameters_[it->second];
}

const Weight& ParameterStore::weight(std::string_view name) const {
  const auto it = weights_.find(std::string(name));
  RED_CHECK(it != weights_.end(), "this stage holds no matrix {}", name);
  return it->second;
}

void ParameterStore::begin_gradients(Stream& stream) {
  for (Gradient& gradient : gradient_of_) {
    gradient.begun = !gradient.by_products;
    if (gradient.begun) set_zero(stream, gradient.tensor);
  }
}

void ParameterStore::end_gradients(Stream& stream) {
  for (Gradient& gradient : gradient_of_) {
    if (!std::exchange(gradient.begun, true)) set_zero(stream, gradient.tensor);
  }
}

void add_product_to_gradient(Stream& stream, const Weight& weight, const Tensor& a, const Tensor& b,
                             float alpha) {
  const float beta = std::exchange(*weight.begun, true) ? 1.0F : 0.0F;
  ops::matmul(stream, weight.gradient, a, ops::Transpose::yes, b, ops::Transpose::no, alpha, beta);
}

void initialize_rows(Stream& stream, const Tensor& out, const StoredParameter& parameter, int64_t row_begin,
                     uint64_t seed) {
  const auto& [spec, region, weight] = parameter;
  std::vector<float> exact(static_cast<std::size_t>(region.num_cols));
  std::vector<bf16> rounded(out.dtype == DType::bf16 ? exact.size() : 0);
  for (int64_t row = 0; row < out.rows; ++row) {
    initial_values(spec, seed, (region.row_begin + row_begin + row) * spec.cols + region.col_begin, exact);
    for (std::size_t i = 0; i < rounded.size(); ++i) rounded[i] = bf16(exact[i]);
    const void* values = rounded.empty() ? static_cast<const void*>(exact.data()) : rounded.data();
    copy_to_device(stream, out.row_range(row, 1).data, values, exact.size() * size_of(out.dtype));
  }
}

void ParameterStore::initialize(Stream& stream, uint64_t seed) {
  for (const StoredParameter& parameter : parameters_)
    initialize_rows(stream, parameter.weight.value, parameter, 0, seed);
}

}  // namespace red::model
