#include "ops/core/path.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "ops/core/error.h"

namespace cosmos::ops {
namespace {

Path path_from_environment() {
  const char* value = std::getenv("COSMOS_OPS");
  const std::string name = value ? value : "fused";
  if (name == "reference") return Path::kReference;
  require(name.empty() || name == "fused",
          "environment variable COSMOS_OPS: expected reference or fused, got ", name);
  return Path::kFused;
}

std::atomic<Path>& current() {
  static std::atomic<Path> value(path_from_environment());
  return value;
}

}  // namespace

Path path() {
  return current().load(std::memory_order_relaxed);
}

void set_path(Path path) {
  current().store(path, std::memory_order_relaxed);
}

bool use_reference(const at::Tensor& x) {
  if (path() == Path::kReference) return true;
#ifdef COSMOS_CUDA_EMULATION
  return x.scalar_type() == at::kDouble;
#elif defined(COSMOS_CUDA)
  return x.is_cuda() && x.scalar_type() == at::kDouble;
#else
  return x.is_cuda();
#endif
}

}  // namespace cosmos::ops
