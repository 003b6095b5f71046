// A run with a rank that is really slowed down, by stopping its process most of the time.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "integration/child_process.hpp"
#include "integration/working_directory.hpp"

namespace red::test {

struct SlowSteps {
  int begin = 0;  ///< rank 1 is slowed from this step on
  int steps = 0;  ///< for so many; then the run is asked to stop
};

/// `run` is a command line of a shell that trains in the folder `slow` by `program`, with train.log_every=1,
/// for more steps than are needed. Its log is slow.log, its status at the end status.txt, and `begin` has the
/// step at which the rank really began to be slow. Returns its metrics.
inline std::vector<nlohmann::json> run_with_slow_rank(const std::string& run, const std::string& program,
                                                      const SlowSteps& slow,
                                                      const std::filesystem::path& folder) {
  static constexpr const char* slow_down = R"SH(
  steps() { wc -l 2>/dev/null <slow/metrics.jsonl || echo 0; }
  until [ "$(steps)" -ge $1 ]; do kill -0 $pid || exit 99; sleep 0.05; done
  rank=$(for p in $(pgrep -f "^$program train .*run_dir=slow "); do
    tr '\0' '\n' </proc/$p/environ | grep -q '^OMPI_COMM_WORLD_RANK=1$' && echo $p; done)
  steps >begin
  end=$(($(steps) + $2))
  while [ "$(steps)" -lt $end ] && kill -0 $rank; do
    kill -STOP $rank; sleep 0.08; kill -CONT $rank; sleep 0.02
  done
  $program status slow >status.txt
  kill -TERM $rank
  while :; do wait $pid; code=$?; kill -0 $pid 2>/dev/null || exit $code; done
)SH";
  const std::string script = "program=" + program + "; " + run + " 2>slow.log & pid=$!" + slow_down;
  const ChildResult result =
      run_child({"/bin/bash", "-c", script, "bash", std::to_string(slow.begin), std::to_string(slow.steps)},
                folder, 240);
  EXPECT_EQ(result.exit_code, 75) << result.err << read_bytes(folder / "slow.log");
  std::istringstream lines(read_bytes(folder / "slow" / "metrics.jsonl"));
  std::vector<nlohmann::json> metrics;
  for (std::string line; std::getline(lines, line);) metrics.push_back(nlohmann::json::parse(line));
  return metrics;
}

}  // namespace red::test
