// The file of cuBLASLt's fastest algorithms.
#include "device/gemm_algorithms.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "support/temporary_folder.hpp"

namespace red::detail {
namespace {

constexpr GemmKey kKey{0, 1, 12, 8, 4, 4, 4, 8, 0, 0, 0, 1, 256, 64, 16}, kOther{1, 1, 1, 1, 1};

GemmAlgorithm algorithm(uint64_t number) {
  GemmAlgorithm result;
  for (uint64_t& word : result.algo.data) word = number++;
  result.workspace_bytes = 77;
  return result;
}

bool same(const GemmAlgorithm* a, const GemmAlgorithm& b) {
  return a != nullptr && a->workspace_bytes == b.workspace_bytes &&
         std::equal(std::begin(a->algo.data), std::end(a->algo.data), std::begin(b.algo.data));
}

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

TEST(GemmAlgorithms, AreFoundAgainByAnotherProcess) {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "new" / "algorithms.txt";
  GemmAlgorithms first(file, "a GPU");
  EXPECT_EQ(first.find(kKey), nullptr);
  first.add(kKey, algorithm(0xFFFFFFFFFFFFFF00U));
  EXPECT_TRUE(same(first.find(kKey), algorithm(0xFFFFFFFFFFFFFF00U)));
  const GemmAlgorithms second(file, "a GPU");
  EXPECT_TRUE(same(second.find(kKey), algorithm(0xFFFFFFFFFFFFFF00U)));
  EXPECT_EQ(second.find(kOther), nullptr);
}

TEST(GemmAlgorithms, OfAnotherProcessStay) {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "algorithms.txt";
  GemmAlgorithms first(file, "a GPU"), second(file, "a GPU");
  first.add(kKey, algorithm(1));
  second.add(kOther, algorithm(2));
  const GemmAlgorithms third(file, "a GPU");
  EXPECT_EQ(third.size(), 2);
}

TEST(GemmAlgorithms, OfAnotherGpuOrFormatAreNotUsed) {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "algorithms.txt";
  GemmAlgorithms(file, "a GPU").add(kKey, algorithm(1));
  EXPECT_EQ(GemmAlgorithms(file, "another GPU").size(), 0);
  std::string text = contents(file);
  text.replace(text.find("format 2"), 8, "format 1");
  std::ofstream(file) << text;
  EXPECT_EQ(GemmAlgorithms(file, "a GPU").size(), 0);
}

TEST(GemmAlgorithms, LinesThatAreNotOursAreLeftOut) {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "algorithms.txt";
  GemmAlgorithms(file, "a GPU").add(kKey, algorithm(1));
  std::ofstream(file, std::ios::app) << "1 2 3\n\n"
                                     << contents(file).substr(contents(file).rfind("0 1 12")) << " 5\n";
  EXPECT_EQ(GemmAlgorithms(file, "a GPU").size(), 1);
}

TEST(GemmAlgorithms, GoOnWithoutAFile) {
  GemmAlgorithms nowhere("", "a GPU");
  nowhere.add(kKey, algorithm(1));
  EXPECT_NE(nowhere.find(kKey), nullptr);
  const test::TemporaryFolder folder;
  std::ofstream(folder.path() / "file") << "no folder";
  GemmAlgorithms unwritable(folder.path() / "file" / "algorithms.txt", "a GPU");
  unwritable.add(kKey, algorithm(1));
  EXPECT_NE(unwritable.find(kKey), nullptr);
}

TEST(GemmAlgorithms, AreWhereTheEnvironmentSays) {
  setenv("RED_GEMM_CACHE", "/somewhere/file", 1);
  EXPECT_EQ(gemm_algorithms_file("x"), "/somewhere/file");
  setenv("RED_GEMM_CACHE", "off", 1);
  EXPECT_EQ(gemm_algorithms_file("x"), "");
  unsetenv("RED_GEMM_CACHE");
  setenv("XDG_CACHE_HOME", "/cache", 1);
  EXPECT_EQ(gemm_algorithms_file("cuBLASLt 1.2, GPU/3"),
            "/cache/redllm/gemm_algorithms_cuBLASLt_1.2__GPU_3.txt");
  unsetenv("XDG_CACHE_HOME");
  setenv("HOME", "/home/me", 1);
  EXPECT_EQ(gemm_algorithms_file("x"), "/home/me/.cache/redllm/gemm_algorithms_x.txt");
  unsetenv("HOME");
  EXPECT_EQ(gemm_algorithms_file("x"), "");
}

}  // namespace
}  // namespace red::detail
