#pragma once

#include "ops/diffusion_loss/diffusion_loss.h"
#include "test/support/op_case.h"

namespace cosmos::test {

struct LatentCase {
  const char* what;
  std::vector<int64_t> shape;  ///< [B, C, T, H, W]
  bool per_clip = false;
  bool transposed = false;
  bool gradcheck = false;
  bool benchmark = false;
};

inline std::vector<LatentCase> latent_cases() {
  return {
      {"one element", {1, 1, 1, 1, 1}, false, false, true},
      {"odd sizes", {2, 3, 3, 3, 5}, false, false, true},
      {"one level a clip", {2, 2, 3, 2, 4}, true, false, true},
      {"rows and columns swapped", {2, 2, 2, 3, 4}, false, true, true},
      {"planes of several segments", {1, 2, 2, 67, 125}},
      {"whole segments", {1, 2, 1, 64, 128}},
      {"many planes", {3, 16, 5, 4, 8}},
      {"empty batch", {0, 3, 2, 4, 4}},
      {"no rows", {2, 3, 2, 0, 4}},
      {"720p", {1, 16, 24, 88, 160}, false, false, false, true},
  };
}

inline at::Tensor latent_leaf(const LatentCase& s) {
  return s.transposed ? transposed_leaf(s.shape) : leaf(s.shape);
}

/// A number for each clip or frame.
inline at::Tensor frame_numbers(const LatentCase& s) {
  const std::vector<int64_t> per_clip = {s.shape[0]}, per_frame = {s.shape[0], s.shape[2]};
  return at::randn(s.per_clip ? per_clip : per_frame, at::kDouble);
}

inline at::Tensor as_frames(const at::Tensor& numbers, const at::Tensor& x0) {
  return numbers.dim() == 2 ? numbers : numbers.unsqueeze(1).expand({x0.size(0), x0.size(2)});
}

inline std::vector<OpCase> diffusion_input_cases() {
  std::vector<OpCase> cases;
  for (const LatentCase& s : latent_cases())
    cases.push_back({std::string("diffusion_input: ") + s.what,
                     [s] {
                       return std::vector<at::Tensor>{latent_leaf(s), latent_leaf(s),
                                                      frame_numbers(s), frame_numbers(s)};
                     },
                     [](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::diffusion_input(t[0], t[1], t[2], t[3])};
                     },
                     [](const auto& t) -> std::vector<at::Tensor> {
                       return {ops::reference::diffusion_input(t[0], t[1], as_frames(t[2], t[0]),
                                                               as_frames(t[3], t[0]),
                                                               t[0].scalar_type())};
                     },
                     3, 3, s.benchmark, s.gradcheck});
  return cases;
}

/// Latents stay in float32 beside an output of any dtype, as in training.
inline std::vector<OpCase> diffusion_loss_cases() {
  std::vector<OpCase> cases;
  for (const LatentCase& s : latent_cases())
    cases.push_back(
        {std::string("diffusion_loss: ") + s.what,
         [s] {
           const auto latents = s.gradcheck ? at::kDouble : at::kFloat;
           at::Tensor weight = frame_numbers(s).abs() + 0.1;
           if (!s.per_clip && s.shape[2] > 1) weight.select(1, 0).zero_();
           return std::vector<at::Tensor>{latent_leaf(s),
                                          latent_leaf(s).detach().to(latents),
                                          latent_leaf(s).detach().to(latents),
                                          frame_numbers(s),
                                          frame_numbers(s),
                                          weight};
         },
         [](const auto& t) -> std::vector<at::Tensor> {
           return {ops::diffusion_loss(t[0], t[1], t[2], t[3], t[4], t[5])};
         },
         [](const auto& t) -> std::vector<at::Tensor> {
           return {ops::reference::diffusion_loss(t[0], t[1], t[2], as_frames(t[3], t[0]),
                                                  as_frames(t[4], t[0]), as_frames(t[5], t[0]))};
         },
         3, 4, s.benchmark, s.gradcheck});
  return cases;
}

}  // namespace cosmos::test
