#include "checkpoint/h5.hpp"

#include <algorithm>

#include "checkpoint/posix_file.hpp"

namespace red::checkpoint::h5 {
namespace {

constexpr hsize_t kLargestExtent = hsize_t{1} << 62;
constexpr std::size_t kLargestList = std::size_t{1} << 30;  ///< bytes of a list that is read whole

/// Errors come back as text of exceptions, so the library prints none (where it is built for threads, that is
/// each thread's own setting); and it closes nothing at exit, because after a failed write that can crash.
void prepare_library() {
  static const bool done = [] {
    H5dont_atexit();
    return true;
  }();
  static_cast<void>(done);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

std::string name_of_file(hid_t object) {
  const ssize_t length = H5Fget_name(object, nullptr, 0);
  if (length <= 0) return "an HDF5 file";
  std::string name(static_cast<std::size_t>(length), '\0');
  H5Fget_name(object, name.data(), name.size() + 1);
  return name;
}

template <class T>
hid_t memory_type();
template <>
hid_t memory_type<double>() {
  return H5T_NATIVE_DOUBLE;
}
template <>
hid_t memory_type<int32_t>() {
  return H5T_NATIVE_INT32;
}
template <>
hid_t memory_type<uint64_t>() {
  return H5T_NATIVE_UINT64;
}
template <>
hid_t memory_type<int64_t>() {
  return H5T_NATIVE_INT64;
}

Attribute open_attribute(hid_t object, const std::string& name, const std::string& where) {
  if (!has_attribute(object, name)) throw DataError("{}: attribute '{}' is missing", where, name);
  return Attribute(RED_HDF5(DataError, H5Aopen(object, name.c_str(), H5P_DEFAULT),
                            "{}: cannot open attribute '{}'", where, name));
}

template <class T>
T read_scalar(hid_t object, const std::string& name, const std::string& where) {
  const Attribute attribute = open_attribute(object, name, where);
  const Space space(RED_HDF5(DataError, H5Aget_space(attribute.get()), "{}: attribute '{}'", where, name));
  if (H5Sget_simple_extent_npoints(space.get()) != 1)
    throw DataError("{}: attribute '{}' is not a single value", where, name);
  T value{};
  RED_HDF5(DataError, H5Aread(attribute.get(), memory_type<T>(), &value), "{}: cannot read attribute '{}'",
           where, name);
  return value;
}

template <class T>
void write_scalar(hid_t object, const std::string& name, hid_t type, T value) {
  const Space space(RED_HDF5(IoError, H5Screate(H5S_SCALAR), "attribute '{}'", name));
  const Attribute attribute(
      RED_HDF5(IoError, H5Acreate2(object, name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
               "cannot create attribute '{}'", name));
  RED_HDF5(IoError, H5Awrite(attribute.get(), memory_type<T>(), &value), "cannot write attribute '{}'", name);
}

Type text_type(bool variable_length, std::size_t num_bytes = 0) {
  Type type(RED_HDF5(IoError, H5Tcopy(H5T_C_S1), "text type"));
  RED_HDF5(IoError, H5Tset_size(type.get(), variable_length ? H5T_VARIABLE : num_bytes), "text type");
  RED_HDF5(IoError, H5Tset_cset(type.get(), H5T_CSET_UTF8), "text type");
  return type;
}

/// `type` is both the memory's and the file's.
void write_dataset(hid_t parent, const std::string& name, hid_t type, hsize_t num_elements,
                   const void* data) {
  const PropertyList create(RED_HDF5(IoError, H5Pcreate(H5P_DATASET_CREATE), "dataset '{}'", name));
  RED_HDF5(IoError, H5Pset_obj_track_times(create.get(), false), "dataset '{}'", name);
  const Space space(RED_HDF5(IoError, H5Screate_simple(1, &num_elements, nullptr), "dataset '{}'", name));
  const PropertyList link(RED_HDF5(IoError, H5Pcreate(H5P_LINK_CREATE), "dataset '{}'", name));
  RED_HDF5(IoError, H5Pset_create_intermediate_group(link.get(), 1), "dataset '{}'", name);
  const Dataset dataset(RED_HDF5(
      IoError, H5Dcreate2(parent, name.c_str(), type, space.get(), link.get(), create.get(), H5P_DEFAULT),
      "cannot create dataset '{}'", name));
  RED_HDF5(IoError, H5Dwrite(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data),
           "cannot write dataset '{}'", name);
}

herr_t append_name(hid_t, const char* name, const H5L_info_t*, void* names) {
  static_cast<std::vector<std::string>*>(names)->emplace_back(name);
  return 0;
}

herr_t append_attribute_name(hid_t, const char* name, const H5A_info_t*, void* names) {
  static_cast<std::vector<std::string>*>(names)->emplace_back(name);
  return 0;
}

}  // namespace

std::string library_version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

PropertyList file_access() {
  prepare_library();
  PropertyList access(RED_HDF5(IoError, H5Pcreate(H5P_FILE_ACCESS), "file access"));
  RED_HDF5(IoError, H5Pset_fclose_degree(access.get(), H5F_CLOSE_SEMI), "file access");
  RED_HDF5(IoError, H5Pset_file_locking(access.get(), false, true), "file access");
  // The oldest form of every object that can hold what we write: no time stamps, so that equal contents are
  // equal bytes; and no checksum in the superblock, which H5Fget_file_image of HDF5 1.10 would leave wrong.
  RED_HDF5(IoError, H5Pset_libver_bounds(access.get(), H5F_LIBVER_EARLIEST, H5F_LIBVER_V110), "file access");
  return access;
}

File open_file(const std::filesystem::path& path) {
  if (kind_of(path) == PathKind::nothing) throw DataError("'{}' is missing", path.string());
  const PropertyList access = file_access();
  set_reading_driver(access);
  static_cast<void>(take_failed_read());  // of another file, that nobody asked about
  return File(RED_HDF5(DataError, H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()),
                       "{}: cannot be opened as an HDF5 file", path.string()));
}

std::vector<std::string> member_names(hid_t parent, const std::string& group) {
  const std::string where = name_of_file(parent) + ": group '" + group + "'";
  if (group != "/" && !contains(parent, group)) throw DataError("{} is missing", where);
  const Group opened(
      RED_HDF5(DataError, H5Gopen2(parent, group.c_str(), H5P_DEFAULT), "{} is no group", where));
  std::vector<std::string> names;
  RED_HDF5(DataError, H5Literate(opened.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, append_name, &names),
           "{} cannot be listed", where);
  for (const std::string& name : names) {
    H5L_info_t info{};
    RED_HDF5(DataError, H5Lget_info(opened.get(), name.c_str(), &info, H5P_DEFAULT), "{}: '{}'", where, name);
    if (info.type != H5L_TYPE_HARD)
      throw DataError("{}: '{}' is a soft or external link; such links are refused", where, name);
  }
  return names;
}

namespace {

/// Of a question that HDF5 answers with yes (positive) or no, or cannot answer, which is no too, unless a
/// read failed.
bool answered(htri_t result, hid_t object, const std::string& name) {
  if (result > 0) return true;
  H5Eclear2(H5E_DEFAULT);
  if (const std::string failed = take_failed_read(); !failed.empty())
    throw IoError("{}: '{}': {}", name_of_file(object), name, failed);
  return false;
}

}  // namespace

bool contains(hid_t parent, const std::string& path) {
  // HDF5 asks for every link on the way by itself; missing ones in the middle are errors to it.
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string prefix = path.substr(0, end);
    H5L_info_t info{};
    const herr_t got = H5Lget_info(parent, prefix.c_str(), &info, H5P_DEFAULT);
    if (!answered(got < 0 ? got : 1, parent, prefix) || info.type != H5L_TYPE_HARD) return false;
    if (end == std::string::npos) return true;
  }
}

Dataset open_dataset(hid_t parent, const std::string& path) {
  if (!contains(parent, path)) throw DataError("{}: dataset '{}' is missing", name_of_file(parent), path);
  return Dataset(RED_HDF5(DataError, H5Dopen2(parent, path.c_str(), H5P_DEFAULT),
                          "{}: '{}' is no readable dataset", name_of_file(parent), path));
}

std::vector<int64_t> shape_of(hid_t dataset, const std::string& what) {
  const Space space(RED_HDF5(DataError, H5Dget_space(dataset), "{}: no shape", what));
  const int rank = RED_HDF5(DataError, H5Sget_simple_extent_ndims(space.get()), "{}: no shape", what);
  std::vector<hsize_t> extents(static_cast<std::size_t>(rank));
  RED_HDF5(DataError, H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr), "{}: no shape", what);
  std::vector<int64_t> shape;
  for (const hsize_t extent : extents) {
    if (extent > kLargestExtent) throw DataError("{}: an extent of {} cannot be", what, extent);
    shape.push_back(static_cast<int64_t>(extent));
  }
  return shape;
}

