// The memory of one rank in bytes, by what it is for: planned (train/memory_plan) or real (Engine::memory).
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

namespace red::train {

struct MemoryUse {
  std::size_t parameters = 0;
  std::size_t gradients = 0;
  std::size_t masters = 0;    ///< fp32 weights of own rows, where parameters are bf16
  std::size_t optimizer = 0;  ///< second moments of own rows, and sums
  std::size_t buckets = 0;    ///< reduced gradients of own rows, and two messages: none on one data rank
  std::size_t whole_gradients = 0;  ///< gains' gradients in one message: sequence parallelism only
  std::size_t tied_embedding = 0;   ///< the owner's room for another holder's gradient
  std::size_t activations = 0;      ///< of all micro-batches in flight
  std::size_t recomputed = 0;       ///< activations of one layer, made again for its backward pass
  std::size_t temporaries = 0;      ///< of forward and backward passes, logits among them
  std::size_t rope = 0;             ///< tables of rotary positions
  std::size_t cache = 0;            ///< keys and values of sequences that are generated
  std::size_t scalars = 0;          ///< of the step
  std::size_t op_scratch = 0;       ///< temporaries of single ops
  std::size_t checkpoint_copy = 0;  ///< host memory: what is saved, while it is written

  std::size_t total() const;
  bool operator==(const MemoryUse&) const = default;
};

struct MemoryPart {
  std::string_view name;
  std::size_t MemoryUse::*bytes;
};

/// Every part, in the order of tables.
inline constexpr std::array<MemoryPart, 15> kMemoryParts = {{
    {"parameters", &MemoryUse::parameters},
    {"gradients", &MemoryUse::gradients},
    {"master weights", &MemoryUse::masters},
    {"optimizer state", &MemoryUse::optimizer},
    {"gradient buckets", &MemoryUse::buckets},
    {"whole gradients", &MemoryUse::whole_gradients},
    {"tied embedding", &MemoryUse::tied_embedding},
    {"activations", &MemoryUse::activations},
    {"recomputed", &MemoryUse::recomputed},
    {"layer temporaries", &MemoryUse::temporaries},
    {"rotary tables", &MemoryUse::rope},
    {"key-value cache", &MemoryUse::cache},
    {"step scalars", &MemoryUse::scalars},
    {"op scratch", &MemoryUse::op_scratch},
    {"checkpoint copy", &MemoryUse::checkpoint_copy},
}};

inline std::size_t MemoryUse::total() const {
  std::size_t sum = 0;
  for (const MemoryPart& part : kMemoryParts) sum += this->*part.bytes;
  return sum;
}

}  // namespace red::train
