// A checkpoint's index: an HDF5 file in memory, made as the bytes say, right in most and wrong in some parts.
// HDF5's own reading of damaged files is the library's affair and is left alone.
#include <array>

#include "checkpoint/manifest.hpp"
#include "fuzz/fuzz_target.hpp"

namespace {

using namespace red;
using namespace red::checkpoint;
using test::ByteSource;

constexpr std::array kShardNames = {"shard-00000.h5", "shard-00001.h5", "../a.h5", ""};

h5::File file_in_memory() {
  const h5::PropertyList access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_fapl_core(access.get(), 1 << 16, 0);
  return h5::File(H5Fcreate("index.h5", H5F_ACC_TRUNC, H5P_DEFAULT, access.get()));
}

/// An attribute that should be a text or a number: one in sixteen is the other, or is missing.
void write_attribute(ByteSource& source, hid_t object, const std::string& name, const std::string& text) {
  const int how = source.below(16);
  if (how == 0) return;
  if (how == 1) return h5::write_int(object, name, static_cast<int64_t>(source.number()));
  h5::write_text(object, name, how == 2 ? source.text() : text);
}
void write_attribute(ByteSource& source, hid_t object, const std::string& name, int64_t number) {
  const int how = source.below(16);
  if (how == 0) return;
  if (how == 1) return h5::write_text(object, name, source.text());
  h5::write_int(object, name, how == 2 ? static_cast<int64_t>(source.number()) : number);
}

void write_metadata(ByteSource& source, hid_t file) {
  write_attribute(source, file, "format", "redllm checkpoint");
  write_attribute(source, file, "format_major", 1);
  write_attribute(source, file, "format_minor", source.below(2));
  write_attribute(source, file, "step", 7);
  write_attribute(source, file, "sample_cursor", 56);
  write_attribute(source, file, "configuration", "[model]\n");
  write_attribute(source, file, "layout", "data 1");
  write_attribute(source, file, "tokenizer_digest", "");
  if (source.below(16) == 0) return;
  const h5::Group extra = h5::create_group(file, "extra");
  for (int i = source.below(3); i > 0; --i)
    write_attribute(source, extra.get(), "key" + std::to_string(i), "value");
}

void write_shard_list(ByteSource& source, hid_t file) {
  if (source.below(16) == 0) return;
  const h5::Group group = h5::create_group(file, "shard_files");
  std::vector<std::string> names;
  std::vector<uint64_t> sizes;
  for (int i = source.below(4); i > 0; --i)
    names.emplace_back(kShardNames[static_cast<std::size_t>(source.below(4))]);
  for (int i = source.below(4); i > 0; --i) sizes.push_back(source.number());
  h5::write_texts(group.get(), "name", names);
  std::vector<uint64_t> structures(sizes.size() + (source.below(16) == 0 ? 1 : 0), source.number());
  h5::write_all(group.get(), "structure_crc32c", structures);
  if (source.below(16) != 0) return h5::write_all(group.get(), "num_bytes", sizes);
  // A list of any length, of which nothing is written.
  const std::array<hsize_t, 1> length = {source.number()};
  const h5::Space space(H5Screate_simple(1, length.data(), nullptr));
  const h5::Dataset unwritten(H5Dcreate2(group.get(), "num_bytes", H5T_STD_U64LE, space.get(), H5P_DEFAULT,
                                         H5P_DEFAULT, H5P_DEFAULT));
}

hid_t element_type(ByteSource& source) {
  switch (source.below(16)) {
    case 0:
      return H5T_STD_I8LE;
    case 1:
      return H5T_IEEE_F64LE;
    case 2:
      return H5T_C_S1;
    default:
      return H5T_IEEE_F32LE;
  }
}

/// Tiles of rows, or anything else.
void map_tiles(ByteSource& source, hid_t create, const LogicalTensor& tensor, int rank) {
  const std::array<hsize_t, 3> shape = {static_cast<hsize_t>(tensor.rows), static_cast<hsize_t>(tensor.cols),
                                        1};
  for (int i = source.below(4), row = 0; i > 0; --i) {
    const Rectangle region{row, 1 + source.below(4), 0, std::max<int64_t>(1, tensor.cols)};
    row += static_cast<int>(region.num_rows);
    const std::array<hsize_t, 3> begin = {static_cast<hsize_t>(region.row_begin),
                                          source.below(16) == 0 ? 1U : 0U, 0};
    const std::array<hsize_t, 3> count = {static_cast<hsize_t>(region.num_rows),
                                          static_cast<hsize_t>(region.num_cols), 1};
    const std::array<hsize_t, 3> stride = {source.below(16) == 0 ? 2U : 1U, 1, 1};
    const h5::Space all(H5Screate_simple(rank, shape.data(), nullptr)),
        tile(H5Screate_simple(rank, count.data(), nullptr));
    if (H5Sselect_hyperslab(all.get(), H5S_SELECT_SET, begin.data(), stride.data(), count.data(), nullptr) <
        0)
      continue;
    const std::string name = source.below(8) == 0 ? "x" + source.text() : tile_name(tensor, region);
    H5Pset_virtual(create, all.get(), kShardNames[static_cast<std::size_t>(source.below(4))], name.c_str(),
                   tile.get());
  }
}

void write_tensor(ByteSource& source, hid_t file) {
  static constexpr std::array paths = {"parameters/w", "parameters/a/b", "optimizer/w", "extra",
                                       "a/b/c/d/e/f/g/h/i/j/k"};
  const std::string path =
      source.below(8) == 0 ? source.text() : paths[static_cast<std::size_t>(source.below(5))];
  const int rank = source.below(8) == 0 ? source.below(4) : 1 + source.below(2);
  std::array<hsize_t, 3> shape = {1 + source.number(), 1 + source.number(), 1 + source.number()};
  const LogicalTensor tensor{path, static_cast<int64_t>(shape[0]),
                             rank == 2 ? static_cast<int64_t>(shape[1]) : 0, DType::fp32};
  const h5::Space space(H5Screate_simple(rank, shape.data(), nullptr));
  const h5::PropertyList create(H5Pcreate(H5P_DATASET_CREATE)), link(H5Pcreate(H5P_LINK_CREATE));
  H5Pset_create_intermediate_group(link.get(), 1);
  if (source.below(8) != 0 && space) map_tiles(source, create.get(), tensor, rank);
  const h5::Dataset dataset(H5Dcreate2(file, path.c_str(), element_type(source), space.get(), link.get(),
                                       create.get(), H5P_DEFAULT));
  if (source.below(4) == 0) return;
  std::vector<uint64_t> checksums;
  for (int i = source.below(4); i > 0; --i) checksums.push_back(source.number());
  h5::write_all(file, tile_checksums_path(tensor), checksums);
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  ByteSource source(data, size);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const h5::File file = file_in_memory();
  test::survive([&] {
    write_metadata(source, file.get());
    write_shard_list(source, file.get());
    for (int i = source.below(4); i > 0; --i) write_tensor(source, file.get());
  });
  Manifest manifest;
  bool readable = false;
  test::survive([&] {
    manifest = read_manifest(file, "index.h5");
    readable = true;
  });
  if (!readable) return 0;
  for (const LogicalTensor& tensor : manifest.tensors) {
    test::survive([&] { read_tiles(file, "index.h5", manifest, tensor); });
  }
  return 0;
}
