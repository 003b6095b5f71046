// Attention by cuDNN's graph API. A plan is built for each shape when it first comes, and kept; before the
// first plan of a kind is used, cuDNN's results are held against our own kernels'. What cuDNN refuses, or
// computes otherwise, is left to them, with a line in the log. Shapes: attention_library_parts.hpp.
#include <cudnn_frontend.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <compare>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <unordered_map>

#include "base/error.hpp"
#include "base/log.hpp"
#include "device/cuda_check.hpp"
#include "device/gemm_measuring.hpp"
#include "device/stream_arena.hpp"
#include "ops/attention_agreement.hpp"
#include "ops/attention_library.hpp"
#include "ops/attention_library_limits.hpp"
#include "ops/attention_library_parts.hpp"

namespace red::ops {
namespace {

namespace fe = cudnn_frontend;
using GraphTensor = std::shared_ptr<fe::graph::Tensor_attributes>;

/// Matrices by their place in a plan; uids of their starts lie kStarts behind them.
enum Matrix : int64_t { mat_q, mat_keys, mat_values, mat_o, mat_d_o, mat_dq, mat_dk, mat_dv, kMatrices };
constexpr const char* kName = "cuDNN's attention";
constexpr int64_t kStarts = 100, kStatistics = 200, kQueryLengths = 201, kKeyLengths = 202;
static_assert(kMatrices == kMostRaggedMatrices);

bool is_of_keys(int64_t matrix) {
  return matrix == mat_keys || matrix == mat_values || matrix == mat_dk || matrix == mat_dv;
}

struct Shape {
  bool backward = false, causal = false;
  int64_t sequences = 0, longest_q = 0, longest_k = 0, heads = 0, head_dim = 0;
  std::array<int64_t, kMatrices> row_stride{};
  auto operator<=>(const Shape&) const = default;
};

struct Plan {
  std::unique_ptr<fe::graph::Graph> graph;  ///< null: cuDNN has none
  std::string refusal;                      ///< and says so
  int64_t workspace_bytes = 0;
  std::unordered_map<int64_t, void*> pointers;
};

/// Lengths are rounded up, so that batches of other lengths find the same plan.
int64_t rounded_length(int64_t length) {
  return (length + 127) / 128 * 128;
}

int64_t num_matrices(bool backward) {
  return backward ? kMatrices : mat_o + 1;
}

class GraphBuilder {
 public:
  explicit GraphBuilder(const Shape& shape) : shape_(shape), graph_(std::make_unique<fe::graph::Graph>()) {
    graph_->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    for (int64_t m = 0; m < num_matrices(shape.backward); ++m)
      starts_[m] = integers(kStarts + m, shape.sequences + 1);
    query_lengths_ = integers(kQueryLengths, shape.sequences);
    key_lengths_ = integers(kKeyLengths, shape.sequences);
  }

  std::unique_ptr<fe::graph::Graph> build() {
    shape_.backward ? add_backward() : add_forward();
    return std::move(graph_);
  }

