// Mesh: the one owner of all parallel degrees. Ranks = data x tensor x (encoder stages + decoder stages).
//   rank = (stage * data + data_index) * tensor + tensor_index
// so that tensor neighbours share a node first, then data neighbours. `axis` always means an axis of this
// mesh.
#pragma once

#include <memory>
#include <string>

#include "parallel/communicator.hpp"

namespace red::parallel {

/// The degrees as the user gives them (section [parallel]).
struct Layout {
  int data = 1;
  int tensor = 1;
  int encoder_stages = 0;  ///< 0: a RedLLM's encoder shares the decoder's stage; a DecLLM has no encoder
  int decoder_stages = 1;

  int num_stages() const { return encoder_stages + decoder_stages; }
  int num_ranks() const { return data * tensor * num_stages(); }
  std::string to_string() const;  ///< "data 2 x tensor 1 x (encoder 1 + decoder 1)"
};

/// Throws ConfigError when the layout does not fit the ranks (with layouts that would) or the kind of model,
/// or when it is one that this version does not run yet.
void validate(const Layout& layout, int num_ranks, bool has_encoder);

struct Coordinates {
  int stage = 0;
  int data = 0;
  int tensor = 0;
};

Coordinates coordinates_of(const Layout& layout, int rank);
int rank_of(const Layout& layout, const Coordinates& at);

class Mesh {
 public:
  /// Collective over world, which must live as long as the mesh.
  Mesh(const Layout& layout, Communicator& world, bool has_encoder);

  const Layout& layout() const { return layout_; }
  const Coordinates& at() const { return at_; }
  Communicator& world() const { return world_; }
  Communicator& data() const { return *data_; }          ///< same stage and tensor index; rank = data index
  Communicator& pipeline() const { return *pipeline_; }  ///< same data and tensor index; rank = stage
  Communicator& stage() const { return *stage_; }        ///< all ranks of one stage

  bool is_encoder_stage() const { return at_.stage < layout_.encoder_stages; }
  bool is_last_stage() const { return at_.stage == layout_.num_stages() - 1; }

 private:
  Layout layout_;
  Coordinates at_;
  Communicator& world_;
  std::unique_ptr<Communicator> data_, pipeline_, stage_;
};

}  // namespace red::parallel
