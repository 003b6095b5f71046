#include "convert/consolidate.hpp"

#include <algorithm>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "checkpoint/h5.hpp"
#include "checkpoint/posix_file.hpp"
#include "convert/new_folder.hpp"
#include "convert/progress.hpp"

namespace red::convert {
namespace {

namespace fs = std::filesystem;
namespace h5 = checkpoint::h5;
using checkpoint::LogicalTensor;

/// A tensor as it stands in the checkpoint, and where its bytes go.
struct Target {
  LogicalTensor tensor;
  DType dtype;  ///< in the new file
  uint64_t offset = 0;
  int64_t cols() const { return std::max<int64_t>(tensor.cols, 1); }
};

bool is_parameter(const LogicalTensor& tensor) {
  return tensor.path.starts_with("parameters/");
}

std::vector<Target> targets_of(const checkpoint::Reader& reader, const ConsolidateOptions& options) {
  std::vector<Target> targets;
  for (const LogicalTensor& tensor : reader.tensors()) {
    if (is_parameter(tensor)) targets.push_back({tensor, options.dtype});
    if (!is_parameter(tensor) && options.optimizer_state) targets.push_back({tensor, tensor.dtype});
  }
  return targets;
}

/// bf16 is no type of HDF5's own; as a float of 8 bits of exponent and 7 of mantissa any HDF5 library
/// converts it.
h5::Type file_type(DType dtype) {
  if (dtype != DType::bf16) return h5::Type(RED_HDF5(IoError, H5Tcopy(h5::file_type(dtype)), "element type"));
  h5::Type type(RED_HDF5(IoError, H5Tcopy(H5T_IEEE_F32LE), "element type"));
  RED_HDF5(IoError, H5Tset_fields(type.get(), 15, 7, 8, 0, 7), "element type bf16");
  RED_HDF5(IoError, H5Tset_size(type.get(), 2), "element type bf16");
  RED_HDF5(IoError, H5Tset_ebias(type.get(), 127), "element type bf16");
  return type;
}

h5::PropertyList contiguous() {
  h5::PropertyList create(RED_HDF5(IoError, H5Pcreate(H5P_DATASET_CREATE), "dataset properties"));
  RED_HDF5(IoError, H5Pset_layout(create.get(), H5D_CONTIGUOUS), "dataset properties");
  RED_HDF5(IoError, H5Pset_alloc_time(create.get(), H5D_ALLOC_TIME_EARLY), "dataset properties");
  RED_HDF5(IoError, H5Pset_fill_time(create.get(), H5D_FILL_TIME_NEVER), "dataset properties");
  RED_HDF5(IoError, H5Pset_obj_track_times(create.get(), false), "dataset properties");
  return create;
}

uint64_t create_dataset(hid_t file, const Target& target, hid_t create, hid_t link) {
  const std::string& name = target.tensor.path;
  const hsize_t extents[2] = {static_cast<hsize_t>(target.tensor.rows), static_cast<hsize_t>(target.cols())};
  const h5::Space space(RED_HDF5(IoError, H5Screate_simple(target.tensor.cols == 0 ? 1 : 2, extents, nullptr),
                                 "shape of '{}'", name));
  const h5::Type type = file_type(target.dtype);
  const h5::Dataset dataset(
      RED_HDF5(IoError, H5Dcreate2(file, name.c_str(), type.get(), space.get(), link, create, H5P_DEFAULT),
               "creating '{}'", name));
  const haddr_t offset = H5Dget_offset(dataset.get());
  if (offset == HADDR_UNDEF)
    throw IoError("'{}' was given no place in its file: {}", name, h5::take_error_stack());
  return offset;
}

void write_attributes(hid_t file, const checkpoint::Metadata& metadata, const ConsolidateOptions& options) {
  h5::write_text(file, "format", "redllm consolidated checkpoint");
  h5::write_int(file, "format_major", 1);
  h5::write_int(file, "format_minor", 0);
  h5::write_int(file, "step", metadata.step);
  h5::write_uint(file, "sample_cursor", metadata.sample_cursor);
  h5::write_text(file, "configuration", metadata.configuration);
  h5::write_text(file, "layout", metadata.layout);
  h5::write_text(file, "tokenizer_digest", metadata.tokenizer_digest);
  const h5::Group extra = h5::create_group(file, "extra");
  if (!options.optimizer_state) return;
  for (const auto& [name, value] : metadata.extra) h5::write_text(extra.get(), name, value);
}

/// Everything but the bulk bytes, which HDF5 never writes: on a full disk it may close a truncated file
/// silently.
void create_structure(const checkpoint::PosixFile& file, const checkpoint::Metadata& metadata,
                      std::vector<Target>& targets, const ConsolidateOptions& options) {
  const std::string path = file.path().string();
  const h5::PropertyList access = h5::file_access();
  RED_HDF5(IoError, H5Pset_alignment(access.get(), 65536, 4096), "{}", path);
  h5::File out(RED_HDF5(IoError, H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()),
                        "cannot create '{}'", path));
  const h5::PropertyList create = contiguous();
  const h5::PropertyList link(RED_HDF5(IoError, H5Pcreate(H5P_LINK_CREATE), "{}", path));
  RED_HDF5(IoError, H5Pset_create_intermediate_group(link.get(), 1), "{}", path);
  write_attributes(out.get(), metadata, options);
  for (Target& target : targets) target.offset = create_dataset(out.get(), target, create.get(), link.get());
  hsize_t num_bytes = 0;
  RED_HDF5(IoError, H5Fget_filesize(out.get(), &num_bytes), "{}", path);
  file.reserve(num_bytes);
  RED_HDF5(IoError, H5Fflush(out.get(), H5F_SCOPE_GLOBAL), "cannot write the structure of '{}'", path);
  RED_HDF5(IoError, out.close(), "cannot close '{}'", path);
  for (const Target& target : targets) {
    const auto end =
        target.offset + static_cast<uint64_t>(target.tensor.rows * target.cols()) * size_of(target.dtype);
    if (end > file.num_bytes())
      throw IoError("'{}' was not written as HDF5 said: '{}' lies beyond the end", path, target.tensor.path);
  }
}

/// The first bytes become bf16 in place.
void narrow(std::vector<std::byte>& bytes) {
  const std::size_t count = bytes.size() / sizeof(float);
  for (std::size_t i = 0; i < count; ++i) {
    float value = 0.0F;
    __builtin_memcpy(&value, bytes.data() + i * sizeof(float), sizeof(value));
    const bf16 rounded(value);
    __builtin_memcpy(bytes.data() + i * sizeof(bf16), &rounded, sizeof(rounded));
  }
  bytes.resize(count * sizeof(bf16));
}

void copy(const checkpoint::Reader& reader, const Target& target, const checkpoint::PosixFile& file,
          Progress& progress) {
  std::vector<std::byte> block;
  for_each_row_block(target.tensor.rows, target.cols(), [&](int64_t first, int64_t count) {
    block.resize(static_cast<std::size_t>(count * target.cols()) * size_of(target.tensor.dtype));
    reader.read({target.tensor, first, count, 0, target.cols(), block.data(), target.cols()});
    progress.add(block.size());
    if (target.dtype != target.tensor.dtype) narrow(block);
    const uint64_t offset =
        target.offset + static_cast<uint64_t>(first * target.cols()) * size_of(target.dtype);
    file.write_at(offset, block.data(), block.size());
    file.begin_sync(offset, block.size());
  });
}

/// Takes away what was not finished.
class Unfinished {
 public:
  explicit Unfinished(fs::path path) : path_(std::move(path)) { remove(); }
  ~Unfinished() {
    if (!done_) remove();
  }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;
  const fs::path& path() const { return path_; }
  void done() { done_ = true; }

 private:
  void remove() const {
    std::error_code error;
    fs::remove(path_, error);
    if (error) log::warning("cannot remove '{}': {}", path_.string(), error.message());
  }
  fs::path path_;
  bool done_ = false;
};

}  // namespace

void consolidate(const ModelCheckpoint& model, const fs::path& out, const ConsolidateOptions& options) {
  check_new(out);
  std::vector<Target> targets = targets_of(model.reader(), options);
  uint64_t num_bytes = 0;
  for (const Target& target : targets)
    num_bytes += static_cast<uint64_t>(target.tensor.rows * target.cols()) * size_of(target.tensor.dtype);
  Progress progress(fmt::format("consolidating {}", model.folder().string()), num_bytes);
  Unfinished partial(out.string() + ".partial");
  checkpoint::PosixFile file = checkpoint::PosixFile::create(partial.path());
  create_structure(file, model.reader().metadata(), targets, options);
  for (const Target& target : targets) copy(model.reader(), target, file, progress);
  file.sync();
  file.close();
  checkpoint::rename_path(partial.path(), out);
  partial.done();
  checkpoint::sync_folder(out.has_parent_path() ? out.parent_path() : fs::path("."));
  progress.finish();
}

}  // namespace red::convert