 private:
  GraphTensor integers(int64_t uid, int64_t count) {
    return graph_->tensor(fe::graph::Tensor_attributes()
                              .set_uid(uid)
                              .set_dim({count, 1, 1, 1})
                              .set_stride({1, 1, 1, 1})
                              .set_data_type(fe::DataType_t::INT32));
  }
  void describe(fe::graph::Tensor_attributes& tensor, Matrix m) const {
    const int64_t longest = is_of_keys(m) ? shape_.longest_k : shape_.longest_q, row = shape_.row_stride[m];
    tensor.set_uid(m)
        .set_dim({shape_.sequences, shape_.heads, longest, shape_.head_dim})
        .set_stride({longest * row, shape_.head_dim, row, 1})
        .set_ragged_offset(starts_[m]);
  }
  GraphTensor input(Matrix m) const {
    fe::graph::Tensor_attributes tensor;
    describe(tensor, m);
    return graph_->tensor(tensor);
  }
  void output(const GraphTensor& tensor, Matrix m) const {
    describe(*tensor, m);
    tensor->set_output(true);
  }
  void describe_statistics(fe::graph::Tensor_attributes& tensor) const {
    tensor.set_uid(kStatistics)
        .set_data_type(fe::DataType_t::FLOAT)
        .set_dim({shape_.sequences, shape_.heads, shape_.longest_q, 1})
        .set_stride({shape_.heads * shape_.longest_q, shape_.longest_q, 1, 1});
  }
  template <class Options>
  Options options(const char* name) const {
    Options result;
    result.set_name(name)
        .set_attn_scale(1.0F / std::sqrt(static_cast<float>(shape_.head_dim)))
        .set_padding_mask(true)
        .set_seq_len_q(query_lengths_)
        .set_seq_len_kv(key_lengths_);
    if (shape_.causal) {
      result.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT);
      result.set_diagonal_band_right_bound(0);
    }
    return result;
  }
  void add_forward() {
    auto how = options<fe::graph::SDPA_attributes>("forward");
    how.set_generate_stats(true);
    auto [o, statistics] = graph_->sdpa(input(mat_q), input(mat_keys), input(mat_values), how);
    output(o, mat_o);
    describe_statistics(*statistics);
    statistics->set_output(true);
  }
  void add_backward() {
    auto how = options<fe::graph::SDPA_backward_attributes>("backward");
    // Otherwise queries' gradients may be added up in any order. Not for nothing: on Hopper its memory grows
    // with the square of the length, on Ampere there is none for packed sequences.
    how.set_deterministic_algorithm(!choices_are_measured());
    fe::graph::Tensor_attributes statistics;
    describe_statistics(statistics);
    auto [dq, dk, dv] = graph_->sdpa_backward(input(mat_q), input(mat_keys), input(mat_values), input(mat_o),
                                              input(mat_d_o), graph_->tensor(statistics), how);
    output(dq, mat_dq);
    output(dk, mat_dk);
    output(dv, mat_dv);
  }

  Shape shape_;
  std::unique_ptr<fe::graph::Graph> graph_;
  std::array<GraphTensor, kMatrices> starts_;
  GraphTensor query_lengths_, key_lengths_;
};

[[noreturn]] void failed(const std::string& what) {
  red::detail::throw_if_gpu_lost(what);
  throw LogicError("{}", what);
}

void check(cudnnStatus_t status, const char* call) {
  if (status != CUDNN_STATUS_SUCCESS) failed(fmt::format("{}: {}", call, cudnnGetErrorString(status)));
}

/// The frontend's message and code, and what the library itself said last.
std::string words_of(fe::error_t result) {
  std::ostringstream stream;
  stream << result.get_code();
  std::string code = stream.str();  // a list of one name in JSON
  std::erase_if(code, [](char c) { return c == '[' || c == ']' || c == '"'; });
  std::array<char, 1024> last{};
  cudnnGetLastErrorString(last.data(), last.size());
  last.back() = '\0';
  std::string text = fmt::format("{} ({})", result.get_message(), code);
  if (last[0] != '\0') text += fmt::format("; the library: {}", last.data());
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

class Cudnn {
 public:
  Cudnn() { check(cudnnCreate(&handle_), "cudnnCreate"); }
  ~Cudnn() { cudnnDestroy(handle_); }
  Cudnn(const Cudnn&) = delete;
  Cudnn& operator=(const Cudnn&) = delete;

  /// Without a graph when cuDNN has none, which is said once for each shape.
  Plan& plan(const Shape& shape) {
    const auto [it, is_new] = plans_.try_emplace(shape);
    if (is_new) build(it->second, shape);
    return it->second;
  }

  /// How much an attention takes, beside the plan of memory: cuDNN tells what it wants only when a plan is
  /// built. CUDA's pool keeps as much as the largest, or it would go back at each wait for the device.
  std::size_t noted(std::size_t num_bytes) {
    if (num_bytes <= most_bytes_) return num_bytes;
    most_bytes_ = num_bytes;
    log::info("{} takes {:.1f} MiB beside the plan", kName, static_cast<double>(num_bytes) / (1 << 20));
    int device = 0;
    cudaMemPool_t pool = nullptr;
    RED_CUDA_CHECK(cudaGetDevice(&device));
    RED_CUDA_CHECK(cudaDeviceGetDefaultMemPool(&pool, device));
    uint64_t kept = num_bytes;
    RED_CUDA_CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept));
    return num_bytes;
  }

