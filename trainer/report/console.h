#pragma once

// What a person sees while a run goes on. Programs own the stream; the trainer only says what.

#include <chrono>
#include <cstdint>
#include <ostream>
#include <string>

namespace cosmos::trainer {

/// State of a long job, for one progress line.
struct Progress {
  std::string what = "step";  ///< unit that is counted
  int64_t done = 0;
  int64_t total = 0;
  double seconds_left = -1;  ///< below 0: unknown
  std::string details;       ///< "loss 0.123  lr 1.0e-04"
};

/// On a terminal a bar that redraws in place; elsewhere (a file, CI) plain lines.
class Console {
 public:
  Console(std::ostream& out, bool terminal) : out_(out), terminal_(terminal) {}
  ~Console() { clear(); }

  void line(const std::string& text);
  /// `due`: print a plain line now (a terminal redraws at most ten times a second anyway).
  void progress(const Progress& progress, bool due);

 private:
  void clear();

  std::ostream& out_;
  bool terminal_;
  bool bar_shown_ = false;
  std::chrono::steady_clock::time_point last_draw_;
};

/// "1:02:03" or "4:05"; "?" below 0.
std::string format_duration(double seconds);
/// "1.5 GiB".
std::string format_bytes(double bytes);
/// "1.23 M", "2.06 B".
std::string format_count(int64_t count);
/// Four significant digits.
std::string format_number(double value);

}  // namespace cosmos::trainer
