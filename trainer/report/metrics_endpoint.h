#pragma once

// The run's numbers for Prometheus: http://127.0.0.1:PORT/metrics in its text format, for this
// machine alone. What a number means is what metrics.jsonl calls it; "val_loss" is cosmos_val_loss.

#include <cstdint>
#include <memory>

#include "modules/hub/json_file.h"

namespace cosmos::trainer {

class MetricsEndpoint {
 public:
  /// Answers from now on, in threads of its own. Throws Error when the port is taken, or when this
  /// program was built without prometheus-cpp.
  explicit MetricsEndpoint(int64_t port);
  ~MetricsEndpoint();
  MetricsEndpoint(const MetricsEndpoint&) = delete;
  MetricsEndpoint& operator=(const MetricsEndpoint&) = delete;

  /// A line of metrics.jsonl. Numbers become gauges, those of an object ("phase_s", "by") one gauge
  /// with a label, {"mean": ...} its mean. Time by phase adds up: cosmos_phase_seconds_total.
  void publish(const Json& row);

 private:
  struct Server;
  std::unique_ptr<Server> server_;
};

}  // namespace cosmos::trainer