  void run(Stream& stream, Plan& plan, const Tensor& workspace) {
    check(cudnnSetStream(handle_, stream.handle()), "cudnnSetStream");
    auto result = plan.graph->execute(handle_, plan.pointers, workspace.data);
    if (result.is_bad()) failed(fmt::format("cuDNN's attention failed: {}", result.get_message()));
    ++num_passes_;
  }
  int64_t num_passes() const { return num_passes_; }

  /// What speaks against cuDNN's results beside our kernels', for heads of this width, tried once.
  const std::string& objection(Stream& stream, int64_t head_dim, bool causal) {
    const auto [it, is_new] = objections_.try_emplace({head_dim, causal});
    if (!is_new) return it->second;  // empty while it is tried
    std::string text = attention_objection(stream, head_dim, causal,
                                           {attention_forward_by_library, attention_backward_by_library});
    if (!text.empty() && !refusal.empty()) text += fmt::format(": {}", refusal);
    if (!text.empty())
      log::rank_warning(
          "cuDNN {} was tried against our kernels' attention for heads of {}, and {}: ours are used",
          cudnnGetVersion(), head_dim, text);
    it->second = text;
    return it->second;
  }

  std::string refusal;  ///< of the last attention

 private:
  void build(Plan& plan, const Shape& shape) {
    auto graph = GraphBuilder(shape).build();
    auto result = graph->validate();
    if (result.is_good()) result = graph->build_operation_graph(handle_);
    if (result.is_good()) result = graph->create_execution_plans({fe::HeurMode_t::A});
    if (result.is_good()) result = graph->check_support();
    if (result.is_good()) result = graph->build_plans();
    if (result.is_good()) result = graph->get_workspace_size(plan.workspace_bytes);
    if (result.is_good()) {
      plan.graph = std::move(graph);
      return;
    }
    plan.refusal = words_of(result);
    log::rank_warning("cuDNN {} has no {} attention for {} heads of {}, ours is used: {}", cudnnGetVersion(),
                      shape.backward ? "backward" : "forward", shape.heads, shape.head_dim, plan.refusal);
  }

  cudnnHandle_t handle_ = nullptr;
  std::map<Shape, Plan> plans_;
  std::map<std::pair<int64_t, bool>, std::string> objections_;
  std::size_t most_bytes_ = 0;
  int64_t num_passes_ = 0;
};

Cudnn& cudnn() {
  static Cudnn library;
  return library;
}

/// Of queries or keys; the others have the layout of one side of the same attention.
struct Operands {
  std::array<const Tensor*, kMatrices> matrices{};
};

Shape shape_of(const Operands& operands, const AttentionLayout& layout, const AttentionMask& mask) {
  Shape shape;
  shape.causal = mask.causal;
  shape.backward = operands.matrices[mat_dq] != nullptr;
  shape.sequences = layout.num_sequences;
  shape.longest_q = rounded_length(layout.longest_q);
  shape.longest_k = rounded_length(layout.longest_k);
  shape.heads = layout.num_heads;
  shape.head_dim = operands.matrices[mat_q]->cols / layout.num_heads;
  for (int64_t m = 0; m < kMatrices; ++m)
    shape.row_stride[m] = operands.matrices[m] == nullptr ? 0 : operands.matrices[m]->row_stride;
  return shape;
}

/// What a plan is given beside the operands.
struct Prepared {
  template <class Memory>
  Prepared(Memory& arena, const Plan& plan, const Shape& shape, int64_t num_queries)
      : lengths(arena.template allocate<int32_t>(2, shape.sequences)),
        starts(arena.template allocate<int32_t>(num_matrices(shape.backward), shape.sequences + 1)),
        statistics(arena.allocate(shape.sequences * shape.heads, shape.longest_q)),
        raw_o(arena.allocate(shape.backward ? num_queries : 0, shape.heads * shape.head_dim, DType::bf16)),
        workspace(arena.template allocate<uint8_t>(plan.workspace_bytes, 1)) {}

  static std::size_t count_bytes(const Plan& plan, const Shape& shape, int64_t num_queries) {
    Arena counted = Arena::counting();
    Prepared(counted, plan, shape, num_queries);
    return counted.peak();
  }

  Tensor lengths, starts;
  Tensor statistics;  ///< (B h, S)
  Tensor raw_o;       ///< (Tq, h k), backward alone
  Tensor workspace;
};