template <class T>
std::vector<T> read_all(hid_t parent, const std::string& path) {
  const Dataset dataset = open_dataset(parent, path);
  const std::string what = name_of_file(parent) + ": dataset '" + path + "'";
  std::size_t num_elements = 1;
  for (const int64_t extent : shape_of(dataset.get(), what)) {
    if (__builtin_mul_overflow(num_elements, static_cast<std::size_t>(extent), &num_elements) ||
        num_elements > kLargestList / sizeof(T))
      throw DataError("{}: its shape cannot be", what);
  }
  std::vector<T> values(num_elements);
  RED_HDF5(DataError, H5Dread(dataset.get(), memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
           "{} cannot be read", what);
  return values;
}
template std::vector<double> read_all<double>(hid_t, const std::string&);
template std::vector<int32_t> read_all<int32_t>(hid_t, const std::string&);
template std::vector<uint64_t> read_all<uint64_t>(hid_t, const std::string&);

std::vector<std::string> read_texts(hid_t parent, const std::string& path) {
  const Dataset dataset = open_dataset(parent, path);
  const std::string what = name_of_file(parent) + ": dataset '" + path + "'";
  const Type stored(RED_HDF5(DataError, H5Dget_type(dataset.get()), "{}", what));
  const std::vector<int64_t> shape = shape_of(dataset.get(), what);
  if (H5Tget_class(stored.get()) != H5T_STRING || H5Tis_variable_str(stored.get()) != 0 || shape.size() != 1)
    throw DataError("{} is no list of texts of fixed length", what);
  const std::size_t width = H5Tget_size(stored.get());
  std::size_t num_bytes = 0;
  if (__builtin_mul_overflow(width, static_cast<std::size_t>(shape[0]), &num_bytes) ||
      num_bytes > kLargestList)
    throw DataError("{}: {} texts cannot be", what, shape[0]);
  std::string table(num_bytes, '\0');
  RED_HDF5(DataError, H5Dread(dataset.get(), stored.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, table.data()),
           "{} cannot be read", what);
  std::vector<std::string> values;
  for (std::size_t begin = 0; begin < num_bytes; begin += width) {
    const std::string value = table.substr(begin, width);
    values.push_back(value.substr(0, value.find('\0')));
  }
  return values;
}

std::string read_text(hid_t object, const std::string& name, const std::string& where) {
  const Attribute attribute = open_attribute(object, name, where);
  const Type stored(RED_HDF5(DataError, H5Aget_type(attribute.get()), "{}: attribute '{}'", where, name));
  const Space space(RED_HDF5(DataError, H5Aget_space(attribute.get()), "{}: attribute '{}'", where, name));
  if (H5Tget_class(stored.get()) != H5T_STRING || H5Sget_simple_extent_npoints(space.get()) != 1)
    throw DataError("{}: attribute '{}' is no text", where, name);
  if (H5Tis_variable_str(stored.get()) <= 0) {
    std::string text(H5Tget_size(stored.get()), '\0');
    RED_HDF5(DataError, H5Aread(attribute.get(), stored.get(), text.data()), "{}: cannot read attribute '{}'",
             where, name);
    return text.substr(0, text.find('\0'));
  }
  char* value = nullptr;
  RED_HDF5(DataError, H5Aread(attribute.get(), stored.get(), static_cast<void*>(&value)),
           "{}: cannot read attribute '{}'", where, name);
  std::string text = value ? value : "";
  if (value) H5free_memory(value);
  return text;
}

int64_t read_int(hid_t object, const std::string& name, const std::string& where) {
  return read_scalar<int64_t>(object, name, where);
}

uint64_t read_uint(hid_t object, const std::string& name, const std::string& where) {
  return read_scalar<uint64_t>(object, name, where);
}

double read_double(hid_t object, const std::string& name, const std::string& where) {
  return read_scalar<double>(object, name, where);
}

bool has_attribute(hid_t object, const std::string& name) {
  return answered(H5Aexists(object, name.c_str()), object, name);
}

std::vector<std::string> attribute_names(hid_t object, const std::string& where) {
  std::vector<std::string> names;
  RED_HDF5(DataError, H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, nullptr, append_attribute_name, &names),
           "{}: attributes cannot be listed", where);
  return names;
}

