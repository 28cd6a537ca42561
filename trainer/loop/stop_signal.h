#pragma once

namespace cosmos::trainer {

/// While one lives, SIGINT and SIGTERM ask the run to finish its step, save and return; a second
/// signal ends the process at once. For programs only: a library must not take signals.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  /// Number of the signal that arrived, 0 when none did.
  int received() const;
};

}  // namespace cosmos::trainer
