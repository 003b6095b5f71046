// The mesh's communicators on real ranks.
#include "parallel/mesh.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "parallel/mpi_environment.hpp"

namespace red::parallel {
namespace {

/// World ranks of a communicator, in its order.
std::vector<int32_t> members(Communicator& group, int world_rank) {
  std::vector<int32_t> all(group.size()), mine = {world_rank};
  Request request =
      group.all_gather(make_tensor(all.data(), group.size(), 1), make_tensor(mine.data(), 1, 1));
  group.wait(request, "members");
  return all;
}

constexpr LayoutLimits kRed{true, 8, 8, 8, 40};
constexpr LayoutLimits kDec{false, 0, 8, 8, 40};

TEST(Mesh, GroupsHoldTheRightRanks) {
  MpiEnvironment environment;
  Communicator& world = environment.world();
  for (const Layout& layout : legal_layouts(world.size(), kRed)) {
    const Mesh mesh(layout, world, kRed);
    const Coordinates& at = mesh.at();
    EXPECT_EQ(rank_of(layout, at), world.rank());
    EXPECT_EQ(mesh.data().size(), layout.data);
    EXPECT_EQ(mesh.data().rank(), at.data);
    EXPECT_EQ(mesh.pipeline().size(), layout.num_stages());
    EXPECT_EQ(mesh.pipeline().rank(), at.stage);
    EXPECT_EQ(mesh.tensor().size(), layout.tensor);
    EXPECT_EQ(mesh.tensor().rank(), at.tensor);
    std::vector<int32_t> stage, data, tensor, pipeline;
    for (int rank = 0; rank < world.size(); ++rank) {
      const Coordinates other = coordinates_of(layout, rank);
      const bool same_stage = other.stage == at.stage, same_data = other.data == at.data,
                 same_tensor = other.tensor == at.tensor;
      if (same_stage) stage.push_back(rank);
      if (same_stage && same_tensor) data.push_back(rank);
      if (same_stage && same_data) tensor.push_back(rank);
      if (same_data && same_tensor) pipeline.push_back(rank);
    }
    EXPECT_EQ(members(mesh.stage(), world.rank()), stage);
    EXPECT_EQ(members(mesh.data(), world.rank()), data);
    EXPECT_EQ(members(mesh.tensor(), world.rank()), tensor);
    EXPECT_EQ(members(mesh.pipeline(), world.rank()), pipeline);
    EXPECT_EQ(mesh.is_encoder_stage(), at.stage < layout.encoder_stages);
    EXPECT_EQ(mesh.is_last_stage(), at.stage == layout.num_stages() - 1);
  }
}

TEST(Mesh, AllRanksRefuseTogether) {
  MpiEnvironment environment;
  EXPECT_THROW(Mesh({environment.size() + 1, 1, 0, 1}, environment.world(), kRed), ConfigError);
  EXPECT_THROW(Mesh({environment.size(), 1, 1, 1}, environment.world(), kDec), ConfigError);
}

}  // namespace
}  // namespace red::parallel
