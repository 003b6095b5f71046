// Tags of messages along the pipeline, one for each kind and chunk of the sender, so that none is taken for
// another.
#pragma once

namespace red::parallel {

inline constexpr int kTagTrace = 0;  ///< on the communicator of all ranks
inline constexpr int kTagActivation = 1;
inline constexpr int kTagMemory = 2;
inline constexpr int kTagGradient = 3;
inline constexpr int kTagMemoryGradient = 4;
inline constexpr int kTagEmbeddingGradient = 5;
inline constexpr int kTagEmbeddingRows = 6;
inline constexpr int kTagClock = 7;  ///< on the communicator of all ranks
inline constexpr int kTagCalls = 8;  ///< on the communicator of all ranks
inline constexpr int kNumTags = 9;

/// The tag of a message that a chunk sends. MPI has at least 32767.
constexpr int tag_of(int tag, int chunk) {
  return tag + kNumTags * chunk;
}

}  // namespace red::parallel
