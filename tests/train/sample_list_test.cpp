// A step's samples by source, as a log shows them.
#include "train/sample_list.hpp"

#include <gtest/gtest.h>

namespace red::train {
namespace {

/// Sample i is item 10 i of source i mod 3.
class Countable final : public data::SampleProvider {
 public:
  void get(uint64_t index, data::Sample& sample) const override {
    sample.clear();
    sample.id = index;
    sample.source = static_cast<int32_t>(index % 3);
    sample.source_item = 10 * index;
  }
  int64_t max_encoder_length() const override { return 0; }
  int64_t max_decoder_length() const override { return 0; }
  std::vector<std::string> source_names() const override { return {"zero", "one", "two"}; }
};

TEST(SampleListTest, NamesItemsBySource) {
  const SampleList list = list_samples(Countable(), 4, 5);
  EXPECT_EQ(list, (SampleList{{"one", {40, 70}}, {"two", {50, 80}}, {"zero", {60}}}));
  EXPECT_EQ(to_text(list), "2 of one (40, 70), 2 of two (50, 80), 1 of zero (60)");
  EXPECT_EQ(to_text(list, 1), "2 of one (40 ...), 2 of two (50 ...), 1 of zero (60)");
}

}  // namespace
}  // namespace red::train
