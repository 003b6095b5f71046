// Mesh: this rank's place in the layout, and the communicators along its axes. `axis` always means an axis of
// this mesh.
#pragma once

#include <memory>

#include "parallel/communicator.hpp"
#include "parallel/layout.hpp"

namespace red::parallel {

class Mesh {
 public:
  /// Collective over world, which must live as long as the mesh. Throws what validate() throws.
  Mesh(const Layout& layout, Communicator& world, const LayoutLimits& limits);

  const Layout& layout() const { return layout_; }
  const Coordinates& at() const { return at_; }
  Communicator& world() const { return world_; }
  Communicator& data() const { return *data_; }          ///< same stage and tensor index; rank = data index
  Communicator& tensor() const { return *tensor_; }      ///< same stage and data index; rank = tensor index
  Communicator& pipeline() const { return *pipeline_; }  ///< same data and tensor index; rank = stage
  Communicator& stage() const { return *stage_; }        ///< all ranks of one stage

  bool is_encoder_stage() const { return at_.stage < layout_.encoder_stages; }
  bool is_last_stage() const { return at_.stage == layout_.num_stages() - 1; }

 private:
  Layout layout_;
  Coordinates at_;
  Communicator& world_;
  std::unique_ptr<Communicator> data_, tensor_, pipeline_, stage_;
};

}  // namespace red::parallel
