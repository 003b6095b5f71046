// Tags of messages along the pipeline, one for each kind, so that none is taken for another.
#pragma once

namespace red::parallel {

inline constexpr int kTagActivation = 1;
inline constexpr int kTagMemory = 2;
inline constexpr int kTagGradient = 3;
inline constexpr int kTagMemoryGradient = 4;
inline constexpr int kTagEmbeddingGradient = 5;
inline constexpr int kTagEmbeddingRows = 6;

}  // namespace red::parallel
