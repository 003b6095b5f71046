// The effective configuration as an INI file that gives the same configuration again.
#pragma once

#include <string>

#include "config/parse.hpp"

namespace red::config {

/// Every key with its value and, as a comment, where it came from. Keys that were not given and have no
/// default stand as comments. load() of this text gives an equal configuration.
std::string print_effective(const Loaded& loaded);

}  // namespace red::config
