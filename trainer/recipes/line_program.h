#pragma once

// Another program that answers lines on its stdin with lines on its stdout.

#include <string>
#include <sys/types.h>
#include <vector>

namespace cosmos::trainer {

class LineProgram {
 public:
  /// `command`: the program (found on the PATH) and its arguments; it starts with the first line.
  /// `where` names it in errors; `patience_s`: how long an answer may take.
  LineProgram(std::vector<std::string> command, std::string where, int patience_s = 60);
  /// Ends its input and waits for it.
  ~LineProgram();
  LineProgram(const LineProgram&) = delete;
  LineProgram& operator=(const LineProgram&) = delete;

  /// Sends a line and returns the next one from the program, without the line break. Throws Error
  /// when it cannot be started, has ended, or says nothing for too long.
  std::string ask(const std::string& line);

 private:
  void start();

  std::vector<std::string> command_;
  std::string where_, held_;
  int patience_s_ = 60;
  pid_t process_ = -1;
  int to_ = -1, from_ = -1;
};

}  // namespace cosmos::trainer
