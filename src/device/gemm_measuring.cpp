#include "device/gemm_measuring.hpp"

namespace red {
namespace {

bool measured = true;

}  // namespace

void choose_without_measuring() {
  measured = false;
}

bool choices_are_measured() {
  return measured;
}

}  // namespace red
