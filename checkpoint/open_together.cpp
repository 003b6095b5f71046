#include "checkpoint/open_together.hpp"

#include "base/error.hpp"
#include "checkpoint/exchange.hpp"
#include "checkpoint/verify.hpp"

namespace red::checkpoint {

Reader open_together(const std::filesystem::path& checkpoint_dir, parallel::Communicator& world,
                     const std::string& prefix) {
  if (world.size() == 1) return Reader(checkpoint_dir);
  std::string mine;
  run_agreed(world, "checkpoint: verifying", [&] {
    for (const std::string& line : find_damaged_tiles(checkpoint_dir, prefix, {world.rank(), world.size()}))
      mine += line + "\n";
  });
  const std::string damage = join_lines(world, mine);
  if (!damage.empty())
    throw DataError("checkpoint '{}' is damaged: use another one\n{}", checkpoint_dir.string(),
                    damage.substr(0, damage.size() - 1));
  return Reader(checkpoint_dir, Check::nothing);
}

}  // namespace red::checkpoint
