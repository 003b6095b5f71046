// The race checker: kernels are compiled with -fsanitize=thread, whose calls at every access end here and not
// in libtsan. For each byte it remembers who touched it last, and in which interval between barriers. Two
// threads of a block may touch a byte in the same interval only to read it; two blocks of a launch never,
// unless by atomics. A race need not happen to be found, so one order of threads is enough. This file itself
// is compiled without sanitizers.
#include <dlfcn.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "runtime/failure.hpp"
#include "runtime/flavour.hpp"
#include "runtime/race_hooks.hpp"
#include "runtime/ready_queue.hpp"
#include "shim/thread.hpp"

extern "C" {
extern char __bss_start, _end;  // static shared memory lies between them
}

namespace cuda_on_cpu {
namespace {

/// When: a number for each block of each launch, and the barriers that the block and the thread's warp had
/// passed.
struct Moment {
  uint32_t block = 0;
  uint16_t block_barriers = 0, warp_barriers = 0;
};

/// Who, and when.
struct Access {
  Moment when;
  uint16_t thread = 0;
};

enum class Readers : uint8_t { one, of_one_warp, many };

/// The history of a byte.
struct Cell {
  Access write, read;
  bool atomic_write = false;
  Readers readers = Readers::one;  ///< in the interval of `read`
  uint16_t other_reader = 0;       ///< a thread that read before `read`, if there are more than one
};

constexpr uintptr_t kPageBytes = 4096;
constexpr std::size_t kMostPages = 2048;  // 230 MiB of cells

class RaceChecker {
 public:
  void begin_launch() {
    first_block_ = block_ + 1;
    // Nothing of earlier launches is asked for again.
    if (pages_.size() > kMostPages) {
      pages_.clear();
      last_page_ = ~uintptr_t{0};
    }
  }
  void begin_block(const void* shared, std::size_t num_bytes) {
    ++block_;
    block_barriers_ = 0;
    warp_barriers_.fill(0);
    shared_ = static_cast<const char*>(shared);
    shared_bytes_ = num_bytes;
  }
  void block_barrier() { ++block_barriers_; }
  void warp_barrier(unsigned warp, unsigned mask) {
    if (mask == ~0U) ++warp_barriers_[warp];  // fewer lanes order nothing for the others
  }

  void access(const void* address, std::size_t num_bytes, bool write, bool atomic, const void* pc) {
    const ThreadContext* thread = current_thread;
    const auto* bytes = static_cast<const std::byte*>(address);
    if (thread == nullptr || static_cast<std::size_t>(bytes - thread->stack) < thread->stack_bytes) return;
    const Request request{address, pc, write, atomic, in_shared_memory(static_cast<const char*>(address))};
    const Access me{{block_, block_barriers_, warp_barriers_[thread->index / kWarpSize]},
                    static_cast<uint16_t>(thread->index)};
    for (std::size_t i = 0; i < num_bytes; ++i)
      touch(cell(reinterpret_cast<uintptr_t>(address) + i), request, me);
  }

 private:
  struct Request {
    const void *address, *pc;
    bool write, atomic, shared;
  };

  bool in_shared_memory(const char* byte) const {
    return (byte >= shared_ && byte < shared_ + shared_bytes_) || (byte >= &__bss_start && byte < &_end);
  }

  /// Whether a barrier lies between an access of this block and the present one of `me`.
  static bool ordered(const Access& before, const Access& me) {
    if (before.thread == me.thread || before.when.block_barriers != me.when.block_barriers) return true;
    return before.thread / kWarpSize == me.thread / kWarpSize &&
           before.when.warp_barriers < me.when.warp_barriers;
  }
  /// Whether it was made in this launch by a block that runs, for all we know, at the same time.
  bool by_another_block(const Access& before) const {
    return before.when.block >= first_block_ && before.when.block < block_;
  }

  void touch(Cell& cell, const Request& request, const Access& me) {
    const bool both_atomic = request.atomic && cell.atomic_write;
    if (cell.write.when.block == block_) {
      if (!both_atomic && !ordered(cell.write, me))
        report(request.write ? "a write after a write" : "a read after a write", request, me, cell.write);
    } else if (!request.shared) {
      if (!both_atomic && by_another_block(cell.write))
        report("global memory that another block writes", request, me, cell.write);
    } else if (!request.write) {
      report("a read of shared memory that this block has not written", request, me, me);
    }
    request.write ? note_write(cell, request, me) : note_read(cell, me);
  }

  void note_write(Cell& cell, const Request& request, const Access& me) {
    if (cell.read.when.block == block_) {
      if (!reads_ordered(cell, me)) {
        Access reader = cell.read;
        if (reader.thread == me.thread) reader.thread = cell.other_reader;
        report("a write after a read", request, me, reader);
      }
    } else if (!request.shared && by_another_block(cell.read)) {
      report("a write to global memory that another block reads", request, me, cell.read);
    }
    cell.write = me;
    cell.atomic_write = request.atomic;
  }

