// TensorBoard's event files: RUN/events.out.tfevents.SECONDS.HOST.PID. A file is a row of records, each
//   u64 length, u32 masked CRC-32C of it, `length` bytes, u32 masked CRC-32C of them    (little-endian)
// whose bytes are one Event in protocol buffers' wire format. docs/metrics.md lists fields and tags.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include "train/metrics.hpp"
#include "train/record_file.hpp"

namespace red::train {

/// A number by which a CRC is stored, so that the CRC of data that holds CRCs is no weak one.
uint32_t masked_crc32c(std::string_view bytes);

/// The bytes framed as one record.
std::string event_record(std::string_view event);

/// One curve's point: tag and value.
using ScalarPoint = std::pair<std::string, float>;

/// Events, encoded. wall_time in seconds since 1970.
std::string version_event(double wall_time);
/// SessionLog START: whoever reads the folder forgets values of `step` and later that came before it.
std::string restart_event(double wall_time, int64_t step);
std::string scalar_event(double wall_time, int64_t step, std::span<const ScalarPoint> points);

/// What TensorBoard shows of a step; what the step lacks is left out.
std::vector<ScalarPoint> scalar_points(const StepMetrics& metrics);

class EventFile final : public MetricsSink {
 public:
  /// A new file in `folder`, behind those that are there, that calls off their steps after `last_step`.
  /// Throws IoError.
  EventFile(const std::filesystem::path& folder, int64_t last_step);

  std::string name() const override { return file_.path().string(); }
  void write(const StepMetrics& metrics) override;

 private:
  RecordFile file_;
};

}  // namespace red::train
