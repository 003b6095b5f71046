// main() of tests on several ranks: each test runs on all ranks at once; rank 0 prints, and prints the
// failures of the others too. Use EXPECT_ before a collective, never ASSERT_: a rank that leaves early hangs
// the rest. An exception that leaves a test ends all ranks at once, with its message.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdio>
#include <string>
#include <vector>

// Of LeakSanitizer; null in builds without it.
extern "C" void __lsan_do_leak_check() __attribute__((weak));  // NOLINT

namespace {

/// Collects failure texts of one test on each rank and prints them on rank 0.
class GatherFailures : public testing::EmptyTestEventListener {
 public:
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    if (result.file_name() != nullptr) {  // an exception has no place
      text_ += std::string(result.file_name()) + ":" + std::to_string(result.line_number()) + "\n";
    }
    text_ += std::string(result.message()) + "\n";
  }

  void OnTestEnd(const testing::TestInfo&) override {
    int rank = 0, size = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    int length = static_cast<int>(text_.size());
    std::vector<int> lengths(size), offsets(size);
    MPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, MPI_COMM_WORLD);
    int total = 0;
    for (int r = 0; r < size; ++r) {
      offsets[r] = total;
      total += lengths[r];
    }
    std::string all(total, '\0');
    MPI_Gatherv(text_.data(), length, MPI_CHAR, all.data(), lengths.data(), offsets.data(), MPI_CHAR, 0,
                MPI_COMM_WORLD);
    if (rank == 0) {
      for (int r = 1; r < size; ++r) {
        if (lengths[r] != 0) std::printf("rank %d:\n%s", r, all.substr(offsets[r], lengths[r]).c_str());
      }
      if (total > lengths[0]) ADD_FAILURE() << "a test failed on other ranks, see above";
    }
    text_.clear();
  }

 private:
  std::string text_;
};

}  // namespace

int main(int argc, char** argv) {
  testing::GTEST_FLAG(catch_exceptions) = false;
  testing::InitGoogleTest(&argc, argv);
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  auto* printer = listeners.Release(listeners.default_result_printer());
  // Ends of tests go through the listeners backwards: the gatherer after the printer, so that a failure it
  // adds on rank 0 is counted before the printer says how the test ended.
  if (rank == 0) {
    listeners.Append(printer);
  } else {
    delete printer;
  }
  listeners.Append(new GatherFailures);
  int failed = RUN_ALL_TESTS();
  MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  // While Open MPI's plug-ins are still loaded, or nothing could tell their leaks from ours.
  if (__lsan_do_leak_check != nullptr) __lsan_do_leak_check();
  MPI_Finalize();
  return failed;
}
