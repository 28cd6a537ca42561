#pragma once

#include <filesystem>

namespace cosmos::trainer {

/// Installs the handler that append_stacks() needs (a real-time signal) and loads what unwinding
/// needs, while the process is healthy.
void prepare_stacks();

/// Appends the call stack of every thread of this process to `file`. A thread that does not answer
/// within a moment (blocked in the kernel without letting signals in) is named as such.
void append_stacks(const std::filesystem::path& file);

}  // namespace cosmos::trainer
