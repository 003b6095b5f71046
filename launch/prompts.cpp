#include "launch/prompts.hpp"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.hpp"
#include "data/utf8.hpp"

namespace red::launch {
namespace {

std::ifstream open(const std::string& option, const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file)) throw DataError("--{} {}: cannot be read", option, file);
  return in;
}

void check(const std::string& prompt, const std::string& place) {
  if (prompt.empty()) throw DataError("{}: the prompt is empty: give some text", place);
  const std::size_t invalid = data::find_invalid_utf8(prompt);
  if (invalid != std::string_view::npos) throw DataError("{}: invalid UTF-8 at byte {}", place, invalid);
}

std::string whole_file(const std::string& file) {
  std::ifstream in = open("prompt-file", file);
  std::ostringstream text;
  text << in.rdbuf();
  check(text.str(), "--prompt-file " + file);
  return text.str();
}

/// The prompt of one line of JSON Lines. Never one of two.
std::string json_prompt(const std::string& line, const std::string& place) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) throw DataError("{}: not a JSON object", place);
  const auto text = json.find("text"), prompt = json.find("prompt");
  if (text != json.end() && prompt != json.end())
    throw DataError("{}: has both \"text\" and \"prompt\": keep the one that is the prompt", place);
  const auto found = text != json.end() ? text : prompt;
  if (found == json.end() || !found->is_string())
    throw DataError("{}: needs a string \"text\" or \"prompt\", as in {{\"text\": \"In the beginning\"}}",
                    place);
  return *found;
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
    check(prompts.back(), place);
  }
  if (prompts.size() == before) throw DataError("--prompts {}: is empty", file);
}

}  // namespace

std::vector<config::CommandOption> prompt_options() {
  return {
      {"prompt", "TEXT", "a prompt", true},
      {"prompt-file", "FILE", "a file that is one prompt", true},
      {"prompts", "FILE",
       "a file of prompts: one on each line, or with .jsonl or .ndjson the \"text\" or \"prompt\" of each "
       "line's JSON object",
       true}};
}

std::vector<std::string> read_prompts(const config::CommandLine& line) {
  std::vector<std::string> prompts = line.get_all("prompt");
  for (const std::string& prompt : prompts) check(prompt, "--prompt");
  for (const std::string& file : line.get_all("prompt-file")) prompts.push_back(whole_file(file));
  for (const std::string& file : line.get_all("prompts")) append_lines(file, prompts);
  if (prompts.empty())
    throw ConfigError("generate needs --prompt TEXT, --prompt-file FILE or --prompts FILE");
  return prompts;
}

}  // namespace red::launch
