#include "parallel/mesh.hpp"

namespace red::parallel {

Mesh::Mesh(const Layout& layout, Communicator& world, const LayoutLimits& limits)
    : layout_(layout), world_(world) {
  validate(layout, world.size(), limits);
  at_ = coordinates_of(layout, world.rank());
  data_ = world.split(at_.stage * layout.tensor + at_.tensor, at_.data, "data");
  tensor_ = world.split(at_.stage * layout.data + at_.data, at_.tensor, "tensor");
  pipeline_ = world.split(at_.data * layout.tensor + at_.tensor, at_.stage, "pipeline");
  stage_ = world.split(at_.stage, world.rank(), "stage");
}

}  // namespace red::parallel
