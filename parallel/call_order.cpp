#include "parallel/call_order.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

namespace red::parallel {
namespace {

std::string_view name_of(CallKind kind) {
  switch (kind) {
    case CallKind::all_reduce:
      return "all-reduce";
    case CallKind::reduce_scatter:
      return "reduce-scatter";
    case CallKind::all_gather:
      return "all-gather";
    case CallKind::broadcast:
      return "broadcast";
    case CallKind::barrier:
      return "barrier";
    case CallKind::send:
      return "send";
    case CallKind::receive:
      return "receive";
    case CallKind::wait:
      return "wait";
  }
  return "?";
}

bool is_collective(const Call& call) {
  return call.kind < CallKind::send;
}

bool same_collective(const Call& a, const Call& b) {
  return std::tie(a.kind, a.dtype, a.op, a.peer, a.count) == std::tie(b.kind, b.dtype, b.op, b.peer, b.count);
}

bool same_bytes(const Call& a, const Call& b) {
  return a.count * static_cast<int64_t>(size_of(a.dtype)) == b.count * static_cast<int64_t>(size_of(b.dtype));
}

/// "all-reduce (max) of 8 fp32"
std::string text_of(const Call& call) {
  std::string text(name_of(call.kind));
  if (call.op != ReduceOp::sum) text += call.op == ReduceOp::max ? " (max)" : " (min)";
  if (call.kind == CallKind::broadcast) text += fmt::format(" from its rank {}", call.peer);
  if (call.kind == CallKind::barrier) return text;
  return text + fmt::format(" of {} {}", call.count, red::name_of(call.dtype));
}

/// A call, as its rank and its place in that rank's log.
struct Place {
  int rank;
  std::size_t index;
};

class Comparison {
 public:
  explicit Comparison(std::span<const CallLog> logs) : logs_(logs) { sort_calls(); }

  std::string conflict() {
    std::string text = collective_conflict();
    if (text.empty()) text = message_conflict();
    if (text.empty()) text = circle();
    return text;
  }

 private:
  /// The calls of one communicator's collectives, by rank of it.
  struct Collectives {
    const CallGroup* group = nullptr;
    std::vector<std::vector<Place>> of_rank;
  };
  /// Of one tag from one rank to another.
  struct Messages {
    const CallGroup* group = nullptr;
    std::vector<Place> sends, receives;
  };
  using MessageKey = std::tuple<int64_t, int32_t, int32_t, int32_t>;  // group, source, destination, tag

  const Call& at(const Place& place) const {
    return logs_[static_cast<std::size_t>(place.rank)].calls[place.index];
  }
  const CallGroup& group_of(const Place& place) const {
    return logs_[static_cast<std::size_t>(place.rank)].groups[static_cast<std::size_t>(at(place).group)];
  }

  void sort_calls() {
    for (int rank = 0; rank < static_cast<int>(logs_.size()); ++rank) {
      const CallLog& log = logs_[static_cast<std::size_t>(rank)];
      for (const CallGroup& group : log.groups) {
        Collectives& c = collectives_[group.id];
        if (c.group == nullptr) c = {&group, std::vector<std::vector<Place>>(group.ranks.size())};
      }
      for (std::size_t i = 0; i < log.calls.size(); ++i) sort_call({rank, i});
    }
  }
  void sort_call(const Place& place) {
    const Call& call = at(place);
    const CallGroup& group = group_of(place);
    if (is_collective(call)) {
      const auto own = std::find(group.ranks.begin(), group.ranks.end(), place.rank) - group.ranks.begin();
      collectives_[group.id].of_rank[static_cast<std::size_t>(own)].push_back(place);
    } else if (call.kind != CallKind::wait) {
      const bool sends = call.kind == CallKind::send;
      const int32_t peer = group.ranks[static_cast<std::size_t>(call.peer)];
      Messages& m = messages_[{group.id, sends ? place.rank : peer, sends ? peer : place.rank, call.tag}];
      m.group = &group;
      (sends ? m.sends : m.receives).push_back(place);
    }
  }

