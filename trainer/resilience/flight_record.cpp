#include "trainer/resilience/flight_record.h"

#include <cstdio>

namespace cosmos::trainer {
namespace {

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

}  // namespace

ProfileRange::ProfileRange(const std::string& name) : function_(at::RecordScope::USER_SCOPE) {
  if (function_.isActive()) function_.before(name);
}

int64_t FlightRecord::started(const std::string& group, const char* operation, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  ++progress_;
  const int64_t number = ++collectives_;
  ring_[static_cast<std::size_t>(number) % ring_.size()] = {.number = number,
                                                            .step = step_,
                                                            .phase = phase_,
                                                            .group = group,
                                                            .operation = operation,
                                                            .bytes = bytes,
                                                            .started = Clock::now()};
  return number;
}

FlightRecord::Entry* FlightRecord::find(int64_t number) {
  Entry& entry = ring_[static_cast<std::size_t>(number) % ring_.size()];
  return entry.number == number ? &entry : nullptr;  // null: so long ago that it was overwritten
}

void FlightRecord::waiting(int64_t number) {
  const std::lock_guard lock(mutex_);
  waiting_ = number;
  Entry* entry = find(number);
  if (!entry) return;
  entry->waited = Clock::now();
  wait_range_ =
      std::make_unique<ProfileRange>("wait group " + entry->group + ": " + entry->operation);
}

void FlightRecord::finished(int64_t number) {
  const std::lock_guard lock(mutex_);
  ++progress_;
  waiting_ = 0;
  wait_range_.reset();
  Entry* entry = find(number);
  if (!entry) return;
  entry->finished = Clock::now();
  const double waited = seconds(entry->finished - entry->waited);
  waited_ += waited;
  under_way_ += seconds(entry->finished - entry->started);
  under_way_waited_ += waited;
}

double FlightRecord::take_overlap() {
  const std::lock_guard lock(mutex_);
  const double overlap = under_way_ > 0 ? 1 - under_way_waited_ / under_way_ : 1;
  under_way_ = under_way_waited_ = 0;
  return overlap;
}

void FlightRecord::close_phase(Clock::time_point now) {
  times_[phase_] += seconds(now - phase_began_) - waited_;
  times_["wait"] += waited_;
  phase_began_ = now;
  waited_ = 0;
}

void FlightRecord::enter(const char* phase, int64_t step) {
  const std::lock_guard lock(mutex_);
  ++progress_;
  close_phase(Clock::now());
  phase_ = phase;
  step_ = step;
  phase_range_.reset();
  phase_range_ = std::make_unique<ProfileRange>(phase);
}

std::map<std::string, double> FlightRecord::take_times() {
  const std::lock_guard lock(mutex_);
  close_phase(Clock::now());
  std::map<std::string, double> times;
  times.swap(times_);
  return times;
}

FlightRecord::Place FlightRecord::place() const {
  const std::lock_guard lock(mutex_);
  Place place{.step = step_, .phase = phase_, .operation = "", .collectives = collectives_};
  const Entry& entry = ring_[static_cast<std::size_t>(waiting_) % ring_.size()];
  if (waiting_ > 0 && entry.number == waiting_)
    place.operation = "group " + entry.group + ": " + entry.operation;
  return place;
}

std::string FlightRecord::text() const {
  const std::lock_guard lock(mutex_);
  std::string lines;
  const int64_t oldest = std::max<int64_t>(1, collectives_ - std::ssize(ring_) + 1);
  for (int64_t number = oldest; number <= collectives_; ++number) {
    const Entry& e = ring_[static_cast<std::size_t>(number) % ring_.size()];
    const bool done = e.finished != Clock::time_point{};
    char line[256];
    std::snprintf(line, sizeof line, "#%lld step %lld %s: group %s: %s, %lld bytes, at %.6f s, %s",
                  static_cast<long long>(e.number), static_cast<long long>(e.step), e.phase,
                  e.group.c_str(), e.operation, static_cast<long long>(e.bytes),
                  seconds(e.started - begin_), done ? "done after " : "NOT DONE after ");
    lines += line;
    std::snprintf(line, sizeof line, "%.6f s\n",
                  seconds((done ? e.finished : Clock::now()) - e.started));
    lines += line;
  }
  return lines;
}

}  // namespace cosmos::trainer
