#pragma once

// The whole run.

#include <iosfwd>

#include "tools/curate/config.h"

namespace cosmos::curate {

/// Curates what the config names into its output folder, or goes on where an earlier run stopped;
/// prints progress and the table of where every second went. Throws Error.
void curate(const Config& config, std::ostream& out, bool terminal);

}  // namespace cosmos::curate
