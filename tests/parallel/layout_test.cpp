// Layouts and their verdicts: pure functions, so no MPI here.
#include "parallel/layout.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"

namespace red::parallel {
namespace {

constexpr LayoutLimits kRed{true, 8, 8, 8, 40};
constexpr LayoutLimits kDec{false, 0, 8, 8, 40};

std::string refusal(const Layout& layout, int num_ranks, bool has_encoder) {
  try {
    validate(layout, num_ranks, has_encoder ? kRed : kDec);
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.code(), ExitCode::configuration);
    return error.what();
  }
  return {};
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(Layout, CoordinatesByHand) {
  // data 2 x tensor 3 x (1 + 2): rank 11 = (1 * 2 + 1) * 3 + 2
  const Layout layout{2, 3, 1, 2};
  EXPECT_EQ(layout.num_ranks(), 18);
  const Coordinates at = coordinates_of(layout, 11);
  EXPECT_EQ(at.stage, 1);
  EXPECT_EQ(at.data, 1);
  EXPECT_EQ(at.tensor, 2);
  EXPECT_EQ(layout.to_string(), "data 2 x tensor 3 x (encoder 1 + decoder 2)");
}

TEST(Layout, RanksAndCoordinatesAreInverse) {
  for (const Layout& layout :
       {Layout{1, 1, 0, 1}, Layout{4, 1, 0, 1}, Layout{3, 2, 1, 1}, Layout{2, 3, 2, 3}}) {
    for (int rank = 0; rank < layout.num_ranks(); ++rank) {
      EXPECT_EQ(rank_of(layout, coordinates_of(layout, rank)), rank) << layout.to_string();
    }
  }
  EXPECT_THROW(coordinates_of({2, 1, 0, 1}, 2), LogicError);
  EXPECT_THROW(rank_of({2, 1, 0, 1}, {.stage = 1, .data = 0, .tensor = 0}), LogicError);
}

TEST(Layout, EveryLayoutOfUpToEightRanks) {
  std::size_t red = 0, dec = 0;
  for (int num_ranks = 1; num_ranks <= 8; ++num_ranks) {
    for (const bool has_encoder : {true, false}) {
      const std::vector<Layout> all = legal_layouts(num_ranks, has_encoder ? kRed : kDec);
      for (const Layout& layout : all) {
        EXPECT_EQ(layout.num_ranks(), num_ranks);
        EXPECT_EQ(refusal(layout, num_ranks, has_encoder), "") << layout.to_string();
      }
      (has_encoder ? red : dec) += all.size();
    }
  }
  EXPECT_EQ(red, 65U);
  EXPECT_EQ(dec, 38U);
}

TEST(Layout, WrongNumberOfRanksNamesEveryFactorAndWhatWouldRun) {
  const std::string text = refusal({3, 1, 1, 1}, 4, true);
  for (const char* part :
       {"needs 6 ranks", "runs on 4", "parallel.data 3", "parallel.tensor 1", "parallel.encoder_stages 1",
        "parallel.decoder_stages 1", "data 2 x tensor 1 x (encoder 1 + decoder 1), or data 4 x tensor 1 x"}) {
    EXPECT_TRUE(contains(text, part)) << part << " in: " << text;
  }
  EXPECT_TRUE(contains(refusal({2000000000, 8, 0, 1}, 4, true), "needs 16000000000 ranks"));
}

TEST(Layout, SuggestionsAreLegal) {
  const std::string text = refusal({1, 1, 1, 1}, 3, true);
  EXPECT_TRUE(contains(text, "nearest that run on 3 ranks: data 1 x tensor 1 x (encoder 1 + decoder 2), or "))
      << text;
}

TEST(Layout, ImpossibleDegrees) {
  EXPECT_TRUE(contains(refusal({0, 1, 0, 1}, 1, true), "parallel.data = 0: must be at least 1"));
  EXPECT_TRUE(contains(refusal({1, -2, 0, 1}, 1, true), "parallel.tensor = -2"));
  EXPECT_TRUE(contains(refusal({1, 1, -1, 1}, 1, true), "parallel.encoder_stages = -1: must be at least 0"));
  EXPECT_TRUE(contains(refusal({1, 1, 0, 0}, 1, true), "parallel.decoder_stages = 0"));
}

TEST(Layout, DecoderOnlyHasNoEncoderStages) {
  const std::string text = refusal({1, 1, 1, 1}, 2, false);
  EXPECT_TRUE(contains(text, "a DecLLM has no encoder")) << text;
  EXPECT_TRUE(contains(text, "data 2 x tensor 1 x (encoder 0 + decoder 1)")) << text;
}

TEST(Layout, AStageNeedsALayerAndATensorRankAHead) {
  EXPECT_TRUE(
      contains(refusal({1, 1, 9, 1}, 10, true), "parallel.encoder_stages = 9: each stage needs a layer"));
  EXPECT_TRUE(
      contains(refusal({1, 1, 0, 9}, 9, false), "parallel.decoder_stages = 9: each stage needs a layer"));
  EXPECT_TRUE(
      contains(refusal({1, 9, 0, 1}, 9, true), "each tensor rank needs a head, and model.num_heads = 8"));
  EXPECT_TRUE(contains(refusal({1, 9, 0, 1}, 9, true), "nearest that run on 9 ranks: data 3 x tensor 3"));
}

TEST(Layout, ARedLlmOnOneStageOrWithEncoderStages) {
  const std::string text = refusal({1, 1, 0, 2}, 2, true);
  EXPECT_TRUE(contains(text, "the encoder shares the decoder's stage only where there is one")) << text;
  EXPECT_TRUE(contains(text, "encoder 1 + decoder 1")) << text;
}

}  // namespace
}  // namespace red::parallel
