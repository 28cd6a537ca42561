#pragma once

// Which rank this process is, from what the program that started it left in the environment.
//
// Looked for in this order, the first that is there counts:
//   torchrun, and whatever speaks its variables (--nproc, Kubeflow): RANK, WORLD_SIZE, ...
//   Open MPI: OMPI_COMM_WORLD_*. Before Slurm, since mpirun inside an allocation sees Slurm's
//             variables of its own daemons
//   Slurm: SLURM_PROCID, when srun started more than one task
//   Kubernetes: an indexed job's JOB_COMPLETION_INDEX, with WORLD_SIZE and MASTER_ADDR
// MASTER_ADDR and MASTER_PORT, where set, win over what would be derived.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace cosmos::trainer {

struct RankEnv {
  int64_t rank = 0;
  int64_t world = 1;
  int64_t local_rank = 0;                 ///< number on this machine: which GPU
  int64_t local_world = 1;                ///< ranks on this machine
  std::string master_addr = "127.0.0.1";  ///< where rank 0 is
  int64_t master_port = 29500;
  std::string source = "one process";  ///< who said so, for messages: "torchrun", "Slurm", ...
  /// Not empty: torchrun's agent already serves the store on master_port, and this job's keys go
  /// below this prefix. Empty: rank 0 serves it.
  std::string agent_prefix;
};

/// Value of an environment variable, nothing when it is not set.
using EnvLookup = std::function<std::optional<std::string>(const std::string&)>;

/// Throws Error in one line when variables are missing, malformed or at odds.
RankEnv read_rank_env(const EnvLookup& lookup);
/// From this process's environment.
RankEnv read_rank_env();

}  // namespace cosmos::trainer
