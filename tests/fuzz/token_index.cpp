// PREFIX.idx: two bytes say how long PREFIX.bin is, the rest is the index.
#include <algorithm>
#include <vector>

#include "data/token_file.hpp"
#include "fuzz/fuzz_target.hpp"

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace red;
  test::ByteSource source(data, size);
  const std::size_t num_bytes = source.byte() + 256 * (source.byte() % 16);
  const std::filesystem::path bin = test::fuzz_file("tokens.bin", std::string(num_bytes, '\x01'));
  test::fuzz_file("tokens.idx", source.rest());
  test::survive([&] {
    const data::TokenFile file(std::filesystem::path(bin).replace_extension());
    std::vector<int32_t> tokens(static_cast<std::size_t>(file.num_tokens()));
    file.read(0, tokens);
    for (int64_t d = 0; d < file.num_documents(); ++d) {
      const int64_t begin = file.document_begin(d);
      RED_CHECK(begin >= 0 && begin <= file.document_begin(d + 1), "document {} begins at {}", d, begin);
      if (begin < file.document_begin(d + 1))
        RED_CHECK(file.document_of(begin) == d, "token {} is not in document {}", begin, d);
    }
  });
  return 0;
}
