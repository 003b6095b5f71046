// Whether a library of attention is trusted, with small ones in its place: our kernels, right or made wrong.
#include "ops/attention_agreement.hpp"

#include <gtest/gtest.h>

#include "support/matrix.hpp"

namespace red::ops {
namespace {

constexpr int64_t kHeadDim = 8;

/// While it lives, attention is our kernels', also in a program that has cuDNN.
class Ours {
 public:
  explicit Ours(Stream& stream) : stream_(stream), choice_(stream.attention()) {
    stream.use_attention(AttentionChoice::own);
  }
  ~Ours() { stream_.use_attention(choice_); }
  Ours(const Ours&) = delete;
  Ours& operator=(const Ours&) = delete;

 private:
  Stream& stream_;
  AttentionChoice choice_;
};

bool forward(Stream& stream, const Tensor& o, const Tensor& lse, const Tensor& q, const Tensor& keys,
             const Tensor& values, const AttentionLayout& layout, const AttentionMask& mask) {
  const Ours ours(stream);
  attention_forward(stream, o, lse, q, keys, values, layout, mask);
  return true;
}

bool backward(Stream& stream, const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& d_o,
              const AttentionOutput& output, const Tensor& q, const Tensor& keys, const Tensor& values,
              const Tensor& lse, const AttentionLayout& layout, const AttentionMask& mask) {
  const Ours ours(stream);
  const test::FloatTensor delta(layout.num_heads, q.rows);
  attention_delta(stream, delta, d_o, *output.o, output.inv_rms);
  attention_backward(stream, dq, dk, dv, d_o, delta, q, keys, values, lse, layout, mask);
  stream.synchronize();  // delta is freed
  return true;
}

std::string objection(const AttentionPasses& library, bool causal = false) {
  Stream stream(1);
  stream.use_attention(AttentionChoice::cudnn);
  const std::string text = attention_objection(stream, kHeadDim, causal, library);
  EXPECT_EQ(stream.attention(), AttentionChoice::cudnn);
  return text;
}

TEST(AttentionAgreement, TheSameResultsAreTrusted) {
  for (const bool causal : {false, true}) EXPECT_EQ(objection({forward, backward}, causal), "");
}

// It runs when a shape first comes, in the middle of a step.
TEST(AttentionAgreement, TakesItsMemoryFromTheStream) {
  Stream stream(1);
  const std::size_t before = num_buffers_made();
  const auto nothing = [](auto&&...) { return true; };
  EXPECT_NE(attention_objection(stream, kHeadDim, true, {nothing, nothing}), "");
  EXPECT_EQ(num_buffers_made(), before);
}

TEST(AttentionAgreement, ARefusalIsNoAgreement) {
  const auto refuse = [](auto&&...) { return false; };
  EXPECT_EQ(objection({refuse, backward}), "it refuses the forward pass of a small problem");
  EXPECT_EQ(objection({forward, refuse}), "it refuses the backward pass of a small problem");
}

TEST(AttentionAgreement, OtherResultsAreNamed) {
  const auto nothing = [](auto&&...) { return true; };
  EXPECT_NE(objection({nothing, backward}).find("differs by"), std::string::npos);
  const auto without_mask = [](Stream& stream, const Tensor& o, const Tensor& lse, const Tensor& q,
                               const Tensor& keys, const Tensor& values, const AttentionLayout& layout,
                               const AttentionMask&) {
    return forward(stream, o, lse, q, keys, values, layout, {});
  };
  EXPECT_NE(objection({without_mask, backward}, true).find("differs by"), std::string::npos);
}

TEST(AttentionAgreement, OtherGradientsAreNamed) {
  const auto without_mask = [](Stream& stream, const Tensor& dq, const Tensor& dk, const Tensor& dv,
                               const Tensor& d_o, const AttentionOutput& output, const Tensor& q,
                               const Tensor& keys, const Tensor& values, const Tensor& lse,
                               const AttentionLayout& layout, const AttentionMask&) {
    return backward(stream, dq, dk, dv, d_o, output, q, keys, values, lse, layout, {});
  };
  EXPECT_NE(objection({forward, without_mask}, true).find("gradient differs by"), std::string::npos);
  const auto nothing = [](auto&&...) { return true; };
  EXPECT_NE(objection({forward, nothing}).find("gradient differs by 1.0e+00 of its norm"), std::string::npos);
}

}  // namespace
}  // namespace red::ops
