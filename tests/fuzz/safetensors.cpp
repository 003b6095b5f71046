// A safetensors file: two bytes say how much data it has, a third whether the header's length is told truly,
// the rest is the header. Also the pieces of a SentencePiece model, out of the same bytes.
#include "convert/safetensors.hpp"

#include <cstring>
#include <vector>

#include "convert/sentencepiece_model.hpp"
#include "fuzz/fuzz_target.hpp"

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace red;
  test::ByteSource source(data, size);
  const std::size_t data_bytes = source.byte() + 256 * (source.byte() % 4);
  uint64_t header_bytes = source.byte() < 240 ? 0 : source.number();
  const std::string header(source.rest());
  if (header_bytes == 0) header_bytes = header.size();
  std::string bytes(sizeof(header_bytes), '\0');
  std::memcpy(bytes.data(), &header_bytes, sizeof(header_bytes));
  const std::filesystem::path path =
      test::fuzz_file("model.safetensors", bytes + header + std::string(data_bytes, '\x3f'));
  test::survive([&] {
    const convert::SafetensorsFile file(path);
    uint64_t total = 0;
    for (const convert::SafeTensor& tensor : file.tensors()) {
      std::vector<float> values(static_cast<std::size_t>(tensor.size()));
      file.read(tensor, 0, values);
      total += tensor.num_bytes;
    }
    RED_CHECK(total <= bytes.size() + header.size() + data_bytes, "tensors of {} bytes", total);
  });
  test::survive([&] { convert::parse_sentencepiece_model(header, "fuzzed"); });
  return 0;
}