void write_text(hid_t object, const std::string& name, const std::string& value) {
  if (value.find('\0') != std::string::npos) throw IoError("attribute '{}': text with a zero byte", name);
  const Type type = text_type(true);
  const Space space(RED_HDF5(IoError, H5Screate(H5S_SCALAR), "attribute '{}'", name));
  const Attribute attribute(
      RED_HDF5(IoError, H5Acreate2(object, name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
               "cannot create attribute '{}'", name));
  const char* text = value.c_str();
  RED_HDF5(IoError, H5Awrite(attribute.get(), type.get(), static_cast<const void*>(&text)),
           "cannot write attribute '{}'", name);
}

void write_int(hid_t object, const std::string& name, int64_t value) {
  write_scalar(object, name, H5T_STD_I64LE, value);
}

void write_uint(hid_t object, const std::string& name, uint64_t value) {
  write_scalar(object, name, H5T_STD_U64LE, value);
}

void write_double(hid_t object, const std::string& name, double value) {
  write_scalar(object, name, H5T_IEEE_F64LE, value);
}

Group create_group(hid_t parent, const std::string& name) {
  const PropertyList create(RED_HDF5(IoError, H5Pcreate(H5P_GROUP_CREATE), "group '{}'", name));
  RED_HDF5(IoError, H5Pset_obj_track_times(create.get(), false), "group '{}'", name);
  return Group(RED_HDF5(IoError, H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, create.get(), H5P_DEFAULT),
                        "cannot create group '{}'", name));
}

