#include "data/ordered_pipeline.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

#include "base/philox.hpp"
#include "data/test_files.hpp"

namespace red::data {
namespace {

using Pipeline = OrderedPipeline<int, int>;

TEST(OrderedPipeline, ResultsComeInOrderAndWithinTheBound) {
  for (const int workers : {1, 2, 5}) {
    int next = 0, consumed = 0;
    std::atomic<int> under_way{0};
    Pipeline pipeline(workers, 10,
                      {.produce = [&]() -> std::optional<int> {
                         if (next == 500) return std::nullopt;
                         EXPECT_LE(++under_way, 10);
                         return next++;
                       },
                       .weight = [](const int&) { return 1; },
                       .process =
                           [](int, int& item) {
                             // Some items take longer than those behind them.
                             std::this_thread::sleep_for(
                                 std::chrono::microseconds(philox(1, static_cast<uint64_t>(item))[0] % 200));
                             return item * 2;
                           },
                       .consume =
                           [&](int&& result) {
                             EXPECT_EQ(result, 2 * consumed++);
                             --under_way;
                           }});
    pipeline.run();
    EXPECT_EQ(consumed, 500);
  }
}

TEST(OrderedPipeline, AnItemHeavierThanTheBoundStillPasses) {
  int next = 0, sum = 0;
  Pipeline pipeline(
      2, 3,
      {.produce = [&]() -> std::optional<int> { return next < 20 ? std::optional(next++) : std::nullopt; },
       .weight = [](const int& item) { return item % 3 == 0 ? 100 : 1; },
       .process = [](int, int& item) { return item; },
       .consume = [&](int&& item) { sum += item; }});
  pipeline.run();
  EXPECT_EQ(sum, 190);
}

TEST(OrderedPipeline, AWorkersErrorComesAtItsPlace) {
  for (int repeat = 0; repeat < 20; ++repeat) {
    int next = 0;
    std::vector<int> consumed;
    Pipeline pipeline(3, 8,
                      {.produce = [&]() -> std::optional<int> { return next++; },
                       .weight = [](const int&) { return 1; },
                       .process =
                           [](int, int& item) {
                             if (item >= 7) throw DataError("item {}", item);
                             return item;
                           },
                       .consume = [&](int&& item) { consumed.push_back(item); }});
    EXPECT_EQ(message_of<DataError>([&] { pipeline.run(); }), "item 7");
    EXPECT_EQ(consumed, (std::vector<int>{0, 1, 2, 3, 4, 5, 6}));
  }
}

TEST(OrderedPipeline, ErrorsOfTheCallersOwnStages) {
  const auto failing = [](bool in_produce) {
    int next = 0;
    Pipeline pipeline(2, 4,
                      {.produce = [&]() -> std::optional<int> {
                         if (in_produce && next == 5) throw DataError("produce");
                         return next++;
                       },
                       .weight = [](const int&) { return 1; },
                       .process = [](int, int& item) { return item; },
                       .consume =
                           [&](int&& item) {
                             if (!in_produce && item == 5) throw DataError("consume");
                           }});
    return message_of<DataError>([&] { pipeline.run(); });
  };
  EXPECT_EQ(failing(true), "produce");
  EXPECT_EQ(failing(false), "consume");
}

}  // namespace
}  // namespace red::data
