// metrics.jsonl: what a resume cuts off and keeps, and what a disk that takes no more does to it.
#include "train/metrics_file.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "support/temporary_folder.hpp"
#include "train/step_metrics.hpp"

namespace red::train {
namespace {

namespace fs = std::filesystem;
using test::step_metrics;

std::string text_of(const fs::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string lines(std::initializer_list<int64_t> steps) {
  std::string text;
  for (const int64_t step : steps) text += to_json(step_metrics(step)) + "\n";
  return text;
}

class MetricsFileTest : public testing::Test {
 protected:
  void write(std::initializer_list<int64_t> steps, int64_t last_step) {
    MetricsFile file(path_, last_step);
    for (const int64_t step : steps) file.write(step_metrics(step));
  }

  test::TemporaryFolder folder_;
  const fs::path path_ = folder_.path() / "metrics.jsonl";
};

TEST_F(MetricsFileTest, AResumeTakesOutLaterStepsAndKeepsThemAside) {
  write({1, 2, 3, 4}, 0);
  write({3, 4, 5}, 2);
  EXPECT_EQ(text_of(path_), lines({1, 2, 3, 4, 5}));
  EXPECT_EQ(text_of(path_.string() + ".after-step-2.removed"), lines({3, 4}));
  write({6}, 5);
  EXPECT_EQ(text_of(path_), lines({1, 2, 3, 4, 5, 6}));
  EXPECT_FALSE(fs::exists(path_.string() + ".after-step-5.removed"));
  EXPECT_FALSE(fs::exists(path_.string() + ".partial"));
}

TEST_F(MetricsFileTest, AHalfLineOfACrashGoesToo) {
  write({1, 2}, 0);
  const std::string half = R"({"step":3,"lo)";
  std::ofstream(path_, std::ios::app) << half;
  write({3}, 2);
  EXPECT_EQ(text_of(path_), lines({1, 2, 3}));
  EXPECT_EQ(text_of(path_.string() + ".after-step-2.removed"), half + "\n");
}

TEST_F(MetricsFileTest, AFolderThatIsNotThereIsNamed) {
  try {
    const MetricsFile file(folder_.path() / "missing" / "metrics.jsonl", 0);
    ADD_FAILURE() << "opened";
  } catch (const IoError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("missing/metrics.jsonl: cannot open: No such file"), std::string::npos) << message;
  }
}

/// No file of this process may grow beyond so many bytes.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t num_bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{num_bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
};

TEST_F(MetricsFileTest, AFailedWriteLeavesWholeLinesAndWritingGoesOn) {
  MetricsFile file(path_, 0);
  file.write(step_metrics(1));
  {
    const FileSizeLimit limit(lines({1}).size() + 20);  // room for the beginning of a line
    EXPECT_THROW(file.write(step_metrics(2)), IoError);
    EXPECT_EQ(text_of(path_), lines({1}));
    EXPECT_THROW(file.write(step_metrics(3)), IoError);
  }
  file.write(step_metrics(4));
  EXPECT_EQ(text_of(path_), lines({1, 4}));
}

TEST_F(MetricsFileTest, AFullDiskIsNamed) {
  fs::create_symlink("/dev/full", path_);
  RecordFile file(path_, RecordFile::Open::append);
  try {
    file.append("record\n");
    ADD_FAILURE() << "written";
  } catch (const IoError& error) {
    EXPECT_EQ(error.what(), path_.string() + ": cannot write: No space left on device");
  }
}

}  // namespace
}  // namespace red::train
