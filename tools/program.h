#pragma once

// What the main() of every program does: runs it, and says what went wrong in one line on stderr.

#include <c10/util/Exception.h>
#include <cxxopts.hpp>
#include <functional>
#include <iostream>
#include <malloc.h>
#include <string>
#include <unistd.h>

#include "ops/core/error.h"

namespace cosmos::tools {

/// The command line is wrong, not what it names: exit code 2 in place of 1.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// parse() -> its result; an Error that it throws becomes a UsageError.
template <typename Parse>
auto parse_usage(Parse parse) {
  try {
    return parse();
  } catch (const Error& error) {
    throw UsageError(error.what());
  }
}

/// What went wrong, without torch's backtrace and further lines.
inline std::string one_line(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

/// Freed memory is used again instead of going back to the kernel: a step's large tensors are the
/// same every time, and pages that are new cost more than what is computed in them (GELU over 200
/// MB: 23 ms, of which 16 are page faults). Peak memory stays within a few percent.
inline void keep_freed_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
  mallopt(M_TOP_PAD, 64 << 20);
}

/// Prints a line from any thread, whatever the others are stuck in.
inline std::function<void(const std::string&)> last_words(const std::string& name) {
  return [name](const std::string& text) {
    const std::string line = name + ": " + text + "\n";
    (void)!::write(STDERR_FILENO, line.data(), line.size());
  };
}

/// Exit code of `run(argc, argv)`; 1 after an error, 2 after wrong usage.
template <typename Run>
int run_program(const char* name, int argc, char** argv, Run run) {
  const auto complain = [name](const std::string& what, int code) {
    std::cout.flush();
    std::cerr << name << ": " << what << (code == 2 ? " (--help lists the options)" : "") << '\n';
    return code;
  };
  keep_freed_memory();
  try {
    return run(argc, argv);
  } catch (const cxxopts::exceptions::exception& error) {
    return complain(error.what(), 2);
  } catch (const UsageError& error) {
    return complain(error.what(), 2);
  } catch (const std::exception& error) {
    return complain(one_line(error), 1);
  }
}

}  // namespace cosmos::tools
