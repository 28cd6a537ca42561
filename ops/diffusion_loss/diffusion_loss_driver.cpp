#include "ops/diffusion_loss/diffusion_loss_driver.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"
#include "ops/core/segment_reduce_kernel.h"
#include "ops/diffusion_loss/diffusion_loss_kernel.h"

namespace cosmos::ops {
COSMOS_SIMD_KERNEL(diffusion_input, DiffusionInput)
COSMOS_SIMD_KERNEL(diffusion_loss_forward, DiffusionLoss)
COSMOS_SIMD_KERNEL(diffusion_loss_backward, DiffusionLossBackward)
COSMOS_SIMD_KERNEL(segment_reduce, SegmentReduce)
}  // namespace cosmos::ops

namespace cosmos::ops::driver {
namespace {

using at::Tensor;

/// `network`: the input or output of the network, contiguous.
LatentShape latent_shape(const Tensor& network, const Tensor& x0) {
  LatentShape shape;
  shape.dtype = dtype_of("diffusion", "output", network);
  shape.wide_latents = x0.scalar_type() != network.scalar_type();
  shape.batch = network.size(0);
  shape.channels = network.size(1);
  shape.frames = network.size(2);
  shape.plane = network.size(3) * network.size(4);
  shape.segments = (shape.plane + kDiffusionSegment - 1) / kDiffusionSegment;
  return shape;
}

/// Contiguous x0 and noise, and pointers to them.
struct Latents {
  Tensor x0, noise;
  LatentMix mix;
  Latents(const Tensor& x0_any, const Tensor& noise_any, const Tensor& x0_scale,
          const Tensor& noise_scale)
      : x0(x0_any.contiguous()),
        noise(noise_any.contiguous()),
        mix{x0.const_data_ptr(), noise.const_data_ptr(), x0_scale.const_data_ptr(),
            noise_scale.const_data_ptr()} {}
};

/// The mean over channels and plane as part of the weight.
Tensor over_elements(const Tensor& weight, const LatentShape& shape) {
  return weight / static_cast<double>(shape.channels * shape.plane);
}

int64_t grain(const LatentShape& shape) {
  return grain_rows(std::min(shape.plane, kDiffusionSegment));
}

}  // namespace

Tensor diffusion_input(const Tensor& x0, const Tensor& noise, const Tensor& x0_scale,
                       const Tensor& noise_scale, at::ScalarType dtype) {
  Tensor out = at::empty_symint(x0.sym_sizes(), x0.options().dtype(dtype));
  if (x0.is_meta() || out.numel() == 0) return out;
  const Latents latents(x0, noise, x0_scale, noise_scale);
  const DiffusionInput p{latent_shape(out, x0), latents.mix, out.mutable_data_ptr()};
  launch(out, p, p.shape.units(), grain(p.shape), ops::diffusion_input,
         COSMOS_CUDA_KERNEL(diffusion_input_cuda));
  return out;
}

Tensor diffusion_loss(const Tensor& output_any, const Tensor& x0, const Tensor& noise,
                      const Tensor& x0_scale, const Tensor& noise_scale, const Tensor& weight) {
  const Tensor loss = at::zeros_symint({output_any.sym_size(0)}, weight.options());
  if (loss.is_meta() || output_any.numel() == 0) return loss;
  const Tensor output = output_any.contiguous();
  const Latents latents(x0, noise, x0_scale, noise_scale);
  const LatentShape shape = latent_shape(output, x0);
  const Tensor share = over_elements(weight, shape);
  const Tensor partial = at::empty({shape.units()}, weight.options());
  const DiffusionLoss p{shape, latents.mix, output.const_data_ptr(), share.const_data_ptr(),
                        partial.mutable_data_ptr()};
  launch(output, p, shape.units(), grain(shape), ops::diffusion_loss_forward,
         COSMOS_CUDA_KERNEL(diffusion_loss_forward_cuda));
  const SegmentReduce reduce{dtype_of("diffusion_loss", "weight", weight),
                             shape.batch,
                             shape.units() / shape.batch,
                             1,
                             partial.const_data_ptr(),
                             loss.mutable_data_ptr()};
  launch(output, reduce, shape.batch, 1, ops::segment_reduce,
         COSMOS_CUDA_KERNEL(segment_reduce_cuda));
  return loss;
}

Tensor diffusion_loss_backward(const Tensor& grad, const Tensor& output_any, const Tensor& x0,
                               const Tensor& noise, const Tensor& x0_scale,
                               const Tensor& noise_scale, const Tensor& weight) {
  const Tensor grad_output = at::empty_symint(output_any.sym_sizes(), output_any.options());
  if (output_any.is_meta() || output_any.numel() == 0) return grad_output;
  const Tensor output = output_any.contiguous();
  const Latents latents(x0, noise, x0_scale, noise_scale);
  const LatentShape shape = latent_shape(output, x0);
  const Tensor share = over_elements(weight, shape);
  const Tensor upstream = grad.to(weight.scalar_type()).contiguous();
  const DiffusionLossBackward p{shape,
                                latents.mix,
                                output.const_data_ptr(),
                                share.const_data_ptr(),
                                upstream.const_data_ptr(),
                                grad_output.mutable_data_ptr()};
  launch(output, p, shape.units(), grain(shape), ops::diffusion_loss_backward,
         COSMOS_CUDA_KERNEL(diffusion_loss_backward_cuda));
  return grad_output;
}

}  // namespace cosmos::ops::driver
