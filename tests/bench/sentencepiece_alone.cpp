// What `redllm data build` is compared with: SentencePiece alone on whole documents that are in memory
// already, several threads, ids thrown away. Prints one JSON line. usage: sentencepiece_alone MODEL THREADS
// FILE.jsonl...
#include <sentencepiece_processor.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

namespace {

std::vector<std::string> documents_of(const char* path) {
  std::ifstream file(path);
  std::vector<std::string> documents;
  for (std::string line; std::getline(file, line);)
    documents.push_back(nlohmann::json::parse(line).at("text").get<std::string>());
  return documents;
}

}  // namespace

int main(int argc, char** argv) {
  sentencepiece::SentencePieceProcessor model;
  if (argc < 4 || !model.Load(argv[1]).ok()) {
    std::fprintf(stderr, "usage: sentencepiece_alone MODEL THREADS FILE.jsonl...\n");
    return 2;
  }
  std::vector<std::string> documents;
  for (int i = 3; i < argc; ++i) {
    for (std::string& document : documents_of(argv[i])) documents.push_back(std::move(document));
  }
  std::atomic<std::size_t> next{0}, num_bytes{0}, num_tokens{0};
  const auto work = [&] {
    std::vector<int> ids;
    for (std::size_t i; (i = next++) < documents.size();) {
      if (!model.Encode(documents[i], &ids).ok()) std::abort();
      num_bytes += documents[i].size();
      num_tokens += ids.size();
    }
  };
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int i = 0; i < std::atoi(argv[2]); ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf("{\"bytes\": %zu, \"tokens\": %zu, \"seconds\": %.3f}\n", num_bytes.load(), num_tokens.load(),
              seconds.count());
}
