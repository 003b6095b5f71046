#include "optim/tied_embedding.hpp"

#include "ops/elementwise.hpp"
#include "parallel/message_tags.hpp"

namespace red::optim {

TiedEmbedding::TiedEmbedding(Stream& stream, const ParameterShard* shard, const std::vector<int>& holders,
                             int owner, parallel::Communicator& pipeline)
    : stream_(stream),
      shard_(shard),
      holders_(holders),
      owner_(owner),
      pipeline_(pipeline),
      received_(count_bytes(shard, holders, owner, pipeline.rank())) {}

/// Room for one other holder's gradient, where the owner adds them up.
std::size_t TiedEmbedding::count_bytes(const ParameterShard* shard, const std::vector<int>& holders,
                                       int owner, int stage) {
  if (shard == nullptr || holders.size() < 2 || stage != owner) return 0;
  return static_cast<std::size_t>(shard->gradient.size()) * sizeof(float);
}

std::vector<parallel::Route> TiedEmbedding::routes(const std::vector<int>& holders, int owner) {
  std::vector<parallel::Route> routes;
  for (const int holder : holders) {
    if (holder == owner) continue;
    routes.push_back({holder, owner, parallel::kTagEmbeddingGradient});
    routes.push_back({owner, holder, parallel::kTagEmbeddingRows});
  }
  return routes;
}

void TiedEmbedding::reduce() {
  if (!takes_part()) return;
  constexpr const char* what = "gradient of the tied embedding";
  if (pipeline_.rank() != owner_) {
    parallel::Request request = pipeline_.send(shard_->gradient, owner_, parallel::kTagEmbeddingGradient);
    pipeline_.wait(request, what);
    return;
  }
  const Tensor received =
      make_tensor(reinterpret_cast<float*>(received_.data()), shard_->gradient.rows, shard_->gradient.cols);
  for (const int holder : holders_) {
    if (holder == owner_) continue;
    parallel::Request request = pipeline_.receive(received, holder, parallel::kTagEmbeddingGradient);
    pipeline_.wait(request, what);
    ops::add(stream_, shard_->gradient, shard_->gradient, received);
  }
}

void TiedEmbedding::share() {
  if (!takes_part()) return;
  constexpr const char* what = "rows of the tied embedding";
  if (pipeline_.rank() != owner_) {
    parallel::Request request = pipeline_.receive(shard_->weight, owner_, parallel::kTagEmbeddingRows);
    pipeline_.wait(request, what);
    return;
  }
  for (const int holder : holders_) {
    if (holder == owner_) continue;
    parallel::Request request = pipeline_.send(shard_->weight, holder, parallel::kTagEmbeddingRows);
    pipeline_.wait(request, what);
  }
}

}  // namespace red::optim
