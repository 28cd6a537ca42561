#pragma once

// How near one clip is to another, frame by frame. Clips: [T, C, H, W], values in [0, 1], float32
// or float64; results [T] in float64. Throws Error when shapes differ.

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// -10 log10 of the mean squared error over a frame, in dB; infinite for equal frames.
Tensor psnr(const Tensor& a, const Tensor& b);

/// Structural similarity (Wang et al., 2004): Gaussian window of deviation 1.5 over 11 x 11 pixels,
/// K 0.01 and 0.03, population variances, mean over channels and over the positions where the
/// window lies inside the frame. Frames must be 11 pixels or larger.
Tensor ssim(const Tensor& a, const Tensor& b);

/// F1 of binary maps [T, H, W], `a` judged by `b`: 2 |a and b| / (|a| + |b|); 1 where both are
/// empty.
Tensor f1_score(const Tensor& a, const Tensor& b);

/// Root mean squared error of log depth up to one factor a frame (Eigen et al., 2014): the standard
/// deviation of ln a - ln b over the pixels where both are positive. Depth: [T, H, W].
Tensor scale_invariant_rmse(const Tensor& a, const Tensor& b);

/// Mean over the classes that appear in either frame of |a and b| / |a or b|. Labels: whole numbers
/// [T, H, W].
Tensor mean_iou(const Tensor& a, const Tensor& b);

/// Labels of a segmentation video: one number a colour, each channel rounded to steps of 32, so
/// that what compression does to a flat colour stays one label. frames: [T, 3, H, W] in [0, 1].
Tensor colour_labels(const Tensor& frames);

}  // namespace cosmos::modules
