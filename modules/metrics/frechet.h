#pragma once

// How far one set of clips is from another: the Fréchet distance of their features (FID of
// pictures, FVD of clips; Heusel et al., 2017, Unterthiner et al., 2018).

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of the Gaussians through two sets of features:
/// means and covariances (over n - 1). Computed in float64. a: [n, d], b: [m, d]; throws Error on
/// fewer than two samples, other widths, or numbers that are not finite.
double frechet_distance(const Tensor& a, const Tensor& b);

}  // namespace cosmos::modules
