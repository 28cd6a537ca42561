#pragma once

// Clips that look the same.

#include "tools/curate/store.h"

namespace cosmos::curate {

/// Drops ("near duplicate") every clip whose perceptual hashes differ by `bits` or less on average
/// from those of an earlier kept clip of a similar length (within a tenth); order: that of listing,
/// then time. Decided anew from the stored hashes each time, in one transaction: doing it twice
/// changes nothing.
void drop_near_duplicates(Store& store, int64_t bits);

}  // namespace cosmos::curate
