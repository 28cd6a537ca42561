#include "trainer/parallel/tensor_slice.h"

#include "modules/core/hollow.h"

namespace cosmos::trainer {

std::vector<int64_t> slice_sizes(const TensorSlice& slice, int64_t ranks) {
  std::vector<int64_t> sizes = slice.whole;
  sizes[slice.dim] /= ranks;
  return sizes;
}

Tensor slice_of(const Tensor& whole, const TensorSlice& slice, int64_t rank, int64_t ranks) {
  const int64_t part = whole.size(slice.dim) / ranks;
  return whole.narrow(slice.dim, rank * part, part);
}

void take_slices(const torch::nn::Module& model, const TensorSlices& slices, const Group& group) {
  const torch::NoGradGuard no_grad;
  auto parameters = model.named_parameters();
  for (const auto& [name, slice] : slices) {
    Tensor& parameter = parameters[name];
    parameter.set_data(modules::is_hollow(parameter)
                           ? modules::hollow(slice_sizes(slice, group.size()), parameter.options())
                           : slice_of(parameter.detach(), slice, group.rank(), group.size())
                                 .clone(at::MemoryFormat::Contiguous));
  }
}

}  // namespace cosmos::trainer
