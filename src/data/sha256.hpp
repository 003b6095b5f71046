// SHA-256, for digests of tokenizers and token files that others can check with sha256sum.
#pragma once

#include <string>
#include <string_view>

namespace red::data {

/// 64 hexadecimal digits.
std::string sha256_hex(std::string_view bytes);

}  // namespace red::data
