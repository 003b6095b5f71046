#include "data/byte_stream.hpp"

#include <zstd.h>

#include <algorithm>
#include <boost/iostreams/categories.hpp>
#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filtering_streambuf.hpp>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "data/file_io.hpp"

namespace red::data {
namespace {

namespace io = boost::iostreams;

/// A file read from front to back, as Boost.Iostreams wants it.
class RawSource {
 public:
  using char_type = char;           // NOLINT(readability-identifier-naming): Boost's names
  using category = io::source_tag;  // NOLINT(readability-identifier-naming)
  explicit RawSource(std::shared_ptr<InputFile> file, uint64_t* position)
      : file_(std::move(file)), position_(position) {}

  std::streamsize read(char* out, std::streamsize count) {
    const uint64_t left = file_->num_bytes() - *position_;
    const uint64_t part = std::min(left, static_cast<uint64_t>(count));
    if (part == 0) return -1;
    file_->read_at(*position_, std::as_writable_bytes(std::span(out, part)));
    *position_ += part;
    return static_cast<std::streamsize>(part);
  }

 private:
  std::shared_ptr<InputFile> file_;
  uint64_t* position_;
};

/// Zstandard by its own library: Boost's filter takes a file that was cut off for a shorter one.
class ZstdSource {
 public:
  using char_type = char;           // NOLINT(readability-identifier-naming)
  using category = io::source_tag;  // NOLINT(readability-identifier-naming)
  explicit ZstdSource(RawSource raw)
      : raw_(std::move(raw)), context_(ZSTD_createDCtx(), ZSTD_freeDCtx), input_(ZSTD_DStreamInSize()) {}

  std::streamsize read(char* out, std::streamsize count) {
    ZSTD_outBuffer target{out, static_cast<std::size_t>(count), 0};
    while (target.pos == 0) {
      if (taken_ == filled_ && !refill()) {
        if (expected_ == 0) return -1;
        throw DataError("the compressed data ends in the middle of a frame; the file was cut off");
      }
      ZSTD_inBuffer source{input_.data(), filled_, taken_};
      expected_ = ZSTD_decompressStream(context_.get(), &target, &source);
      if (ZSTD_isError(expected_)) throw DataError("zstd: {}", ZSTD_getErrorName(expected_));
      taken_ = source.pos;
    }
    return static_cast<std::streamsize>(target.pos);
  }

 private:
  bool refill() {
    const std::streamsize got = raw_.read(input_.data(), static_cast<std::streamsize>(input_.size()));
    taken_ = 0;
    filled_ = got < 0 ? 0 : static_cast<std::size_t>(got);
    return got > 0;
  }
  RawSource raw_;
  std::shared_ptr<ZSTD_DCtx> context_;
  std::vector<char> input_;
  std::size_t taken_ = 0, filled_ = 0;
  std::size_t expected_ = 1;  ///< 0 where a frame has just ended
};

}  // namespace

struct ByteStream::Impl {
  std::shared_ptr<InputFile> file;
  uint64_t position = 0;
  io::filtering_streambuf<io::input> stream;
};

ByteStream::ByteStream(const std::filesystem::path& path) : impl_(std::make_unique<Impl>()) {
  impl_->file = std::make_shared<InputFile>(path);
  const RawSource raw(impl_->file, &impl_->position);
  if (path.extension() == ".gz") {
    impl_->stream.push(io::gzip_decompressor());
    impl_->stream.push(raw, 1 << 16);
  } else if (path.extension() == ".zst") {
    impl_->stream.push(ZstdSource(raw), 1 << 16);
  } else {
    impl_->stream.push(raw, 1 << 16);
  }
}

ByteStream::~ByteStream() = default;

std::size_t ByteStream::read(std::span<char> out) {
  const std::string name = impl_->file->path().string();
  try {
    const std::streamsize got = impl_->stream.sgetn(out.data(), static_cast<std::streamsize>(out.size()));
    return got < 0 ? 0 : static_cast<std::size_t>(got);
  } catch (const io::gzip_error& error) {
    throw DataError("{}: damaged or cut off gzip data ({})", name, error.what());
  } catch (const DataError& error) {
    throw DataError("{}: {}", name, error.what());
  }
}

uint64_t ByteStream::num_raw_bytes() const {
  return impl_->position;
}

std::filesystem::path without_compression(const std::filesystem::path& path) {
  const auto extension = path.extension();
  if (extension != ".gz" && extension != ".zst") return path;
  std::filesystem::path plain = path;
  return plain.replace_extension();
}

}  // namespace red::data