/// Points the plan to its operands.
Prepared prepare(Stream& stream, detail::StreamArena& arena, Plan& plan, const Shape& shape,
                 const Operands& operands, const AttentionLayout& layout) {
  Prepared prepared(arena, plan, shape, operands.matrices[mat_q]->rows);
  RaggedMatrices matrices;
  matrices.count = static_cast<int>(num_matrices(shape.backward));
  for (int m = 0; m < matrices.count; ++m) {
    matrices.row_stride[m] = shape.row_stride[m];
    matrices.of_keys[m] = is_of_keys(m);
  }
  ragged_sequences(stream, prepared.lengths, prepared.starts, layout.q_offsets, layout.k_offsets, matrices);
  plan.pointers[kQueryLengths] = prepared.lengths.data;
  plan.pointers[kKeyLengths] = prepared.lengths.row_range(1, 1).data;
  plan.pointers[kStatistics] = prepared.statistics.data;
  for (int m = 0; m < matrices.count; ++m) {
    plan.pointers[m] = operands.matrices[m]->data;
    plan.pointers[kStarts + m] = prepared.starts.row_range(m, 1).data;
  }
  return prepared;
}

/// The plan for this one, if it is to be cuDNN's; else why not is kept.
Plan* chosen(Stream& stream, const Operands& operands, const AttentionLayout& layout,
             const AttentionMask& mask) {
  if (stream.attention() != AttentionChoice::cudnn) return nullptr;
  std::string& refusal = cudnn().refusal;
  refusal = operands.matrices[mat_o] == nullptr ? "the backward pass is not given the forward pass's result"
                                                : not_taken_by_library(operands.matrices, layout, mask);
  if (!refusal.empty()) return nullptr;
  const Shape shape = shape_of(operands, layout, mask);
  refusal = std::string(cudnn().objection(stream, shape.head_dim, shape.causal));  // over its trial's own
  if (!refusal.empty()) return nullptr;
  Plan& plan = cudnn().plan(shape);
  refusal = plan.refusal;
  return plan.graph == nullptr ? nullptr : &plan;
}

}  // namespace

bool has_attention_library() {
  return true;
}

std::string attention_library_version() {
  const std::size_t version = cudnnGetVersion();
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

int64_t attention_library_passes() {
  return cudnn().num_passes();
}

std::string attention_library_refusal() {
  return cudnn().refusal;
}

bool attention_forward_by_library(Stream& stream, const Tensor& o, const Tensor& lse, const Tensor& q,
                                  const Tensor& keys, const Tensor& values, const AttentionLayout& layout,
                                  const AttentionMask& mask) {
  const Operands operands{{&q, &keys, &values, &o}};
  Plan* plan = chosen(stream, operands, layout, mask);
  if (plan == nullptr) return false;
  const Shape shape = shape_of(operands, layout, mask);
  detail::StreamArena arena(stream, kName, cudnn().noted(Prepared::count_bytes(*plan, shape, q.rows)));
  const Prepared prepared = prepare(stream, arena, *plan, shape, operands, layout);
  cudnn().run(stream, *plan, prepared.workspace);
  lse_from_statistics(stream, lse, prepared.statistics, layout.q_offsets);
  return true;
}

bool attention_backward_by_library(Stream& stream, const Tensor& dq, const Tensor& dk, const Tensor& dv,
                                   const Tensor& d_o, const AttentionOutput& output, const Tensor& q,
                                   const Tensor& keys, const Tensor& values, const Tensor& lse,
                                   const AttentionLayout& layout, const AttentionMask& mask) {
  const Operands operands{{&q, &keys, &values, output.o, &d_o, &dq, &dk, &dv}};
  Plan* plan = chosen(stream, operands, layout, mask);
  if (plan == nullptr) return false;
  const Shape shape = shape_of(operands, layout, mask);
  detail::StreamArena arena(stream, kName, cudnn().noted(Prepared::count_bytes(*plan, shape, q.rows)));
  const Prepared prepared = prepare(stream, arena, *plan, shape, operands, layout);
  if (output.inv_rms != nullptr) {
    undo_head_norm(stream, prepared.raw_o, *output.o, *output.inv_rms, layout.num_heads);
    plan->pointers[mat_o] = prepared.raw_o.data;
  }
  statistics_from_lse(stream, prepared.statistics, lse, layout.q_offsets);
  cudnn().run(stream, *plan, prepared.workspace);
  return true;
}

}  // namespace red::ops
