#pragma once

// Slurm's two compressed notations.

#include <cstdint>
#include <string>
#include <vector>

namespace cosmos::trainer {

/// "gpu[03-05,9],login1" -> "gpu03". Throws Error when there is none.
std::string first_slurm_host(const std::string& nodelist);

/// Tasks of every node: "4(x2),3" -> {4, 4, 3}. Throws Error when it is not of this form.
std::vector<int64_t> slurm_tasks_per_node(const std::string& text);

}  // namespace cosmos::trainer
