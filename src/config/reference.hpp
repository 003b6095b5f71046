// The option table for people: as part of --help, and as docs/configuration.md.
#pragma once

#include <string>

namespace red::config {

/// All keys, by section: how to write each, its unit, default, range and meaning.
std::string help_of_keys();

/// docs/configuration.md, whole. A test holds the file to it; `redllm config docs` prints it.
std::string configuration_markdown();

}  // namespace red::config
