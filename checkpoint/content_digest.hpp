// A fingerprint of what a checkpoint means, not of its files: equal whatever layout wrote it.
#pragma once

#include <string>

#include "checkpoint/checkpoint.hpp"

namespace red::checkpoint {

/// SHA-256, 64 hex digits, of step, sample cursor, tokenizer, further state, and of every tensor by path: its
/// shape, element type and elements in row-major order (docs/checkpoint-format.md). Not of the configuration
/// and the layout, and not of the validation loss. Reads all; memory is bounded.
std::string content_digest(const Reader& reader);

}  // namespace red::checkpoint
