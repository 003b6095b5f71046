// A trace of some steps of all ranks, in the form that Perfetto and Chrome's viewer open: what each rank does
// in the pipeline and between passes, its waits, its messages with arrows from sender to receiver. The clocks
// of hosts are brought together.
#pragma once

#include <filesystem>
#include <string>

#include "parallel/communicator.hpp"
#include "parallel/layout.hpp"
#include "parallel/trace_log.hpp"

namespace red::train {

class StepTrace {
 public:
  /// Of steps [first, first + num_steps), into `path`. `world` must outlive it, and not be the traced one.
  StepTrace(parallel::Communicator& world, const parallel::Layout& layout, int64_t first, int64_t num_steps,
            std::filesystem::path path);

  parallel::TraceLog& log() { return log_; }
  void begin_step(int64_t step);
  /// Behind the last of the steps it writes the trace. Collective.
  void end_step(int64_t step);
  /// Writes what there is, where the run ends before its last traced step. Collective.
  void finish();

  bool written() const { return written_; }
  /// On rank 0: why the file could not be written, which is also in the log; else empty.
  const std::string& error() const { return error_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  void write();

  parallel::Communicator& world_;
  parallel::Layout layout_;
  const int64_t first_, last_;
  const std::filesystem::path path_;
  parallel::TraceLog log_;
  double step_begin_ = 0.0;
  bool written_ = false;
  std::string error_;
};

}  // namespace red::train
