// Returns of a run to an earlier checkpoint, which leave samples out: RUN/runs.jsonl keeps them, so that a
// run that dies behind one passes over the same samples when it goes on, and counts on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.hpp"
#include "data/sample_ranges.hpp"
#include "parallel/communicator.hpp"

namespace red::train {

struct Returns {
  int64_t count = 0;
  data::SampleRanges left_out;
};

/// Of all starts of the run. Collective; the same on every rank.
Returns returns_so_far(const std::filesystem::path& run_dir, parallel::Communicator& world);

/// The newest whole checkpoint of at most `most_steps` steps; newer ones are set aside as
/// step-N.called-off-K, newest first, so that a run that dies meanwhile goes on from one before or after
/// them, as it would have. Nothing: there is none, and nothing was changed. No save may be under way.
/// Collective.
std::optional<std::filesystem::path> return_to_checkpoint(const std::filesystem::path& run_dir,
                                                          int64_t most_steps, parallel::Communicator& world);

/// What checkpoints keep of it, so that a run that goes on from one elsewhere agrees.
void add_left_out(const data::SampleRanges& left_out, std::map<std::string, std::string>& extra);
data::SampleRanges left_out_of(const checkpoint::Metadata& metadata);

}  // namespace red::train
