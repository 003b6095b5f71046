// Another library reads what we write: h5py sees every tensor whole through the index, whatever tiling wrote
// it, from any working folder; and sees NaN, never zeros, where a shard file is missing.
#include <gtest/gtest.h>

#include <cstdlib>

#include "checkpoint/test_run.hpp"
#include "checkpoint/tiled_model.hpp"

namespace red::checkpoint::test {
namespace {

namespace fs = std::filesystem;

using H5pyTest = CheckpointTest;

/// Debian's Python, whose h5py has Debian's HDF5, and the one of launch/python_packages.sh, whose h5py brings
/// an HDF5 of its own.
const std::string kDebian = "/usr/bin/python3", kPyPI = RED_SOURCE_DIR "/build/python/bin/python";

bool run_python(const std::string& python, const std::string& arguments) {
  return std::system(("cd / && '" + python + "' " + arguments).c_str()) == 0;
}

/// Those with h5py. The same verdict on all ranks: they share the machine.
std::vector<std::string> pythons_with_h5py() {
  std::vector<std::string> found;
  for (const std::string& python : {kDebian, kPyPI})
    if (run_python(python, "-c 'import h5py' 2>/dev/null")) found.push_back(python);
  const char* demanded = std::getenv("RED_REQUIRE_TENSORBOARD");
  if (demanded != nullptr && std::string(demanded) == "1") {
    EXPECT_EQ(found.size(), 2U)
        << "h5py is missing: run launch/packages.sh test and launch/python_packages.sh";
  }
  return found;
}

void write_expected(const fs::path& folder, int version) {
  fs::create_directories(folder);
  for (const LogicalTensor& tensor : model_tensors()) {
    std::string name = tensor.path;
    for (char& c : name) c = c == '/' ? '+' : c;
    std::ofstream out(folder / name, std::ios::binary);
    for (int64_t row = 0; row < tensor.rows; ++row) {
      for (int64_t col = 0; col < whole(tensor).num_cols; ++col) {
        const std::vector<std::byte> bytes = element_bytes(tensor, row, col, version);
        out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
      }
    }
  }
}

TEST_F(H5pyTest, SeesEveryTensorWhole) {
  const std::vector<std::string> pythons = pythons_with_h5py();
  if (pythons.empty()) GTEST_SKIP() << "h5py is not installed";
  int step = 0;
  for (const Tiling& tiling : tilings()) {
    ++step;
    OwnedShards owned = shards_of(tiling, rank(), size(), step % 3);
    owned.fill(step);
    save(folder(), metadata_of(step), owned.shards(), world());
    if (rank() != 0) continue;
    const fs::path expected = folder() / ("expected-" + std::to_string(step));
    write_expected(expected, step);
    const std::string script = RED_SOURCE_DIR "/tests/checkpoint/read_with_h5py.py";
    for (const std::string& python : pythons) {
      const std::string arguments =
          "'" + script + "' '" + find_latest(folder())->string() + "' '" + expected.string() + "'";
      EXPECT_TRUE(run_python(python, arguments)) << python << ", " << tiling.name;
    }
  }
}

/// HDF5's own programs: h5ls names every tensor, h5dump writes the bytes of each.
TEST_F(H5pyTest, ToolsOfHdf5SeeEveryTensorWhole) {
  if (std::system("h5dump --version >/dev/null 2>&1 && h5ls --version >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "hdf5-tools is not installed";
  OwnedShards owned = shards_of(tilings()[2], rank(), size(), 1);
  owned.fill(1);
  save(folder(), metadata_of(1), owned.shards(), world());
  if (rank() != 0) return;
  const std::string index = (folder() / "step-00000001/index.h5").string();
  const fs::path expected = folder() / "expected", listing = folder() / "listing", dump = folder() / "dump";
  write_expected(expected, 1);
  EXPECT_EQ(std::system(("cd / && h5ls -r '" + index + "' >'" + listing.string() + "'").c_str()), 0);
  for (const LogicalTensor& tensor : model_tensors()) {
    EXPECT_TRUE(has(text_of(listing), "/" + tensor.path + " "));
    const std::string command = "cd / && h5dump -d '/" + tensor.path + "' -b LE -o '" + dump.string() +
                                "' '" + index + "' >/dev/null";
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    std::string name = tensor.path;
    for (char& c : name) c = c == '/' ? '+' : c;
    EXPECT_TRUE(text_of(dump) == text_of(expected / name)) << tensor.path;
  }
}

TEST_F(H5pyTest, SeesNanWhereAShardIsMissing) {
  const std::vector<std::string> pythons = pythons_with_h5py();
  if (pythons.empty()) GTEST_SKIP() << "h5py is not installed";
  OwnedShards owned = shards_of(tilings()[0], rank(), size(), 0);
  owned.fill(1);
  save(folder(), metadata_of(1), owned.shards(), world());
  if (rank() != 0) return;
  const fs::path checkpoint = folder() / "step-00000001";
  fs::remove(checkpoint / shard_file_name(size() - 1));
  const std::string code =
      "import h5py, numpy; h = h5py.File(\"" + (checkpoint / "index.h5").string() +
      "\"); assert numpy.isnan(h[\"parameters/embedding.weight\"][-1]).all(); "
      "assert numpy.isnan(h[\"optimizer/v_row/embedding.weight\"][-1]); "
      "assert h[\"optimizer/t\"][0] == -2**31; assert (h[\"parameters/flags\"][-1] == 255).all()";
  for (const std::string& python : pythons) EXPECT_TRUE(run_python(python, "-c '" + code + "'")) << python;
}

}  // namespace
}  // namespace red::checkpoint::test
