#include "convert/checkpoint_writer.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <utility>

#include "base/check.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "convert/single_rank.hpp"

namespace red::convert {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const char* what, const fs::path& path) {
  throw IoError("cannot {} '{}': {} (errno {})", what, path.string(), std::strerror(errno), errno);
}

/// The whole file, read-only; pages go back when asked.
class Mapping {
 public:
  Mapping(int descriptor, uint64_t num_bytes, const fs::path& path) : num_bytes_(num_bytes) {
    memory_ = ::mmap(nullptr, num_bytes, PROT_READ, MAP_SHARED, descriptor, 0);
    if (memory_ == MAP_FAILED) fail("map", path);
  }
  ~Mapping() {
    if (::munmap(memory_, num_bytes_) != 0) log::rank_warning("munmap: {}", std::strerror(errno));
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::byte* memory() const { return static_cast<std::byte*>(memory_); }
  /// Only advice: what it cannot give back stays.
  void give_back() const { static_cast<void>(::madvise(memory_, num_bytes_, MADV_DONTNEED)); }

 private:
  void* memory_;
  uint64_t num_bytes_;
};

void write_at(int descriptor, uint64_t offset, std::span<const std::byte> bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written == 0) errno = ENOSPC;
    if (written <= 0) fail("write scratch data in", path);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
}

}  // namespace

CheckpointWriter::Scratch::~Scratch() {
  if (descriptor >= 0) ::close(descriptor);
}

CheckpointWriter::CheckpointWriter(const fs::path& run_dir,
                                   std::span<const checkpoint::LogicalTensor> tensors)
    : folder_(run_dir) {
  for (const checkpoint::LogicalTensor& tensor : tensors) {
    RED_CHECK(tensor.dtype == DType::fp32, "{} is {}", tensor.path, name_of(tensor.dtype));
    entries_.push_back({tensor, num_bytes_});
    const auto bytes = static_cast<uint64_t>(tensor.rows * entries_.back().cols()) * sizeof(float);
    num_bytes_ += (bytes + 63) / 64 * 64;
  }
  const fs::path scratch = folder_.partial() / "scratch";
  scratch_.descriptor = ::open(scratch.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (scratch_.descriptor < 0) fail("create", scratch);
  if (::unlink(scratch.c_str()) != 0) fail("unlink", scratch);
  if (::ftruncate(scratch_.descriptor, static_cast<off_t>(num_bytes_)) != 0) fail("extend", scratch);
}

void CheckpointWriter::write(std::size_t index, const model::ParameterRegion& region,
                             std::span<const float> values) {
  const Entry& entry = entries_[index];
  RED_CHECK(static_cast<int64_t>(values.size()) == region.size(), "{} values of {}", values.size(),
            entry.tensor.path);
  const auto offset_of = [&](int64_t row) {
    return entry.offset + static_cast<uint64_t>(row * entry.cols() + region.col_begin) * sizeof(float);
  };
  if (region.num_cols == entry.cols())
    return write_at(scratch_.descriptor, offset_of(region.row_begin), std::as_bytes(values),
                    folder_.partial());
  for (int64_t row = 0; row < region.num_rows; ++row) {
    const auto part = values.subspan(static_cast<std::size_t>(row * region.num_cols),
                                     static_cast<std::size_t>(region.num_cols));
    write_at(scratch_.descriptor, offset_of(region.row_begin + row), std::as_bytes(part), folder_.partial());
  }
}

void CheckpointWriter::write_file(const std::string& name, std::string_view text) const {
  folder_.write(name, text);
}

std::vector<checkpoint::Shard> CheckpointWriter::shards(std::byte* memory) const {
  std::vector<checkpoint::Shard> shards;
  for (const Entry& entry : entries_)
    shards.push_back(
        {entry.tensor, 0, entry.tensor.rows, 0, entry.cols(), memory + entry.offset, entry.cols()});
  return shards;
}

void CheckpointWriter::save(const checkpoint::Metadata& metadata) {
  {
    const Mapping mapping(scratch_.descriptor, num_bytes_, folder_.partial());
    SingleRank world([&mapping] { mapping.give_back(); });
    const std::vector<checkpoint::Shard> all = shards(mapping.memory());
    checkpoint::save(folder_.partial() / "checkpoints", metadata, all, world);
  }
  folder_.publish();
}

}  // namespace red::convert
