// HDF5 behind RAII: one move-only handle for every kind of id, one macro that turns a failed call into an
// exception with HDF5's own error stack as text, and the few calls that both readers and writers need. The
// library is not thread-safe: one thread at a time, whoever it is.
#pragma once

#include <fmt/format.h>
#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/dtype.hpp"
#include "base/error.hpp"

namespace red::checkpoint::h5 {

/// "1.10.8"
std::string library_version();

/// HDF5's error stack of the last failed call as one line, outermost function first; empties it.
std::string take_error_stack();

/// For destructors, which must not throw and must not be silent: logs what could not be closed.
void report_unclosed(const char* kind) noexcept;

template <herr_t (*kClose)(hid_t)>
struct KindOf;
#define RED_HDF5_KIND(close, text)            \
  template <>                                 \
  struct KindOf<close> {                      \
    static constexpr const char* name = text; \
  }
RED_HDF5_KIND(H5Fclose, "file");
RED_HDF5_KIND(H5Gclose, "group");
RED_HDF5_KIND(H5Dclose, "dataset");
RED_HDF5_KIND(H5Sclose, "dataspace");
RED_HDF5_KIND(H5Tclose, "datatype");
RED_HDF5_KIND(H5Aclose, "attribute");
RED_HDF5_KIND(H5Pclose, "property list");
#undef RED_HDF5_KIND

/// Owns one id.
template <herr_t (*kClose)(hid_t)>
class Handle {
 public:
  Handle() = default;
  explicit Handle(hid_t id) : id_(id) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0 && kClose(id_) < 0) report_unclosed(KindOf<kClose>::name);
  }

  hid_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  /// For RED_HDF5 around the closing call, where a failure matters: files that were written.
  herr_t close() { return id_ < 0 ? 0 : kClose(std::exchange(id_, H5I_INVALID_HID)); }

 private:
  hid_t id_ = H5I_INVALID_HID;
};

using File = Handle<H5Fclose>;
using Group = Handle<H5Gclose>;
using Dataset = Handle<H5Dclose>;
using Space = Handle<H5Sclose>;
using Type = Handle<H5Tclose>;
using Attribute = Handle<H5Aclose>;
using PropertyList = Handle<H5Pclose>;

/// Why a read that HDF5 asked for in a file of open_file() failed, since the last call; empty: none did.
/// HDF5's own error stack does not always tell: where it tries something else instead, it forgets the first
/// reason.
std::string take_failed_read();

/// Throws E: what was tried, the call, its place, HDF5's reasons. Where a read failed it is an IoError
/// instead of a DataError: what cannot be read may well be whole.
template <class E>
[[noreturn]] void fail(const char* call, const char* file, int line, const std::string& what) {
  const std::string stack = take_error_stack();
  if constexpr (std::is_same_v<E, DataError>) {
    if (const std::string failed = take_failed_read(); !failed.empty()) throw IoError("{}: {}", what, failed);
  }
  throw E("{}\n  {}:{}: {} failed: {}", what, file, line, call, stack);
}

/// Opens for reading; no locks are taken: checkpoints are written once. Throws DataError when it is not
/// there or no HDF5 file, IoError when it cannot be opened or read.
File open_file(const std::filesystem::path& path);

/// Makes files that are opened with this list be read by our own calls, by which take_failed_read() knows.
void set_reading_driver(const PropertyList& access);

/// A property list for reading and writing: no file locks, and all objects must be closed before their file.
PropertyList file_access();

/// Names in a group in alphabetical order. Throws DataError when there is no such group, or when it holds a
/// soft or external link: nothing of ours leads out of its file.
std::vector<std::string> member_names(hid_t parent, const std::string& group);
/// Whether `path` leads to an object, through hard links alone. Throws IoError when that cannot be read.
bool contains(hid_t parent, const std::string& path);

/// Throws DataError naming `path`, as do all that follow; IoError when it cannot be read.
Dataset open_dataset(hid_t parent, const std::string& path);
/// Extents of a dataset, each at most 2^62; `what` names it in the error.
std::vector<int64_t> shape_of(hid_t dataset, const std::string& what);
/// All elements, converted from the file's type. T: double, int32_t, uint64_t.
template <class T>
std::vector<T> read_all(hid_t parent, const std::string& path);

/// A one-dimensional dataset of texts.
std::vector<std::string> read_texts(hid_t parent, const std::string& path);

/// Scalars stored as attributes of an object. `where` names the object in the error.
std::string read_text(hid_t object, const std::string& name, const std::string& where);
int64_t read_int(hid_t object, const std::string& name, const std::string& where);
uint64_t read_uint(hid_t object, const std::string& name, const std::string& where);
double read_double(hid_t object, const std::string& name, const std::string& where);
bool has_attribute(hid_t object, const std::string& name);
std::vector<std::string> attribute_names(hid_t object, const std::string& where);

/// Throw IoError. Text is UTF-8 of any length without zero bytes, as h5py writes it.
void write_text(hid_t object, const std::string& name, const std::string& value);
void write_int(hid_t object, const std::string& name, int64_t value);
void write_uint(hid_t object, const std::string& name, uint64_t value);
void write_double(hid_t object, const std::string& name, double value);

Group create_group(hid_t parent, const std::string& name);
/// One-dimensional datasets, and the groups on the way to them; texts are stored with the length of the
/// longest.
void write_texts(hid_t parent, const std::string& name, const std::vector<std::string>& values);
void write_all(hid_t parent, const std::string& name, const std::vector<uint64_t>& values);

/// Element type as it stands in files, little-endian.
hid_t file_type(DType dtype);
/// The DType of a stored type; throws DataError naming `what` for any other.
DType dtype_of_file_type(hid_t type, const std::string& what);

}  // namespace red::checkpoint::h5

/// RED_HDF5(IoError, H5Dcreate2(...), "creating {}", name): the call's value, or an exception.
#define RED_HDF5(ErrorType, call, ...)                                                             \
  ([&] {                                                                                           \
    const auto red_hdf5_result = (call);                                                           \
    if (red_hdf5_result < 0) [[unlikely]]                                                          \
      ::red::checkpoint::h5::fail<ErrorType>(#call, __FILE__, __LINE__, fmt::format(__VA_ARGS__)); \
    return red_hdf5_result;                                                                        \
  }())
