// What keys mean together: everything about a configuration that can be refused without looking at data,
// hardware or other ranks.
#pragma once

#include "config/option.hpp"
#include "config/parse.hpp"

namespace red::config {

/// Throws ConfigError with the places of the keys concerned, what is wrong, and values that would work.
void validate(const Loaded& loaded, Use use);

}  // namespace red::config