  std::string collective_conflict() const {
    for (const auto& [id, c] : collectives_) {
      std::size_t most = 0;
      for (const auto& calls : c.of_rank) most = std::max(most, calls.size());
      for (std::size_t k = 0; k < most; ++k) {
        for (std::size_t r = 1; r < c.of_rank.size(); ++r) {
          const auto &first = c.of_rank[0], &other = c.of_rank[r];
          if (k < first.size() && k < other.size() && same_collective(at(first[k]), at(other[k]))) continue;
          if (k >= first.size() && k >= other.size()) continue;
          const auto call = [&](const std::vector<Place>& calls) {
            return k < calls.size() ? text_of(at(calls[k])) : std::string("nothing");
          };
          return fmt::format("as number {} on communicator {} rank {} calls {}, and rank {} {}", k + 1,
                             c.group->name, c.group->ranks[0], call(first), c.group->ranks[r], call(other));
        }
      }
    }
    return "";
  }

  std::string message_conflict() const {
    for (const auto& [key, m] : messages_) {
      const auto [id, source, destination, tag] = key;
      const std::size_t most = std::max(m.sends.size(), m.receives.size());
      for (std::size_t k = 0; k < most; ++k) {
        const bool sent = k < m.sends.size(), received = k < m.receives.size();
        if (sent && received && same_bytes(at(m.sends[k]), at(m.receives[k]))) continue;
        return fmt::format(
            "on communicator {}, of the messages of tag {} from rank {} to rank {}, number {}: rank {} calls "
            "{}, and rank {} {}",
            m.group->name, tag, source, destination, k + 1, source,
            sent ? text_of(at(m.sends[k])) : "nothing", destination,
            received ? text_of(at(m.receives[k])) : "nothing");
      }
    }
    return "";
  }

  // The graph: a node for each collective, which its ranks' calls share, and for each call and wait of a
  // message; an edge where one is over before the other can be.
  struct Node {
    Place place;                ///< one of its calls
    std::vector<Place> before;  ///< calls on which it waits
    int num_behind = 0;         ///< nodes that wait for it, and are not taken away yet
  };

  std::size_t& node_of(const Place& place) {
    return nodes_of_[static_cast<std::size_t>(place.rank)][place.index];
  }

  void make_nodes() {
    nodes_of_.resize(logs_.size());
    for (std::size_t r = 0; r < logs_.size(); ++r) nodes_of_[r].resize(logs_[r].calls.size());
    for (const auto& [id, c] : collectives_) {
      for (std::size_t k = 0; k < c.of_rank[0].size(); ++k) {
        for (const auto& calls : c.of_rank) node_of(calls[k]) = nodes_.size();
        nodes_.push_back({c.of_rank[0][k], {}, 0});
      }
    }
    for (int rank = 0; rank < static_cast<int>(logs_.size()); ++rank) {
      const auto& calls = logs_[static_cast<std::size_t>(rank)].calls;
      for (std::size_t i = 0; i < calls.size(); ++i) {
        if (is_collective(calls[i])) continue;
        node_of({rank, i}) = nodes_.size();
        nodes_.push_back({{rank, i}, {}, 0});
      }
    }
  }

  void make_edges() {
    std::map<std::pair<int, std::size_t>, Place> other_end;  // of a message's call
    for (const auto& [key, m] : messages_) {
      for (std::size_t k = 0; k < m.sends.size(); ++k) {
        other_end.emplace(std::pair(m.sends[k].rank, m.sends[k].index), m.receives[k]);
        other_end.emplace(std::pair(m.receives[k].rank, m.receives[k].index), m.sends[k]);
      }
    }
    for (int rank = 0; rank < static_cast<int>(logs_.size()); ++rank) {
      const auto& calls = logs_[static_cast<std::size_t>(rank)].calls;
      for (std::size_t i = 0; i < calls.size(); ++i) {
        Node& node = nodes_[node_of({rank, i})];
        if (i > 0) node.before.push_back({rank, i - 1});
        if (calls[i].kind == CallKind::wait)
          node.before.push_back(other_end.at({rank, static_cast<std::size_t>(calls[i].of)}));
      }
    }
    for (const Node& node : nodes_) {
      for (const Place& before : node.before) ++nodes_[node_of(before)].num_behind;
    }
  }

