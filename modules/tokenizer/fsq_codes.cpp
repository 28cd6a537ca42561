#include "modules/tokenizer/fsq_codes.h"

#include <limits>

#include "ops/fsq/fsq.h"

namespace cosmos::modules {
namespace {

int64_t codebook_size(const std::vector<int64_t>& levels) {
  return c10::multiply_integers(levels);
}

}  // namespace

Tensor quantize(const Tensor& z, const std::vector<int64_t>& levels) {
  const Tensor last = z.movedim(1, -1).contiguous();
  return std::get<0>(ops::fsq(last, levels)).movedim(-1, 1).contiguous();
}

Tensor indices_of(const Tensor& codes, const std::vector<int64_t>& levels) {
  Tensor index = torch::zeros_like(codes.select(1, 0), torch::kInt32);
  int64_t basis = 1;
  for (std::size_t d = 0; d < levels.size(); ++d) {
    const int64_t half = levels[d] / 2;
    const Tensor step = codes.select(1, static_cast<int64_t>(d)).to(torch::kFloat32) * half + half;
    index += step.round().to(torch::kInt32) * basis;
    basis *= levels[d];
  }
  return index;
}

Tensor codes_of(const Tensor& indices, const std::vector<int64_t>& levels, torch::Dtype dtype) {
  require(!indices.is_floating_point() && indices.dim() == 4, "indices: expected whole numbers ",
          "[batch, frame, height, width], got ", indices.sizes());
  require(indices.numel() == 0 || (indices.min().item<int64_t>() >= 0 &&
                                   indices.max().item<int64_t>() < codebook_size(levels)),
          "indices: the codebook has ", codebook_size(levels), " codes, from 0 on");
  return ops::fsq_decode(indices.to(torch::kInt32).contiguous(), levels, dtype)
      .movedim(-1, 1)
      .contiguous();
}

void check_levels(const std::vector<int64_t>& levels, const std::string& where) {
  require(!levels.empty() && levels.size() <= 16, where, ": levels: expected 1 to 16, got ",
          levels.size());
  int64_t size = 1;
  for (const int64_t level : levels) {
    require(level >= 2 && size <= std::numeric_limits<int32_t>::max() / level, where,
            ": levels: each must be at least 2, their product at most 2^31 - 1");
    size *= level;
  }
}

}  // namespace cosmos::modules
