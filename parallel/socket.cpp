#include "parallel/socket.hpp"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/error.hpp"

namespace red::parallel {
namespace {

using Clock = std::chrono::steady_clock;

/// Waits for events on one descriptor; interrupted waits go on.
bool wait_for(int fd, short events, double timeout_s) {
  const Clock::time_point end =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_s));
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd entry{fd, events, 0};
    const int found = poll(&entry, 1, static_cast<int>(std::max<int64_t>(left, 0)));
    if (found > 0) return true;
    if (found == 0 || errno != EINTR) return false;
  }
}

sockaddr_in address_of(uint32_t address, uint16_t port) {
  sockaddr_in target{};
  target.sin_family = AF_INET;
  target.sin_port = htons(port);
  target.sin_addr.s_addr = address;
  return target;
}

/// Small messages go at once, and a machine that vanished is noticed within half a minute.
void configure(int fd) {
  auto set = [fd](int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(IPPROTO_TCP, TCP_KEEPCNT, 4);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 30000);
}

}  // namespace

void FileDescriptor::reset() noexcept {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

Listener listen_on_free_port(bool loopback_only, int backlog) {
  Listener listener{FileDescriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)), 0};
  sockaddr_in own = address_of(htonl(loopback_only ? INADDR_LOOPBACK : INADDR_ANY), 0);
  socklen_t length = sizeof own;
  auto* generic = reinterpret_cast<sockaddr*>(&own);
  const int fd = listener.socket.get();
  if (fd < 0 || bind(fd, generic, length) != 0 || listen(fd, backlog) != 0 ||
      getsockname(fd, generic, &length) != 0) {
    throw CommunicationError("cannot listen on a TCP port for the abort channel: {}", std::strerror(errno));
  }
  listener.port = ntohs(own.sin_port);
  return listener;
}

std::vector<uint32_t> own_addresses() {
  std::vector<uint32_t> addresses;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) == 0) {
    for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
      if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET) continue;
      if ((entry->ifa_flags & IFF_UP) == 0 || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
      addresses.push_back(reinterpret_cast<const sockaddr_in*>(entry->ifa_addr)->sin_addr.s_addr);
    }
    freeifaddrs(list);
  }
  addresses.push_back(htonl(INADDR_LOOPBACK));
  return addresses;
}

FileDescriptor connect_to(uint32_t address, uint16_t port, double timeout_s) {
  FileDescriptor connection(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!connection) return {};
  const sockaddr_in target = address_of(address, port);
  if (connect(connection.get(), reinterpret_cast<const sockaddr*>(&target), sizeof target) != 0) {
    int error = 0;
    socklen_t length = sizeof error;
    if (errno != EINPROGRESS || !wait_for(connection.get(), POLLOUT, timeout_s) ||
        getsockopt(connection.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0) {
      return {};
    }
  }
  configure(connection.get());
  return connection;
}

FileDescriptor accept_within(const FileDescriptor& listener, double timeout_s) {
  if (!wait_for(listener.get(), POLLIN, timeout_s)) return {};
  FileDescriptor connection(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (connection) configure(connection.get());
  return connection;
}

bool readable_within(int fd, double timeout_s) {
  return wait_for(fd, POLLIN, timeout_s);
}

bool send_message(const FileDescriptor& socket, MessageHead head, std::string_view text, double timeout_s) {
  std::array<char, sizeof(MessageHead) + kMaxText> buffer;
  text = text.substr(0, kMaxText);
  head.length = static_cast<uint32_t>(text.size());
  std::memcpy(buffer.data(), &head, sizeof head);
  std::copy(text.begin(), text.end(), buffer.begin() + sizeof head);
  const std::size_t total = sizeof head + text.size();
  for (std::size_t sent = 0; sent < total;) {
    const ssize_t count = send(socket.get(), buffer.data() + sent, total - sent, MSG_NOSIGNAL);
    if (count > 0) {
      sent += static_cast<std::size_t>(count);
    } else if (count < 0 && errno == EAGAIN) {
      if (!wait_for(socket.get(), POLLOUT, timeout_s)) return false;
    } else if (count < 0 && errno != EINTR) {
      return false;
    }
  }
  return true;
}

MessageReader::Result MessageReader::next(const FileDescriptor& socket, MessageHead& head,
                                          std::string_view& text) {
  std::memmove(buffer_.data(), buffer_.data() + consumed_, filled_ - consumed_);
  filled_ -= std::exchange(consumed_, 0);
  while (true) {
    if (filled_ >= sizeof head) {
      std::memcpy(&head, buffer_.data(), sizeof head);
      if (head.length > kMaxText) return Result::closed;  // not one of ours
      if (filled_ >= sizeof head + head.length) {
        text = {buffer_.data() + sizeof head, head.length};
        consumed_ = sizeof head + head.length;
        return Result::message;
      }
    }
    const ssize_t count = recv(socket.get(), buffer_.data() + filled_, buffer_.size() - filled_, 0);
    if (count > 0) {
      filled_ += static_cast<std::size_t>(count);
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
      error_ = count == 0 ? 0 : errno;
      return Result::closed;
    } else if (errno == EAGAIN) {
      return Result::nothing;
    }
  }
}

}  // namespace red::parallel
