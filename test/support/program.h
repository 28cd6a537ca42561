#pragma once

// Programs tested from outside: the command line a user types, the exit code and the text they get.

#include <array>
#include <catch2/catch.hpp>
#include <cstdio>
#include <string>
#include <sys/wait.h>

namespace cosmos::test {

struct Answer {
  int code = -1;
  std::string text;  ///< stdout and stderr
};

/// Any command of the shell.
inline Answer shell(const std::string& command) {
  FILE* pipe = ::popen(("exec 2>&1; " + command).c_str(), "r");
  REQUIRE(pipe != nullptr);
  Answer answer;
  std::array<char, 4096> buffer{};
  while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe))
    answer.text.append(buffer.data(), n);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) answer.code = WEXITSTATUS(status);
  return answer;
}

/// `program` of this build with `arguments` as a shell reads them; `before` runs in that shell
/// first.
inline Answer run_program(const std::string& program, const std::string& arguments,
                          const std::string& before = "") {
  return shell(before + (before.empty() ? "" : "; ") + "OMP_NUM_THREADS=1 " + COSMOS_BIN_DIR "/" +
               program + " " + arguments);
}

}  // namespace cosmos::test