void write_texts(hid_t parent, const std::string& name, const std::vector<std::string>& values) {
  std::size_t width = 1;
  for (const std::string& value : values) width = std::max(width, value.size());
  std::string table;
  for (const std::string& value : values) {
    table += value;
    table.resize(table.size() + width - value.size(), '\0');
  }
  write_dataset(parent, name, text_type(false, width).get(), values.size(), table.data());
}

void write_all(hid_t parent, const std::string& name, const std::vector<uint64_t>& values) {
  write_dataset(parent, name, H5T_STD_U64LE, values.size(), values.data());
}

hid_t file_type(DType dtype) {
  switch (dtype) {
    case DType::fp32:
      return H5T_IEEE_F32LE;
    case DType::fp64:
      return H5T_IEEE_F64LE;
    case DType::int32:
      return H5T_STD_I32LE;
    case DType::uint8:
      return H5T_STD_U8LE;
    case DType::bf16:  // checkpoints hold the fp32 values that bf16 ones are made from
      break;
  }
  throw LogicError("no file type for dtype {}", static_cast<int>(dtype));
}

DType dtype_of_file_type(hid_t type, const std::string& what) {
  for (const DType dtype : {DType::fp32, DType::fp64, DType::int32, DType::uint8}) {
    if (H5Tequal(type, file_type(dtype)) > 0) return dtype;
  }
  throw DataError("{}: its element type is none of fp32, fp64, int32, uint8 (little-endian)", what);
}

}  // namespace red::checkpoint::h5
