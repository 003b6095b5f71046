// What a step's gradients hold, however many products come: never what was there before.
#include "model/parameter_store.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "models.hpp"

namespace red::model {
namespace {

class Gradients : public testing::Test {
 protected:
  Gradients() : store_(parameter_specs(tiny_model(Kind::red)), TensorRank{}, true) {
    for (const StoredParameter& parameter : store_.parameters()) {
      const Tensor& gradient = parameter.weight.gradient;
      for (int64_t row = 0; row < gradient.rows; ++row)
        std::fill_n(gradient.row_range(row, 1).as<float>(), gradient.cols, kOld);
    }
  }
  int64_t num_other_than(float value, const Tensor& gradient) const {
    int64_t count = 0;
    for (int64_t row = 0; row < gradient.rows; ++row) {
      const float* x = gradient.row_range(row, 1).as<float>();
      for (int64_t col = 0; col < gradient.cols; ++col) count += x[col] == value ? 0 : 1;
    }
    return count;
  }
  /// Of ones: every element of the gradient grows by `tokens`.
  void add_product(const Weight& weight, int64_t tokens) {
    std::vector<float> a(static_cast<std::size_t>(tokens * weight.gradient.rows), 1.0F);
    std::vector<float> b(static_cast<std::size_t>(tokens * weight.gradient.cols), 1.0F);
    add_product_to_gradient(stream_, weight, make_tensor(a.data(), tokens, weight.gradient.rows),
                            make_tensor(b.data(), tokens, weight.gradient.cols));
  }

  static constexpr float kOld = std::numeric_limits<float>::quiet_NaN();
  Stream stream_{1};
  ParameterStore store_;
};

TEST_F(Gradients, AreZeroWithoutProducts) {
  store_.begin_gradients(stream_);
  store_.end_gradients(stream_);
  for (const StoredParameter& parameter : store_.parameters())
    EXPECT_EQ(num_other_than(0.0F, parameter.weight.gradient), 0) << parameter.spec.name;
}

TEST_F(Gradients, AreTheSumOfTheStepsProducts) {
  const Weight& fused = store_.weight("encoder.layers.0.self_attention.query_key_value.weight");
  for (int step = 0; step < 2; ++step) {
    store_.begin_gradients(stream_);
    add_product(fused, 3);
    add_product(fused, 2);
    store_.end_gradients(stream_);
    EXPECT_EQ(num_other_than(5.0F, fused.gradient), 0) << "step " << step;
  }
}

TEST_F(Gradients, AreZeroAfterAProductOfNoTokens) {
  const Weight& weight = store_.weight("decoder.layers.0.ffn.down.weight");
  store_.begin_gradients(stream_);
  add_product(weight, 0);
  EXPECT_EQ(num_other_than(0.0F, weight.gradient), 0);
}

TEST_F(Gradients, OfTheEmbeddingAndOfGainsAreZeroAtTheBegin) {
  store_.begin_gradients(stream_);
  EXPECT_EQ(num_other_than(0.0F, store_.weight("embedding.weight").gradient), 0);
  EXPECT_EQ(num_other_than(0.0F, store_.weight("decoder.final_norm.gain").gradient), 0);
}

}  // namespace
}  // namespace red::model
