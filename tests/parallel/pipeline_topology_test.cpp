// The routes that are connected before a step: those of every message of every schedule, and no others.
#include "parallel/pipeline_topology.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "parallel/pipelines.hpp"

namespace red::parallel {
namespace {

using Routes = std::set<Route>;

/// By either end's instructions.
Routes routes_of(const std::vector<Program>& programs, const PipelineShape& shape, bool by_senders) {
  Routes routes;
  for (int stage = 0; stage < shape.num_stages(); ++stage) {
    for (const Instruction& x : programs[static_cast<std::size_t>(stage)]) {
      const MessageRule* rule = rule_of(x.action);
      if (rule == nullptr || (x.action == rule->send) != by_senders) continue;
      const int peer = shape.stage_of(x.peer);
      if (by_senders)
        routes.insert({stage, peer, tag_of(rule->kind, x.chunk)});
      else
        routes.insert({peer, stage, tag_of(rule->kind, shape.chunk_of(x.peer))});
    }
  }
  return routes;
}

Routes routes_of(const PipelineShape& shape, bool train) {
  const std::vector<Route> routes = PipelineTopology(shape).routes(train);
  return {routes.begin(), routes.end()};
}

void expect_training_routes(PipelineSchedule schedule, const PipelineShape& shape) {
  SCOPED_TRACE(name_of(shape));
  const std::vector<Program> programs = make_programs(schedule, shape);
  EXPECT_EQ(routes_of(programs, shape, true), routes_of(shape, true));
  EXPECT_EQ(routes_of(programs, shape, false), routes_of(shape, true));
}

TEST(Routes, AreThoseOfEverySchedulesMessages) {
  for (const PipelineShape& shape : all_shapes(3, 4, 3)) {
    for (const PipelineSchedule schedule : kSchedules) expect_training_routes(schedule, shape);
  }
  for (const int chunks : {2, 3}) {
    for (const PipelineShape& shape : interleaved_shapes(2, 3, 4, chunks))
      expect_training_routes(PipelineSchedule::interleaved, shape);
  }
}

TEST(Routes, OfForwardPassesAreThoseOfEvaluationAndGeneration) {
  for (const int chunks : {1, 2}) {
    for (PipelineShape shape : all_shapes(2, 3, 1)) {
      shape.virtual_stages = chunks;
      SCOPED_TRACE(name_of(shape));
      const Routes routes = routes_of(shape, false), all = routes_of(shape, true);
      EXPECT_EQ(routes_of(forward_only(shape), shape, true), routes);
      const Routes decoding = routes_of(decoder_only(shape), shape, true);
      EXPECT_TRUE(std::includes(routes.begin(), routes.end(), decoding.begin(), decoding.end()));
      EXPECT_TRUE(std::includes(all.begin(), all.end(), routes.begin(), routes.end()));
    }
  }
}

}  // namespace
}  // namespace red::parallel
