#include "parallel/star.hpp"

#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "parallel/mpi_check.hpp"
#include "parallel/one_machine.hpp"

namespace red::parallel {
namespace {

using Clock = std::chrono::steady_clock;

// One connection that says nothing must not use up the time of all.
constexpr double kHandshakeSeconds = 5;

/// What rank 0 tells the others over MPI.
struct Invitation {
  std::array<char, 32> token{};    ///< a connection that knows it is a rank of this run
  std::array<char, 32> counter{};  ///< an answer that knows it comes from this run's rank 0
  std::array<uint32_t, 8> addresses{};
  std::array<char, 64> host{};
  int32_t num_addresses = 0;  ///< 0: rank 0 cannot listen
  uint16_t port = 0;
};

std::string_view view(const std::array<char, 32>& bytes) {
  return {bytes.data(), bytes.size()};
}

Invitation invite(const Listener& listener, bool one_machine) {
  Invitation invitation;
  std::vector<uint32_t> addresses = own_addresses();
  if (one_machine) addresses = {addresses.back()};  // loopback
  const std::size_t count = std::min(addresses.size(), invitation.addresses.size());
  std::copy_n(addresses.begin(), count, invitation.addresses.begin());
  invitation.num_addresses = static_cast<int32_t>(count);
  invitation.port = listener.port;
  for (auto* secret : {&invitation.token, &invitation.counter}) {
    if (getrandom(secret->data(), secret->size(), 0) != static_cast<ssize_t>(secret->size())) {
      throw CommunicationError("the system gives no random numbers for the abort channel: {}",
                               std::strerror(errno));
    }
  }
  const std::string host = host_name();
  std::copy_n(host.begin(), std::min(host.size(), invitation.host.size() - 1), invitation.host.begin());
  return invitation;
}

/// The next message, when it comes within the time.
bool read_one(const StarConnection& connection, MessageHead& head, std::string_view& text) {
  while (true) {
    const MessageReader::Result result = connection.reader->next(connection.socket, head, text);
    if (result != MessageReader::Result::nothing) return result == MessageReader::Result::message;
    if (!readable_within(connection.socket.get(), kHandshakeSeconds)) return false;
  }
}

/// Rank 0's half. Gives what came within the time.
std::vector<StarConnection> accept_all(const Listener& listener, const Invitation& invitation, int size,
                                       double timeout_s) {
  std::vector<StarConnection> connections(size - 1);
  const Clock::time_point start = Clock::now();
  for (int missing = size - 1; missing > 0;) {
    const double left = timeout_s - std::chrono::duration<double>(Clock::now() - start).count();
    if (left <= 0) break;
    StarConnection next{0, {}, accept_within(listener.socket, left), std::make_unique<MessageReader>()};
    MessageHead head;
    std::string_view text;
    if (!next.socket || !read_one(next, head, text) || head.kind != SignalKind::hello ||
        text.substr(0, invitation.token.size()) != view(invitation.token) || head.rank < 1 ||
        head.rank >= size || connections[head.rank - 1].socket) {
      continue;  // not of this run
    }
    next.rank = head.rank;
    next.host = text.substr(invitation.token.size());
    if (!send_message(next.socket, {SignalKind::welcome}, view(invitation.counter), kHandshakeSeconds))
      continue;
    connections[head.rank - 1] = std::move(next);
    --missing;
  }
  return connections;
}

/// The others' half: tries the addresses in turn, until the time is over.
StarConnection connect_to_rank_0(const Invitation& invitation, int rank, double timeout_s) {
  const Clock::time_point start = Clock::now();
  const std::string hello = std::string(view(invitation.token)) + host_name();
  while (std::chrono::duration<double>(Clock::now() - start).count() < timeout_s) {
    for (int i = 0; i < invitation.num_addresses; ++i) {
      StarConnection connection{0, invitation.host.data(),
                                connect_to(invitation.addresses[i], invitation.port, kHandshakeSeconds),
                                std::make_unique<MessageReader>()};
      MessageHead head;
      std::string_view text;
      if (connection.socket &&
          send_message(connection.socket, {SignalKind::hello, rank}, hello, kHandshakeSeconds) &&
          read_one(connection, head, text) && head.kind == SignalKind::welcome &&
          text == view(invitation.counter)) {
        return connection;
      }
    }
  }
  return {};
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown host";
}

std::vector<StarConnection> connect_star(MPI_Comm world, double timeout_s) {
  int rank = 0, size = 1;
  RED_MPI(MPI_Comm_rank(world, &rank));
  RED_MPI(MPI_Comm_size(world, &size));
  if (size == 1) return {};
  const bool one_machine = on_one_machine(world);
  Invitation invitation;
  Listener listener;
  std::string trouble = "rank 0 cannot listen for it";
  if (rank == 0) {
    try {
      listener = listen_on_free_port(one_machine, size);
      invitation = invite(listener, one_machine);
    } catch (const CommunicationError& error) {
      trouble = error.what();
    }
  }
  RED_MPI(MPI_Bcast(&invitation, sizeof invitation, MPI_BYTE, 0, world));
  if (invitation.num_addresses == 0) throw CommunicationError("no abort channel: {}", trouble);
  std::vector<StarConnection> connections;
  int first_missing = size;
  if (rank == 0) {
    connections = accept_all(listener, invitation, size, timeout_s);
    for (int r = size - 1; r >= 1; --r) {
      if (!connections[r - 1].socket) first_missing = r;
    }
  } else {
    connections.push_back(connect_to_rank_0(invitation, rank, timeout_s));
    if (!connections[0].socket) first_missing = rank;
  }
  RED_MPI(MPI_Allreduce(MPI_IN_PLACE, &first_missing, 1, MPI_INT, MPI_MIN, world));
  if (first_missing < size) {
    throw CommunicationError(
        "rank {} cannot connect to rank 0 on {} (TCP port {}) within {:.0f} s; a firewall between the "
        "machines "
        "must let ranks of one run connect",
        first_missing, invitation.host.data(), invitation.port, timeout_s);
  }
  return connections;
}

}  // namespace red::parallel
