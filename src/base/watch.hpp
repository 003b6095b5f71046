// What the watched threads of this process do, for another thread to look at: where they are in their work,
// and which call that may never return they are in. A watchdog (parallel/watchdog) holds the times against
// deadlines and puts the rest into its reports. One process has one list of them, as it has one list of
// threads; in a thread that is not watched all of this does nothing.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace red::watch {

struct Record;

/// A point in the work. Texts are literals: only the pointer is kept.
struct Place {
  const char* what = nullptr;  ///< null: nothing that must come to an end
  int micro_batch = -1;
  int chunk = -1;
  int peer = -1;  ///< virtual stage at the other end of a message
};

/// The calling thread is watched while this lives. The first thread of a process to say so is its main one.
class Thread {
 public:
  explicit Thread(const char* name);
  ~Thread();
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;
};

/// The calling thread computes, from here to the end of the scope; then it does again what it did before. No
/// allocation, no lock: a few stores and a look at the clock.
class Activity {
 public:
  explicit Activity(const char* what) noexcept;
  ~Activity();
  Activity(const Activity&) = delete;
  Activity& operator=(const Activity&) = delete;

  void now(const Place& place) noexcept;

 private:
  Record* record_;
  Place before_;
};

/// The calling thread is in a call that waits for a disk. May lie inside another one. Copies the name of the
/// file, as far as there is room.
class BlockingPoint {
 public:
  BlockingPoint(const char* what, std::string_view file) noexcept;
  ~BlockingPoint();
  BlockingPoint(const BlockingPoint&) = delete;
  BlockingPoint& operator=(const BlockingPoint&) = delete;

 private:
  Record* record_;
};

/// The calling thread works on this step from now on.
void at_step(int64_t step) noexcept;

/// Where this process is in the layout: "data 0, decoder stage 1".
void set_process_place(std::string place);

/// What a watched thread does. A position that changes while it is read may be half the one and half the
/// other; that of a thread that is stuck does not.
struct Doing {
  std::string thread;  ///< its name
  pid_t id = 0;
  std::string position;    ///< "step 12, backward of micro-batch 3"; empty: nothing that has one
  std::string blocking;    ///< "reading 'FILE'"; empty: in no such call
  bool computes = false;   ///< in an Activity, and in no BlockingPoint
  double unmoved_s = 0.0;  ///< since it last went on
};

/// Of all, the main thread first; empty: none is watched.
std::vector<Doing> look();

/// " (data 0, decoder stage 1)" or nothing.
std::string process_place();

}  // namespace red::watch
