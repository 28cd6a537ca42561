#pragma once

// The last linear layer of a language model and its loss in one operator: the [N, V] logits, at 152
// thousand classes the largest tensor of a training step, are never there as a whole.
//
//   x    = (hidden weightᵀ + bias) / temperature       lse = log sum_v exp(x_v)
//   loss = lse - (1 - ε) x_target - ε mean_v(x_v) + z lse²      of one token, ε = label_smoothing
//   log p(target) = x_target - lse                     entropy = -sum_v p_v log p_v
//
// linear_cross_entropy      loss (temperature 1), reduced: "mean" over the tokens that count,
//                           "sum", or "none": one loss a token
// linear_log_probs          log p of each target
// linear_log_probs_entropy  the same, and each token's entropy, which carries no gradient
//
// hidden: [..., D]; weight: [V, D]; bias: [V]; target: [...], int64. hidden, weight and bias share
// dtype (float32, bfloat16, float16; float64 on the CPU) and device. Results are float32 (float64
// for float64) in target's shape, or a scalar.
// A token whose target is ignore_index has loss, log p, entropy and gradient 0. "mean" over no
// token at all is 0: a micro-batch without a supervised token must not end a run (torch: NaN).
//
// Products are the library's, in the dtype of hidden, into a workspace that holds a part of the
// logits; everything else is float32 (float64 for float64). Bytes of the workspace, of size-byte
// elements:
//   "mean" and "sum" of 1536 tokens or more, weight or bias trained: tokens in 12 groups, N V size
//   / 12 otherwise: classes in groups, N V size / 16, or 2048 N size
//
// Groups of tokens compute the gradients in forward, while a group's logits are in the workspace,
// and backward multiplies them by the gradient that arrives: three products, as autograd of the
// plain formula has. Between forward and backward stay the gradients of hidden, weight and bias;
// one that is not required costs neither memory nor a product. In bfloat16 the weight's gradient is
// rounded once a group. Fewer tokens, and losses and log p a token, keep hidden, weight, bias and
// five numbers a token, and compute the logits again in backward: four products. So do "mean" and
// "sum" in float16, whose small gradients need the loss scale before they are rounded. Where hidden
// alone gets a gradient (a frozen head under LoRA), forward makes it for each token in the same
// walk over the classes, as attention makes its values (the mean weight by softmax so far, scaled
// when the maximum rises), and keeps N D numbers: two products, as the plain formula.
//
// Sources: Liger Kernel (Hsu et al., 2024), gradients in forward; Cut Your Losses in
// Large-Vocabulary Language Models (Wijmans et al., 2024), groups of classes; Online normalizer
// calculation for softmax (Milakov & Gimelshein, 2018); z-loss as in PaLM (Chowdhery et al., 2022).
//
// Errors (cosmos::Error): a shape, dtype, device or number that does not fit, with expected and
// got; on the CPU a target that is no class, with its place (on a GPU, where looking would wait for
// the device, such a token's loss is NaN); a second derivative.

#include <ATen/core/Tensor.h>
#include <optional>
#include <string_view>
#include <tuple>

namespace cosmos::ops {

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& target,
                                const std::optional<at::Tensor>& bias = {},
                                int64_t ignore_index = -100, double label_smoothing = 0,
                                double z_loss = 0, std::string_view reduction = "mean");

at::Tensor linear_log_probs(const at::Tensor& hidden, const at::Tensor& weight,
                            const at::Tensor& target, const std::optional<at::Tensor>& bias = {},
                            double temperature = 1, int64_t ignore_index = -100);

/// Returns {log p, entropy}.
std::tuple<at::Tensor, at::Tensor> linear_log_probs_entropy(
    const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target,
    const std::optional<at::Tensor>& bias = {}, double temperature = 1,
    int64_t ignore_index = -100);

/// The definition, operation by operation.
namespace reference {
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& target,
                                const std::optional<at::Tensor>& bias = {},
                                int64_t ignore_index = -100, double label_smoothing = 0,
                                double z_loss = 0, std::string_view reduction = "mean");
std::tuple<at::Tensor, at::Tensor> linear_log_probs_entropy(
    const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& target,
    const std::optional<at::Tensor>& bias = {}, double temperature = 1,
    int64_t ignore_index = -100);
}  // namespace reference

}  // namespace cosmos::ops
