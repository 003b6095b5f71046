#include "data/sha256.hpp"

#include <fmt/ranges.h>
#include <openssl/evp.h>

#include <array>
#include <span>

#include "base/check.hpp"

namespace red::data {

std::string sha256_hex(std::string_view bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  RED_CHECK(EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr) == 1);
  return fmt::format("{:02x}", fmt::join(std::span(digest).first(size), ""));
}

}  // namespace red::data
