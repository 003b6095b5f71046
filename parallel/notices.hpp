// News of one rank that every rank hears at once, beside MPI: nobody waits for it, and it ends nothing. What
// all have to do together they still agree on over the communicator.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace red::parallel {

struct Notice {
  int rank = 0;         ///< whose news
  int32_t subject = 0;  ///< what it concerns, of new_subject()
  std::string text;
};

class NoticeBoard {
 public:
  virtual ~NoticeBoard() = default;
  /// Never given out before, so that late news of an old subject concern no later one. The same on every rank
  /// where all ask in the same order.
  virtual int32_t new_subject() = 0;
  /// From any thread. All ranks hear it, this one too; nobody does once the run has failed or is over.
  virtual void post(int32_t subject, const std::string& text) = 0;
  /// Who hears them from now on, on a thread of the board's or of a post(): it must be quick, and may not
  /// throw or call the board. Nothing ends that; when this returns, the one before is not called any more.
  virtual void listen(std::function<void(const Notice&)> listener) = 0;
};

}  // namespace red::parallel
