// Options that every command reading text shares.
#pragma once

#include <vector>

#include "config/command_line.hpp"
#include "data/corpus_reader.hpp"

namespace red::launch {

/// --format, --field, --split, --separator, --max-bad-lines.
std::vector<config::CommandOption> corpus_command_options();
/// With the command line's words as inputs. Throws ConfigError.
data::CorpusOptions corpus_options(const config::CommandLine& line);

}  // namespace red::launch
