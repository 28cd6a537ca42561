#pragma once

#include <map>
#include <string>
#include <vector>

#include "modules/hub/json_file.h"

namespace cosmos::trainer {

/// Who keeps the others waiting. `times`: by rank, FlightRecord::take_times(). In synchronous
/// training all ranks take equally long; the slowest is the one that waits least, and its slowest
/// phase the one in which it lies most above the median.
///   {"slowest_rank": 3, "slowest_phase": "data", "slowest_excess_s": 1.2}
/// The excess is the rank's own work beyond the median rank's.
Json slowest_rank(const std::vector<std::map<std::string, double>>& times);

}  // namespace cosmos::trainer
