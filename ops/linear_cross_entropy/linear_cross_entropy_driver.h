#pragma once

// Groups, workspace and products of linear_cross_entropy.h, below autograd. hidden: [N, D];
// weight: [V, D]; bias: [V]; target: [N]. Gradients that are not wanted come back as [0].

#include <ATen/core/Tensor.h>
#include <optional>
#include <tuple>

namespace cosmos::ops::driver {

/// {loss [N], entropy [N] ([0] unless asked for), state [N, 5] for the backward pass, d loss / d
/// hidden [N, D] of each token's own loss ([0] unless asked for; accumulate type)}.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> linear_cross_entropy_forward(
    const at::Tensor& hidden, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
    const at::Tensor& target, int64_t ignore_index, double label_smoothing, double z_loss,
    double scale, bool entropy, bool hidden_grad);

/// {grad of hidden, of weight, of bias}; `grad`: [N], of the losses, accumulate type.
std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_cross_entropy_backward(
    const at::Tensor& grad, const at::Tensor& state, const at::Tensor& hidden,
    const at::Tensor& weight, const std::optional<at::Tensor>& bias, const at::Tensor& target,
    int64_t ignore_index, double label_smoothing, double z_loss, double scale, bool hidden_grad,
    bool weight_grad, bool bias_grad);

/// {sum or mean of the losses, its gradients of hidden, weight and bias}.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> linear_cross_entropy_with_gradients(
    const at::Tensor& hidden, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
    const at::Tensor& target, int64_t ignore_index, double label_smoothing, double z_loss,
    bool mean, bool hidden_grad, bool weight_grad, bool bias_grad);

// Classes in ranges, each held elsewhere. `target` is by the range's own numbers: ignore_index
// where the token is, V where its class is in another range.

/// The range's share of every token's state, [N, 5], accumulate type.
at::Tensor class_states(const at::Tensor& hidden, const at::Tensor& weight,
                        const std::optional<at::Tensor>& bias, const at::Tensor& target,
                        int64_t ignore_index, double scale, bool entropy);
/// That of all ranges.  states: [ranges, N, 5] -> [N, 5]
at::Tensor merge_class_states(const at::Tensor& states);
/// {loss [N], entropy [N]} of complete states, over `classes` in all.
std::tuple<at::Tensor, at::Tensor> class_losses(const at::Tensor& state, const at::Tensor& target,
                                                int64_t classes, int64_t ignore_index,
                                                double label_smoothing, double z_loss);
/// linear_cross_entropy_backward of a range, from the complete state.
std::tuple<at::Tensor, at::Tensor, at::Tensor> class_gradients(
    const at::Tensor& grad, const at::Tensor& state, const at::Tensor& hidden,
    const at::Tensor& weight, const std::optional<at::Tensor>& bias, const at::Tensor& target,
    int64_t classes, int64_t ignore_index, double label_smoothing, double z_loss, double scale,
    bool hidden_grad, bool weight_grad, bool bias_grad);

/// Throws Error, on the CPU, where a target is no class.
void check_targets(const at::Tensor& target, int64_t classes, int64_t ignore_index);

}  // namespace cosmos::ops::driver
