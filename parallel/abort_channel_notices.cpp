// The part of the abort channel that carries news which end nothing: to rank 0, and from there to everyone.
#include <utility>

#include "parallel/abort_channel.hpp"

namespace red::parallel {

int32_t AbortChannel::new_subject() {
  const std::lock_guard lock(mutex_);
  return ++last_subject_;
}

void AbortChannel::post(int32_t subject, const std::string& text) {
  const std::lock_guard lock(mutex_);
  if (failure_ || stop_) return;
  if (is_hub()) return spread({rank_, subject, text});
  send_message(peers_[0].connection.socket, {SignalKind::notice, rank_, subject}, text, kSendSeconds);
}

void AbortChannel::listen(std::function<void(const Notice&)> listener) {
  const std::lock_guard lock(mutex_);
  listener_ = std::move(listener);
}

/// Elsewhere than on rank 0 it has come from there, and goes no further.
void AbortChannel::spread(const Notice& notice) {
  if (is_hub()) {
    for (Peer& peer : peers_) {
      if (peer.connection.socket)
        send_message(peer.connection.socket, {SignalKind::notice, notice.rank, notice.subject}, notice.text,
                     kSendSeconds);
    }
  }
  if (listener_) listener_(notice);
}

}  // namespace red::parallel
