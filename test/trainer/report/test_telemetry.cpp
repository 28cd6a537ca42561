// What a run tells while it goes on: traces of chosen steps, numbers for Prometheus.

#include <arpa/inet.h>
#include <catch2/catch.hpp>
#include <set>
#include <sys/socket.h>
#include <unistd.h>

#include "modules/hub/atomic_file.h"
#include "test/support/rank_runs.h"
#include "test/trainer/toy_recipe.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

/// A socket on this machine's loopback, at `port` or any free one.
class Socket {
 public:
  Socket() : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {}
  ~Socket() { ::close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  int64_t bind_any() {
    sockaddr_in address = loopback(0);
    REQUIRE(::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    socklen_t size = sizeof address;
    REQUIRE(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    return ntohs(address.sin_port);
  }
  /// What HTTP answers to GET.
  std::string get(int64_t port, const std::string& path) {
    sockaddr_in address = loopback(port);
    if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return "";
    const std::string request =
        "GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    REQUIRE(::write(fd_, request.data(), request.size()) == std::ssize(request));
    std::string answer;
    char part[4096];
    for (ssize_t n = 0; (n = ::read(fd_, part, sizeof part)) > 0;)
      answer.append(part, static_cast<std::size_t>(n));
    return answer;
  }

 private:
  static sockaddr_in loopback(int64_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  int fd_;
};

int64_t free_port() {
  return Socket().bind_any();
}

struct Range {
  double begin = 0, end = 0;
};

/// A trace's complete events, by name.
std::multimap<std::string, Range> ranges_of(const fs::path& trace) {
  std::multimap<std::string, Range> found;
  const Json json = modules::read_json(trace);
  for (const Json& event : json.at("traceEvents"))
    if (event.value("ph", "") == "X") {
      const double begin = event.at("ts");
      found.emplace(event.at("name"), Range{begin, begin + event.at("dur").get<double>()});
    }
  return found;
}

}  // namespace

TEST_CASE("the trace of chosen steps holds phases, operators and collectives of every rank",
          "[telemetry]") {
  Runs runs;
  const Json two = {{"gradient_accumulation", 2}};
  const Outcome plain = runs.run("plain", 2, two);
  Json settings = two;
  settings["profile"] = {{"from", 2}, {"steps", 2}};
  const Outcome traced = runs.run("traced", 2, settings);
  check_same(traced, plain, 1e-300);
  for (const char* rank : {"rank-0.json", "rank-1.json"}) {
    const auto ranges = ranges_of(runs.dir("traced") / "profile" / rank);
    CHECK(ranges.count("step 2") == 1);
    CHECK(ranges.count("step 3") == 1);
    CHECK(ranges.count("step 1") + ranges.count("step 4") == 0);
    for (const char* phase : {"data", "forward", "backward", "optimizer", "save"}) {
      INFO(phase);
      CHECK(ranges.count(phase) >= 2);
    }
    CHECK(ranges.count("forward") == 4);  // two micro-batches in each step
    for (const char* wait : {"wait group model: all_gather", "wait group model: reduce_scatter"}) {
      INFO(wait);
      CHECK(ranges.count(wait) >= 2);
    }
    CHECK(ranges.count("aten::mm") + ranges.count("aten::addmm") > 0);
    // A phase lies in its step; products in phases.
    const Range step = ranges.find("step 2")->second;
    const Range forward = ranges.find("forward")->second;
    CHECK(forward.begin >= step.begin);
    CHECK(forward.end <= step.end);
    CHECK(forward.end > forward.begin);
  }
}

TEST_CASE("Prometheus reads the numbers of a run while it goes on, on this machine alone",
          "[telemetry]") {
  TempFolder dir;
  const int64_t port = free_port();
  std::string first, last;
  run_toy(toy_config(dir.path(), {{"steps", 3}, {"log_every", 1}, {"metrics_port", port}}),
          {.should_stop = [&] {
            (first.empty() ? first : last) = Socket().get(port, "/metrics");
            return false;
          }});
  CHECK_THAT(first, Contains("200 OK") && Contains("text/plain"));
  CHECK_THAT(first, Contains("# TYPE cosmos_loss gauge") && Contains("\ncosmos_step 1\n"));
  CHECK_THAT(first, Contains("cosmos_phase_seconds_total{phase=\"forward\"}"));
  CHECK_THAT(first, Contains("cosmos_by{of=\"half/even\"}"));
  CHECK_THAT(last, Contains("\ncosmos_step 3\n"));
  CHECK(Socket().get(port, "/metrics").empty());  // the run has ended
}

TEST_CASE("Nobody listens unless asked to, and a port in use is an error", "[telemetry]") {
  TempFolder dir, other;
  Socket taken;
  const int64_t port = taken.bind_any();
  CHECK_THROWS_WITH(run_toy(toy_config(dir.path(), {{"steps", 1}, {"metrics_port", port}})),
                    Contains("trainer.metrics_port: expected a free port"));
  std::string answer = "none";
  const int64_t unused = free_port();
  run_toy(toy_config(other.path(), {{"steps", 1}}),
          {.should_stop = [&] { return answer = Socket().get(unused, "/metrics"), false; }});
  CHECK(answer.empty());
}
