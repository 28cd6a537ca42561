#pragma once

// What a run leaves behind, apart from checkpoints:
//   config.json     every setting with its value
//   metrics.jsonl   one object a step
//   log.txt         what happened, with times
//   tensorboard/    the same numbers for TensorBoard
//   samples/        what the recipe draws
//   report.html     curves and samples in one page (report/report.h)

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "modules/hub/json_file.h"
#include "trainer/report/console.h"
#include "trainer/report/tensorboard.h"

namespace cosmos::trainer {

class RunFolder {
 public:
  /// Creates `dir`. `console` may be null.
  RunFolder(std::filesystem::path dir, Console* console);

  const std::filesystem::path& dir() const { return dir_; }

  /// Starts (step = 0) or continues after `step`: later lines of metrics.jsonl, which an
  /// interrupted run wrote after its last checkpoint, are dropped.
  void open(const Json& config, int64_t step);

  /// One line of metrics.jsonl; numbers go to TensorBoard under their key too.
  void metrics(const Json& row);
  /// To log.txt with the time.
  void note(const std::string& text);
  /// The same, and to the console.
  void log(const std::string& text);
  Console* console() const { return console_; }

 private:
  std::filesystem::path dir_;
  Console* console_;
  std::ofstream metrics_;
  std::ofstream log_;
  std::unique_ptr<EventFile> events_;
  bool write_failed_ = false;
};

/// Largest resident set of this process so far, from /proc; 0 where there is none.
int64_t peak_memory_bytes();

}  // namespace cosmos::trainer
