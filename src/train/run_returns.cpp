#include "train/run_returns.hpp"

#include <fmt/format.h>

#include <charconv>

#include "base/error.hpp"
#include "checkpoint/choose.hpp"
#include "checkpoint/exchange.hpp"
#include "train/run_directory.hpp"
#include "train/run_log.hpp"

namespace red::train {
namespace {

constexpr const char* kLeftOut = "samples left out";

data::SampleRanges parse(const std::string& text, const char* where) {
  data::SampleRanges ranges;
  const std::string wrong = data::parse_sample_ranges(text, ranges);
  if (!wrong.empty()) throw DataError("{}: samples that were left out: '{}' {}", where, text, wrong);
  return ranges;
}

}  // namespace

Returns returns_so_far(const std::filesystem::path& run_dir, parallel::Communicator& world) {
  std::string text;
  if (world.rank() == 0) {
    const std::vector<RunReturn> found = read_returns(run_dir);
    data::SampleRanges ranges;
    for (const RunReturn& r : found) ranges.add(r.left_out);
    text = fmt::format("{} {}", found.size(), ranges.to_string());
  }
  text = checkpoint::text_of_first_rank(world, text);
  const std::size_t space = text.find(' ');
  Returns returns;
  std::from_chars(text.data(), text.data() + space, returns.count);
  returns.left_out = parse(text.substr(space + 1), "runs.jsonl");
  return returns;
}

std::optional<std::filesystem::path> return_to_checkpoint(const std::filesystem::path& run_dir,
                                                          int64_t most_steps, parallel::Communicator& world) {
  const std::filesystem::path dir = checkpoints_dir(run_dir);
  auto found = checkpoint::choose_newest(dir, world, most_steps);
  if (found) checkpoint::call_off_newer_together(dir, most_steps, world);
  return found;
}

void add_left_out(const data::SampleRanges& left_out, std::map<std::string, std::string>& extra) {
  if (!left_out.empty()) extra[kLeftOut] = left_out.to_string();
}

data::SampleRanges left_out_of(const checkpoint::Metadata& metadata) {
  const auto found = metadata.extra.find(kLeftOut);
  return found == metadata.extra.end() ? data::SampleRanges() : parse(found->second, "checkpoint");
}

}  // namespace red::train
