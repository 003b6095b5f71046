#include "base/check.hpp"

namespace red::detail {

void check_failed(const char* expression, const char* file, int line, const std::string& operands) {
  throw LogicError("{}:{}: {} does not hold{}{}", file, line, expression, operands.empty() ? "" : ": ",
                   operands);
}

}  // namespace red::detail
