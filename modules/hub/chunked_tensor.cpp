#include "modules/hub/chunked_tensor.h"

#include <limits>

namespace cosmos::modules {
namespace {

constexpr std::size_t kMaxChunks = 8192;  // pairs are compared

void check_bounds(const TensorChunk& chunk, torch::Dtype dtype, const std::vector<int64_t>& shape,
                  const std::string& where) {
  const auto& sizes = chunk.part.shape;
  require(chunk.offset.size() == shape.size() && sizes.size() == shape.size() &&
              chunk.part.dtype == dtype,
          where, ": a chunk of another rank or dtype than the tensor");
  for (std::size_t d = 0; d < shape.size(); ++d)
    require(chunk.offset[d] >= 0 && sizes[d] >= 0 && chunk.offset[d] <= shape[d] &&
                sizes[d] <= shape[d] - chunk.offset[d],
            where, ": a chunk of ", c10::IntArrayRef(sizes), " at ", c10::IntArrayRef(chunk.offset),
            " reaches beyond ", c10::IntArrayRef(shape));
}

bool overlap(const TensorChunk& a, const TensorChunk& b) {
  for (std::size_t d = 0; d < a.offset.size(); ++d)
    if (a.offset[d] + a.part.shape[d] <= b.offset[d] ||
        b.offset[d] + b.part.shape[d] <= a.offset[d])
      return false;
  return true;
}

int64_t checked_numel(const std::vector<int64_t>& shape, const std::string& where) {
  int64_t product = 1;
  for (const int64_t size : shape) {
    require(size >= 0 && (size == 0 || product <= std::numeric_limits<int64_t>::max() / 16 / size),
            where, ": shape ", c10::IntArrayRef(shape), " overflows 64 bits");
    product *= std::max<int64_t>(size, 1);
  }
  return c10::multiply_integers(shape);
}

}  // namespace

LazyTensor assemble(torch::Dtype dtype, std::vector<int64_t> shape, std::vector<TensorChunk> chunks,
                    const std::string& where) {
  require(!chunks.empty() && chunks.size() <= kMaxChunks, where, ": ", chunks.size(),
          " chunks, expected 1 to ", kMaxChunks);
  const int64_t whole = checked_numel(shape, where);
  int64_t covered = 0;
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    check_bounds(chunks[i], dtype, shape, where);
    covered += chunks[i].part.numel();
    for (std::size_t j = 0; j < i && chunks[i].part.numel() > 0; ++j)
      require(chunks[j].part.numel() == 0 || !overlap(chunks[i], chunks[j]), where,
              ": two of its chunks overlap");
  }
  require(covered == whole, where, ": its chunks hold ", covered, " of ", whole,
          " elements (a rank's file is missing?)");
  if (chunks.size() == 1) return chunks[0].part;
  return {dtype, shape, [dtype, shape, chunks] {
            Tensor tensor = torch::empty(shape, dtype);
            for (const auto& chunk : chunks) {
              Tensor place = tensor;
              for (std::size_t d = 0; d < shape.size(); ++d)
                place = place.narrow(static_cast<int64_t>(d), chunk.offset[d], chunk.part.shape[d]);
              place.copy_(chunk.part.read());
            }
            return tensor;
          }};
}

}  // namespace cosmos::modules
