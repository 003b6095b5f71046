#include "checkpoint/content_digest.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string_view>

#include "base/check.hpp"
#include "checkpoint/tensor_blocks.hpp"

namespace red::checkpoint {
namespace {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    RED_CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }
  void add(const void* data, std::size_t num_bytes) {
    RED_CHECK(EVP_DigestUpdate(context_.get(), data, num_bytes) == 1);
  }
  void add_number(uint64_t number) { add(&number, sizeof(number)); }
  /// With its length in front, so that no two lists of texts look alike.
  void add_text(std::string_view text) {
    add_number(text.size());
    add(text.data(), text.size());
  }
  std::string hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size = 0;
    RED_CHECK(EVP_DigestFinal_ex(context_.get(), digest.data(), &size) == 1);
    std::string text;
    for (unsigned int i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

}  // namespace

std::string content_digest(const Reader& reader) {
  const Metadata& metadata = reader.metadata();
  Sha256 sha;
  sha.add_number(static_cast<uint64_t>(metadata.step));
  sha.add_number(metadata.sample_cursor);
  sha.add_text(metadata.tokenizer_digest);
  sha.add_number(metadata.extra.size());
  for (const auto& [name, value] : metadata.extra) {
    sha.add_text(name);
    sha.add_text(value);
  }
  std::vector<LogicalTensor> tensors = reader.tensors();
  std::sort(tensors.begin(), tensors.end(),
            [](const LogicalTensor& a, const LogicalTensor& b) { return a.path < b.path; });
  for (const LogicalTensor& tensor : tensors) {
    sha.add_text(tensor.path);
    sha.add_number(static_cast<uint64_t>(tensor.rows));
    sha.add_number(static_cast<uint64_t>(tensor.cols));
    sha.add_text(name_of(tensor.dtype));
    TensorBlocks blocks(reader, tensor);
    for (auto block = blocks.next(); !block.empty(); block = blocks.next())
      sha.add(block.data(), block.size());
  }
  return sha.hex();
}

}  // namespace red::checkpoint
