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

/// Every layout that this many ranks can run.
std::vector<Layout> layouts(int num_ranks) {
  std::vector<Layout> all = {{num_ranks, 1, 0, 1}};
  if (num_ranks % 2 == 0) all.push_back({num_ranks / 2, 1, 1, 1});
  return all;
}

TEST(Mesh, GroupsHoldTheRightRanks) {
  MpiEnvironment environment;
  Communicator& world = environment.world();
  for (const Layout& layout : layouts(world.size())) {
    const Mesh mesh(layout, world, true);
    const Coordinates& at = mesh.at();
    EXPECT_EQ(rank_of(layout, at), world.rank());
    EXPECT_EQ(mesh.data().size(), layout.data);
    EXPECT_EQ(mesh.data().rank(), at.data);
    EXPECT_EQ(mesh.pipeline().size(), layout.num_stages());
    EXPECT_EQ(mesh.pipeline().rank(), at.stage);
    std::vector<int32_t> same_stage, same_data;
    for (int rank = 0; rank < world.size(); ++rank) {
      const Coordinates other = coordinates_of(layout, rank);
      if (other.stage == at.stage) same_stage.push_back(rank);
      if (other.data == at.data) same_data.push_back(rank);
    }
    EXPECT_EQ(members(mesh.data(), world.rank()), same_stage);
    EXPECT_EQ(members(mesh.stage(), world.rank()), same_stage);
    EXPECT_EQ(members(mesh.pipeline(), world.rank()), same_data);
    EXPECT_EQ(mesh.is_encoder_stage(), layout.encoder_stages == 1 && world.rank() < world.size() / 2);
    EXPECT_EQ(mesh.is_last_stage(), at.stage == layout.num_stages() - 1);
  }
}

TEST(Mesh, AllRanksRefuseTogether) {
  MpiEnvironment environment;
  EXPECT_THROW(Mesh({environment.size() + 1, 1, 0, 1}, environment.world(), true), ConfigError);
  EXPECT_THROW(Mesh({environment.size(), 1, 1, 1}, environment.world(), false), ConfigError);
}

}  // namespace
}  // namespace red::parallel