  /// Takes away what nobody waits for, again and again: what is left is a circle, and what leads into one.
  std::string circle() {
    make_nodes();
    make_edges();
    std::vector<std::size_t> free;
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      if (nodes_[n].num_behind == 0) free.push_back(n);
    }
    std::vector<bool> taken(nodes_.size(), false);
    while (!free.empty()) {
      const std::size_t n = free.back();
      free.pop_back();
      taken[n] = true;
      for (const Place& before : nodes_[n].before) {
        if (--nodes_[node_of(before)].num_behind == 0) free.push_back(node_of(before));
      }
    }
    const auto left = std::find(taken.begin(), taken.end(), false);
    if (left == taken.end()) return "";
    return walk(static_cast<std::size_t>(left - taken.begin()), taken);
  }

  /// From a node that is left to one behind it, until one comes again.
  std::string walk(std::size_t from, const std::vector<bool>& taken) {
    // Each node that is left has another one that waits for it: by which call of whom.
    std::map<std::size_t, std::pair<std::size_t, Place>>
        behind;  // node -> (next node, own call that precedes)
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      if (taken[n]) continue;
      for (const Place& before : nodes_[n].before) behind.emplace(node_of(before), std::pair(n, before));
    }
    std::map<std::size_t, std::size_t> seen;
    std::vector<std::size_t> path;
    while (seen.emplace(from, path.size()).second) {
      path.push_back(from);
      from = behind.at(from).first;
    }
    path.erase(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(seen.at(from)));
    return text_of_circle(path, behind);
  }

  std::string text_of_circle(const std::vector<std::size_t>& path,
                             const std::map<std::size_t, std::pair<std::size_t, Place>>& behind) {
    // A step of the circle: a rank's call that comes before another one of the same rank. Steps of one rank
    // in a row are told as one.
    std::vector<std::pair<Place, Place>> steps;
    for (const std::size_t n : path) {
      const Place first = behind.at(n).second;
      const Place second{first.rank, first.index + 1};
      const bool own = second.index < nodes_of_[static_cast<std::size_t>(first.rank)].size() &&
                       node_of(second) == behind.at(n).first;
      if (!own) continue;  // from a message's call to the wait at its other end
      if (!steps.empty() && steps.back().second.rank == first.rank &&
          steps.back().second.index == first.index)
        steps.back().second = second;
      else
        steps.emplace_back(first, second);
    }
    if (steps.size() > 1 && steps.back().second.rank == steps.front().first.rank &&
        steps.back().second.index == steps.front().first.index) {
      steps.front().first = steps.back().first;
      steps.pop_back();
    }
    std::string text = "these calls can wait for each other in a circle:";
    for (const auto& [first, second] : steps)
      text += fmt::format("\n  rank {}: {}, and then {}", first.rank, described(first), described(second));
    return text;
  }

  /// With its communicator, and which of its collectives or messages it is.
  std::string described(const Place& place) const {
    const Call& call = at(place);
    if (call.kind == CallKind::wait)
      return "the wait for " + described({place.rank, static_cast<std::size_t>(call.of)});
    const CallGroup& group = group_of(place);
    if (is_collective(call)) return fmt::format("{} on {}", text_of(call), group.name);
    return fmt::format("{} {} rank {}, tag {}, on {}", text_of(call),
                       call.kind == CallKind::send ? "to" : "from",
                       group.ranks[static_cast<std::size_t>(call.peer)], call.tag, group.name);
  }

  std::span<const CallLog> logs_;
  std::map<int64_t, Collectives> collectives_;
  std::map<MessageKey, Messages> messages_;
  std::vector<Node> nodes_;
  std::vector<std::vector<std::size_t>> nodes_of_;  ///< by rank and call
};

}  // namespace

std::string conflict(std::span<const CallLog> logs) {
  return Comparison(logs).conflict();
}

}  // namespace red::parallel
