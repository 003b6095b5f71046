// How HDF5 reads our files: a file driver that opens and reads with the calls of posix_file.hpp, so that
// every failure of the system is kept with its errno, and the watchdog knows which file is waited for.
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#include "checkpoint/h5.hpp"
#include "checkpoint/posix_file.hpp"
#if __has_include(<H5FDdevelop.h>)  // of HDF5 1.14 and later
#include <H5FDdevelop.h>
#endif

namespace red::checkpoint::h5 {
namespace {

struct OpenFile : H5FD_t {
  explicit OpenFile(const char* name)
      : H5FD_t{}, file(PosixFile::open(name)), descriptor(file.descriptor()), num_bytes(file.num_bytes()) {}

  PosixFile file;
  int descriptor;  ///< of `file`; HDF5 gives out its address
  uint64_t num_bytes;
  haddr_t end = 0;  ///< of the addresses that HDF5 uses
};

OpenFile& of(H5FD_t* file) {
  return static_cast<OpenFile&>(*file);
}
const OpenFile& of(const H5FD_t* file) {
  return static_cast<const OpenFile&>(*file);
}

/// HDF5 is one for the whole process, used by one thread at a time, and so is this.
std::string& failed_read() {
  static std::string why;
  return why;
}

H5FD_t* open(const char* name, unsigned flags, hid_t, haddr_t) {
  if (flags != H5F_ACC_RDONLY) return nullptr;
  try {
    return std::make_unique<OpenFile>(name).release();
  } catch (const std::exception& error) {
    failed_read() = error.what();
    return nullptr;
  }
}

herr_t close(H5FD_t* file) {
  const std::unique_ptr<OpenFile> closes(&of(file));
  return 0;
}

herr_t query(const H5FD_t*, unsigned long* features) {
  *features = H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE | H5FD_FEAT_POSIX_COMPAT_HANDLE |
              H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
  return 0;
}

haddr_t end_of_addresses(const H5FD_t* file, H5FD_mem_t) {
  return of(file).end;
}

herr_t set_end_of_addresses(H5FD_t* file, H5FD_mem_t, haddr_t end) {
  of(file).end = end;
  return 0;
}

haddr_t end_of_file(const H5FD_t* file, H5FD_mem_t) {
  return of(file).num_bytes;
}

herr_t handle(H5FD_t* file, hid_t, void** descriptor) {
  *descriptor = &of(file).descriptor;
  return 0;
}

/// Bytes behind the end are zeros, as with HDF5's own driver.
herr_t read(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, size_t num_bytes, void* data) {
  const OpenFile& from = of(file);
  const uint64_t there = address < from.num_bytes ? from.num_bytes - address : 0;
  const auto count = static_cast<std::size_t>(std::min<uint64_t>(num_bytes, there));
  try {
    from.file.read_at(address, data, count);
  } catch (const DataError&) {  // it has become shorter
    return -1;
  } catch (const std::exception& error) {
    failed_read() = error.what();
    return -1;
  }
  std::memset(static_cast<char*>(data) + count, 0, num_bytes - count);
  return 0;
}

herr_t refuse_to_write(H5FD_t*, H5FD_mem_t, hid_t, haddr_t, size_t, const void*) {
  return -1;
}

hid_t driver() {
  static const hid_t id = [] {
    static H5FD_class_t driver{};
#ifdef H5FD_CLASS_VERSION
    driver.version = H5FD_CLASS_VERSION;
    driver.value = static_cast<H5FD_class_value_t>(600);  // of those that HDF5 leaves to others
#endif
    driver.name = "redllm_reading";
    driver.maxaddr = static_cast<haddr_t>(std::numeric_limits<int64_t>::max());
    driver.fc_degree = H5F_CLOSE_WEAK;
    driver.open = open;
    driver.close = close;
    driver.query = query;
    driver.get_eoa = end_of_addresses;
    driver.set_eoa = set_end_of_addresses;
    driver.get_eof = end_of_file;
    driver.get_handle = handle;
    driver.read = read;
    driver.write = refuse_to_write;
    constexpr H5FD_mem_t map[H5FD_MEM_NTYPES] = H5FD_FLMAP_DICHOTOMY;
    std::copy(std::begin(map), std::end(map), std::begin(driver.fl_map));
    return RED_HDF5(IoError, H5FDregister(&driver), "file driver");
  }();
  return id;
}

}  // namespace

std::string take_failed_read() {
  return std::exchange(failed_read(), {});
}

void set_reading_driver(const PropertyList& access) {
  RED_HDF5(IoError, H5Pset_driver(access.get(), driver(), nullptr), "file driver");
}

}  // namespace red::checkpoint::h5
