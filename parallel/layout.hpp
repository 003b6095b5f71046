// Layout: how ranks are divided. Ranks = data x tensor x (encoder stages + decoder stages).
//   rank = (stage * data + data_index) * tensor + tensor_index
// so that tensor neighbours share a node first, then data neighbours. Pure functions: a plan needs no MPI.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace red::parallel {

/// The degrees as the user gives them (section [parallel]).
struct Layout {
  int data = 1;
  int tensor = 1;
  int encoder_stages = 0;  ///< 0: a RedLLM's encoder shares the decoder's stage; a DecLLM has no encoder
  int decoder_stages = 1;
  bool sequence_parallel = false;  ///< norms and residuals are divided by tokens over the tensor ranks

  int num_stages() const { return encoder_stages + decoder_stages; }
  int num_ranks() const { return data * tensor * num_stages(); }
  std::string to_string() const;  ///< "data 2 x tensor 1 x (encoder 1 + decoder 1)"
};

/// What a model allows: a stage needs a layer, a tensor rank a head and a column of the FFN.
struct LayoutLimits {
  bool has_encoder = false;
  int64_t encoder_layers = 0;
  int64_t decoder_layers = 1;
  int64_t num_heads = 1;
  int64_t d_ff = 1;
};

/// Every layout of exactly this many ranks that the model can run in, few stages first.
std::vector<Layout> legal_layouts(int num_ranks, const LayoutLimits& limits);

/// Throws ConfigError when the layout does not fit the ranks or the model, with the nearest that do.
void validate(const Layout& layout, int num_ranks, const LayoutLimits& limits);

struct Coordinates {
  int stage = 0;
  int data = 0;
  int tensor = 0;
};

Coordinates coordinates_of(const Layout& layout, int rank);
int rank_of(const Layout& layout, const Coordinates& at);

}  // namespace red::parallel