  static bool reads_ordered(const Cell& cell, const Access& me) {
    if (cell.readers == Readers::one) return ordered(cell.read, me);
    if (cell.read.when.block_barriers != me.when.block_barriers) return true;
    return cell.readers == Readers::of_one_warp && cell.read.thread / kWarpSize == me.thread / kWarpSize &&
           cell.read.when.warp_barriers < me.when.warp_barriers;
  }

  void note_read(Cell& cell, const Access& me) const {
    const Access& last = cell.read;
    const bool one_warp = last.thread / kWarpSize == me.thread / kWarpSize && cell.readers != Readers::many;
    const bool same_interval = last.when.block == block_ &&
                               last.when.block_barriers == me.when.block_barriers &&
                               !(one_warp && last.when.warp_barriers < me.when.warp_barriers);
    if (!same_interval) {
      cell.readers = Readers::one;
    } else if (last.thread != me.thread) {
      cell.readers = one_warp ? Readers::of_one_warp : Readers::many;
      cell.other_reader = last.thread;
    }
    cell.read = me;
  }

  /// With what addr2line takes: `addr2line -Cfie PROGRAM OFFSET`.
  [[noreturn]] static void report(const char* what, const Request& request, const Access& me,
                                  const Access& other) {
    const uint3 block = current_thread->block_index;
    Dl_info place{};
    dladdr(request.pc, &place);
    const auto offset =
        reinterpret_cast<uintptr_t>(request.pc) - reinterpret_cast<uintptr_t>(place.dli_fbase);
    fail(
        "race: {} at {} in {} memory: block ({},{},{}) thread {}, and thread {} of {} block; "
        "addr2line -Cfie {} {:#x}",
        what, request.address, request.shared ? "shared" : "global", block.x, block.y, block.z, me.thread,
        other.thread, other.when.block == me.when.block ? "this" : "another",
        place.dli_fname == nullptr ? "?" : place.dli_fname, offset - 1);
  }

  Cell& cell(uintptr_t address) {
    const uintptr_t page = address / kPageBytes;
    if (page != last_page_) {
      auto& cells = pages_[page];
      if (!cells) cells = std::make_unique<Page>();
      last_page_ = page;
      last_cells_ = cells.get();
    }
    return (*last_cells_)[address % kPageBytes];
  }

  using Page = std::array<Cell, kPageBytes>;
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  uintptr_t last_page_ = ~uintptr_t{0};
  Page* last_cells_ = nullptr;
  uint32_t block_ = 0, first_block_ = 0;
  uint16_t block_barriers_ = 0;
  std::array<uint16_t, kMaxThreads / kWarpSize> warp_barriers_{};
  const char* shared_ = nullptr;
  std::size_t shared_bytes_ = 0;
};

RaceChecker& checker() {
  static auto& instance = *new RaceChecker;
  return instance;
}

}  // namespace

std::string_view flavour() {
  return "race";
}
void race_begin_launch() {
  checker().begin_launch();
}
void race_begin_block(const void* shared, std::size_t num_bytes) {
  checker().begin_block(shared, num_bytes);
}
void race_block_barrier() {
  checker().block_barrier();
}
void race_warp_barrier(unsigned warp, unsigned mask) {
  checker().warp_barrier(warp, mask);
}
void race_atomic(const void* address, std::size_t num_bytes) {
  checker().access(address, num_bytes, true, true, __builtin_return_address(0));
}

}  // namespace cuda_on_cpu

// What GCC calls where -fsanitize=thread is on.
#define CUDA_ON_CPU_ACCESS(name, num_bytes, write)                                                \
  void name(void* address) {                                                                      \
    cuda_on_cpu::checker().access(address, num_bytes, write, false, __builtin_return_address(0)); \
  }
#define CUDA_ON_CPU_ACCESSES(num_bytes)                                  \
  CUDA_ON_CPU_ACCESS(__tsan_read##num_bytes, num_bytes, false)           \
  CUDA_ON_CPU_ACCESS(__tsan_write##num_bytes, num_bytes, true)           \
  CUDA_ON_CPU_ACCESS(__tsan_unaligned_read##num_bytes, num_bytes, false) \
  CUDA_ON_CPU_ACCESS(__tsan_unaligned_write##num_bytes, num_bytes, true) \
  CUDA_ON_CPU_ACCESS(__tsan_volatile_read##num_bytes, num_bytes, false)  \
  CUDA_ON_CPU_ACCESS(__tsan_volatile_write##num_bytes, num_bytes, true)
extern "C" {
CUDA_ON_CPU_ACCESSES(1)
CUDA_ON_CPU_ACCESSES(2)
CUDA_ON_CPU_ACCESSES(4)
CUDA_ON_CPU_ACCESSES(8)
CUDA_ON_CPU_ACCESSES(16)
void __tsan_read_range(void* address, unsigned long num_bytes) {
  cuda_on_cpu::checker().access(address, num_bytes, false, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, unsigned long num_bytes) {
  cuda_on_cpu::checker().access(address, num_bytes, true, false, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
