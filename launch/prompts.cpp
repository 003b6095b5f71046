#include "launch/prompts.hpp"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.hpp"

namespace red::launch {
namespace {

std::ifstream open(const std::string& option, const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file)) throw DataError("--{} {}: cannot be read", option, file);
  return in;
}

std::string whole_file(const std::string& file) {
  std::ifstream in = open("prompt-file", file);
  std::ostringstream text;
  text << in.rdbuf();
  if (text.str().empty()) throw DataError("--prompt-file {}: is empty", file);
  return text.str();
}

/// The prompt of one line of JSON Lines.
std::string json_prompt(const std::string& text, const std::string& place) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) throw DataError("{}: not a JSON object", place);
  const auto prompt = json.find("prompt");
  if (prompt == json.end() || !prompt->is_string())
    throw DataError("{}: needs a string named \"prompt\", as in {{\"prompt\": \"In the beginning\"}}", place);
  return *prompt;
}

bool is_json_lines(const std::string& file) {
  const std::filesystem::path extension = std::filesystem::path(file).extension();
  return extension == ".jsonl" || extension == ".ndjson";
}

void append_lines(const std::string& file, std::vector<std::string>& prompts) {
  std::ifstream in = open("prompts", file);
  const bool json = is_json_lines(file);
  const std::size_t before = prompts.size();
  std::string text;
  for (int64_t line = 1; std::getline(in, text); ++line) {
    if (!text.empty() && text.back() == '\r') text.pop_back();
    const std::string place = fmt::format("{}:{}", file, line);
    prompts.push_back(json ? json_prompt(text, place) : text);
    if (prompts.back().empty()) throw DataError("{}: the prompt is empty: give some text", place);
  }
  if (prompts.size() == before) throw DataError("--prompts {}: is empty", file);
}

}  // namespace

std::vector<config::CommandOption> prompt_options() {
  return {
      {"prompt", "TEXT", "a prompt", true},
      {"prompt-file", "FILE", "a file that is one prompt", true},
      {"prompts", "FILE",
       "a file of prompts: one on each line, or with .jsonl or .ndjson the \"prompt\" of each line's JSON "
       "object",
       true}};
}

std::vector<std::string> read_prompts(const config::CommandLine& line) {
  std::vector<std::string> prompts = line.get_all("prompt");
  for (const std::string& prompt : prompts) {
    if (prompt.empty()) throw DataError("a prompt is empty: give some text");
  }
  for (const std::string& file : line.get_all("prompt-file")) prompts.push_back(whole_file(file));
  for (const std::string& file : line.get_all("prompts")) append_lines(file, prompts);
  if (prompts.empty())
    throw ConfigError("generate needs --prompt TEXT, --prompt-file FILE or --prompts FILE");
  return prompts;
}

}  // namespace red::launch
