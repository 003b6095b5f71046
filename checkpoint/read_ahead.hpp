// Reading ahead of somebody who computes between two reads. The kernel reads ahead only when it is asked for
// more, so the disk would stand still while tiles are compared with their checksums and the next ones are
// looked up: a thread of the process has the kernel go on meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>

namespace red::checkpoint {

/// Of one open file.
class ReadAhead {
 public:
  static constexpr uint64_t kLeastBytes = uint64_t{1} << 20, kMostBytes = uint64_t{32} << 20;

  /// The caller is about to read these bytes. Where it has read kLeastBytes one after another, but for short
  /// gaps, as many as it has, kMostBytes at most, are read ahead into the kernel's cache. Never waits, never
  /// fails.
  void before(int descriptor, uint64_t offset, std::size_t num_bytes);

 private:
  uint64_t run_bytes_ = 0;  ///< read one after another
  uint64_t next_ = 0;       ///< behind the last of them
  uint64_t asked_ = 0;      ///< behind what is read ahead
};

}  // namespace red::checkpoint
