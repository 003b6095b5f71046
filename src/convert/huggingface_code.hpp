// The Python files that every export carries, so that Transformers can make the model of it
// (huggingface/*.py).
#pragma once

#include <span>
#include <string_view>

namespace red::convert {

struct CodeFile {
  std::string_view name;  ///< "modeling_redllm.py"
  std::string_view text;
};

std::span<const CodeFile> huggingface_code();

}  // namespace red::convert
