#include "trainer/report/metrics_endpoint.h"

#include <algorithm>
#include <cctype>

#include "ops/core/error.h"

#ifdef COSMOS_PROMETHEUS
#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#endif

namespace cosmos::trainer {

#ifdef COSMOS_PROMETHEUS
namespace {

// Prometheus allows letters, digits and underscores.
std::string metric_name(const std::string& key) {
  std::string name = "cosmos_" + key;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

void set_gauge(prometheus::Registry& registry, const std::string& key,
               const prometheus::Labels& labels, double value) {
  prometheus::BuildGauge()
      .Name(metric_name(key))
      .Help("as in metrics.jsonl")
      .Register(registry)
      .Add(labels)
      .Set(value);
}

}  // namespace

struct MetricsEndpoint::Server {
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  std::unique_ptr<prometheus::Exposer> exposer;
};

MetricsEndpoint::MetricsEndpoint(int64_t port) : server_(std::make_unique<Server>()) {
  const std::string address = "127.0.0.1:" + std::to_string(port);
  try {
    server_->exposer = std::make_unique<prometheus::Exposer>(address);
  } catch (const std::exception& error) {
    fail("trainer.metrics_port: expected a free port, got ", port, ", where nothing can listen (",
         error.what(), "); choose another");
  }
  server_->exposer->RegisterCollectable(server_->registry);
}

void MetricsEndpoint::publish(const Json& row) {
  for (const auto& [key, value] : row.items()) {
    if (value.is_number()) set_gauge(*server_->registry, key, {}, value.get<double>());
    if (!value.is_object()) continue;
    for (const auto& [label, entry] : value.items()) {
      const Json& number = entry.is_object() ? entry.value("mean", Json()) : entry;
      if (!number.is_number()) continue;
      if (key == "phase_s")
        prometheus::BuildCounter()
            .Name("cosmos_phase_seconds_total")
            .Help("time of the first rank by phase; wait: for other ranks")
            .Register(*server_->registry)
            .Add({{"phase", label}})
            .Increment(std::max(0.0, number.get<double>()));
      else
        set_gauge(*server_->registry, key, {{"of", label}}, number.get<double>());
    }
  }
}
#else
struct MetricsEndpoint::Server {};

MetricsEndpoint::MetricsEndpoint(int64_t port) {
  fail("trainer.metrics_port: expected 0 (off) in a program built without prometheus-cpp, got ",
       port, "; install prometheus-cpp-dev and build again");
}

void MetricsEndpoint::publish(const Json&) {}
#endif

MetricsEndpoint::~MetricsEndpoint() = default;

}  // namespace cosmos::trainer
