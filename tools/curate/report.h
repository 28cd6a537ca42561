#pragma once

// The page that shows a run to a person.

#include "tools/curate/account.h"
#include "tools/curate/config.h"

namespace cosmos::curate {

/// Writes report.html: what was lost where on the way from input to kept clips, histograms of the
/// scores, and frames of kept and dropped clips to look at. It opens offline and follows from the
/// store and the videos alone.
void write_report(Store& store, const Config& config, const Account& account);

}  // namespace cosmos::curate
