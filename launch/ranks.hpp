// What a command that computes runs on: MPI, threads and the mesh, from start to orderly end. A failure on
// any rank ends all of them with its exit code and one message.
#pragma once

#include <filesystem>
#include <functional>

#include "config/parse.hpp"
#include "device/stream.hpp"
#include "parallel/mesh.hpp"
#include "parallel/mpi_environment.hpp"

namespace red::launch {

struct Ranks {
  parallel::MpiEnvironment& environment;
  parallel::Communicator& world;
  parallel::Mesh& mesh;
  Stream& stream;
};

/// Starts the ranks, lays them out as `layout` says for their number, and runs `body` on each. The main
/// thread is watched (base/watch); when a deadline of train.timeout_s or train.io_timeout_s passes on a rank,
/// each writes what it did into `watchdog_folder`, if there is to be one.
int run_on_ranks(const config::RunConfig& config,
                 const std::function<parallel::Layout(int num_ranks)>& layout,
                 const std::function<int(const Ranks&)>& body,
                 const std::filesystem::path& watchdog_folder = {});

/// For training steps on synthetic tokens: checks the configuration, with a global batch of one micro-batch
/// per data rank where it has none, and runs `body` in its layout with its precision settled.
int run_synthetic_steps(config::Loaded loaded,
                        const std::function<int(const Ranks&, const config::RunConfig&)>& body);

/// The layout of [parallel], where the command line sets one; otherwise all ranks share the data axis. For
/// commands whose configuration comes from a checkpoint, whatever layout wrote it.
parallel::Layout layout_of_evaluation(const config::Loaded& loaded, int num_ranks);

}  // namespace red::launch
