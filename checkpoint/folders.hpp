// The life of a checkpoint's folder: step-N.partial while it is written, step-N once it is whole, and the
// text file `latest` that names the newest. A folder with a final name is never written into, replaced or
// deleted.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace red::checkpoint {

std::string folder_name(int64_t step);  ///< "step-00001000"
std::filesystem::path partial_folder(const std::filesystem::path& checkpoints_dir, int64_t step);

/// Makes step-N.partial, empty: removes what an interrupted save of the same step left there. Throws IoError.
void prepare_partial(const std::filesystem::path& checkpoints_dir, int64_t step);

/// Gives the finished step-N.partial its final name, then moves `latest`. Where step-N exists already (a run
/// was resumed before it and came by again), that one is set aside first as step-N.superseded-K, with a
/// warning. Throws IoError, having undone what it did to step-N.
void publish(const std::filesystem::path& checkpoints_dir, int64_t step);

}  // namespace red::checkpoint
