#include "trainer/resilience/straggler.h"

#include <algorithm>
#include <set>

namespace cosmos::trainer {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return 0.5 * (values[(n - 1) / 2] + values[n / 2]);
}

}  // namespace

Json slowest_rank(const std::vector<std::map<std::string, double>>& times) {
  std::vector<double> busy(times.size(), 0);
  std::set<std::string> phases;
  for (std::size_t r = 0; r < times.size(); ++r)
    for (const auto& [phase, seconds] : times[r]) {
      if (phase == "wait") continue;
      busy[r] += seconds;
      phases.insert(phase);
    }
  const auto slowest =
      static_cast<std::size_t>(std::max_element(busy.begin(), busy.end()) - busy.begin());
  std::string worst;
  double most = -1;
  for (const std::string& phase : phases) {
    std::vector<double> all;
    for (const auto& of_rank : times) {
      const auto found = of_rank.find(phase);
      all.push_back(found == of_rank.end() ? 0 : found->second);
    }
    if (const double excess = all[slowest] - median(all); excess > most) {
      most = excess;
      worst = phase;
    }
  }
  return {{"slowest_rank", slowest},
          {"slowest_phase", worst},
          {"slowest_excess_s", busy[slowest] - median(busy)}};
}

}  // namespace cosmos::trainer
