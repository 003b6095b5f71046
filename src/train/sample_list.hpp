// Which samples a step had, for whoever looks for the one that made it fail.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/sample.hpp"
#include "data/sample_ranges.hpp"

namespace red::train {

/// Source to its items (windows of its token file, as `redllm data show` counts them).
using SampleList = std::map<std::string, std::vector<uint64_t>>;

/// `count` samples from `first` on, without those that are left out; items of a source in the order of
/// samples.
SampleList list_samples(const data::SampleProvider& provider, uint64_t first, int64_t count,
                        const data::SampleRanges& left_out = {});

/// "2 of wiki (7, 3), 20 of books (1, 5, 2, 9, 11, 4, 8, 6 ...)": at most `shown` items of each source.
std::string to_text(const SampleList& list, std::size_t shown = 8);

}  // namespace red::train
