// Texts compressed in memory, as other programs would write them to files.
#pragma once

#include <string>

namespace red::data {

std::string gzip(const std::string& text);
std::string zstd(const std::string& text);

}  // namespace red::data
