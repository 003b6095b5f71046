#include "train/sample_list.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace red::train {

SampleList list_samples(const data::SampleProvider& provider, uint64_t first, int64_t count,
                        const data::SampleRanges& left_out) {
  const std::vector<std::string> names = provider.source_names();
  SampleList list;
  data::Sample sample;
  for (int64_t i = 0; i < count; ++i) {
    provider.get(left_out.at(first, static_cast<uint64_t>(i)), sample);
    list[names[static_cast<std::size_t>(sample.source)]].push_back(sample.source_item);
  }
  return list;
}

std::string to_text(const SampleList& list, std::size_t shown) {
  std::string text;
  for (const auto& [source, items] : list) {
    text += fmt::format("{}{} of {} (", text.empty() ? "" : ", ", items.size(), source);
    for (std::size_t i = 0; i < std::min(items.size(), shown); ++i)
      text += fmt::format("{}{}", i == 0 ? "" : ", ", items[i]);
    text += items.size() > shown ? " ...)" : ")";
  }
  return text;
}

}  // namespace red::train
