// Does not link: the fakes know no managed memory, since the backend has none.
#include <cuda_runtime_api.h>

int main() {
  void* memory = nullptr;
  return cudaMallocManaged(&memory, 1, cudaMemAttachGlobal);
}
