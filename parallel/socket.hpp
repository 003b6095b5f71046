// TCP as the abort channel needs it: a handle, connections inside a cluster, and messages with a fixed head.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace red::parallel {

/// Owns a file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { reset(); }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset() noexcept;

 private:
  int fd_ = -1;
};

struct Listener {
  FileDescriptor socket;
  uint16_t port = 0;
};

/// Listens on a free port, of the loopback device alone or of all. Throws CommunicationError.
Listener listen_on_free_port(bool loopback_only, int backlog);

/// IPv4 addresses of this machine that are up, loopback last.
std::vector<uint32_t> own_addresses();

/// Connects within the time; empty when that fails. The address is in network byte order, as own_addresses()
/// gives it.
FileDescriptor connect_to(uint32_t address, uint16_t port, double timeout_s);

/// The next connection, within the time; empty when none came.
FileDescriptor accept_within(const FileDescriptor& listener, double timeout_s);

/// True when the descriptor has something to read within the time.
bool readable_within(int fd, double timeout_s);

enum class SignalKind : uint32_t {
  hello,
  welcome,
  status,
  question,
  answer,
  wish,
  overdue,
  verdict,
  told,
  ready,
  notice,
  goodbye
};

/// Head of a message; `length` bytes of text follow. Both ends run on one kind of machine, as MPI wants too.
struct MessageHead {
  SignalKind kind = SignalKind::hello;
  int32_t rank = 0;
  int32_t code = 0;
  int32_t speaker = 0;
  uint32_t length = 0;
  double seconds = 0;
};

constexpr std::size_t kMaxText = 8000;  ///< longer texts are cut

/// False when the connection is gone, or took nothing for the time given. Never raises SIGPIPE.
bool send_message(const FileDescriptor& socket, MessageHead head, std::string_view text, double timeout_s);

/// Takes bytes as they come and gives whole messages back.
class MessageReader {
 public:
  enum class Result { message, nothing, closed };
  /// Reads without blocking. `text` is valid until the next call.
  Result next(const FileDescriptor& socket, MessageHead& head, std::string_view& text);
  /// errno of a connection that closed; 0: the other end closed it.
  int error() const { return error_; }

 private:
  std::array<char, sizeof(MessageHead) + kMaxText> buffer_{};
  std::size_t filled_ = 0;
  std::size_t consumed_ = 0;  ///< of the message given out last
  int error_ = 0;
};

}  // namespace red::parallel
