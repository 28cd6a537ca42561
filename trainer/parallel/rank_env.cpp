#include "trainer/parallel/rank_env.h"

#include <charconv>
#include <cstdlib>

#include "ops/core/error.h"
#include "trainer/parallel/slurm.h"

namespace cosmos::trainer {
namespace {

/// The environment, with errors that name the variable and the launcher it belongs to.
class Variables {
 public:
  Variables(const EnvLookup& lookup, std::string source)
      : lookup_(lookup), source_(std::move(source)) {}

  bool has(const std::string& name) const { return find(name).has_value(); }

  /// Set but empty counts as not set: that is how a shell unsets for one command.
  std::optional<std::string> find(const std::string& name) const {
    std::optional<std::string> value = lookup_(name);
    if (value && value->empty()) value.reset();
    return value;
  }

  std::string text(const std::string& name) const {
    std::optional<std::string> value = find(name);
    require(value.has_value(), source_, ": expected ", name, ", got nothing; export ", name,
            " on every rank");
    return *value;
  }

  int64_t number(const std::string& name) const {
    const std::string value = text(name);
    int64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    require(error == std::errc() && end == value.data() + value.size() && number >= 0, source_,
            ": ", name, ": expected a number from 0, got \"", value, "\"; correct or unset it");
    return number;
  }

  int64_t number_or(const std::string& name, int64_t otherwise) const {
    return has(name) ? number(name) : otherwise;
  }

 private:
  const EnvLookup& lookup_;
  std::string source_;
};

/// Several names for one thing: the first that is set.
std::string first_set(const Variables& env, const std::string& a, const std::string& b) {
  return env.has(a) ? a : b;
}

void check(const RankEnv& r) {
  require(r.world >= 1 && r.rank < r.world, r.source, ": expected a rank below the world's size, ",
          "got rank ", r.rank, " of ", r.world, "; start every rank with the same size");
  require(r.local_rank < r.local_world && r.local_world <= r.world, r.source,
          ": expected local rank < local size <= world, got local rank ", r.local_rank, " of ",
          r.local_world, " in a world of ", r.world, "; correct or unset the local variables");
  require(r.master_port >= 1 && r.master_port <= 65535, r.source,
          ": MASTER_PORT: expected 1 to 65535, got ", r.master_port, "; choose a free port");
}

/// The world's size where a user exported it beside what the launcher says.
void check_world_size(const Variables& env, const RankEnv& r) {
  if (!env.has("WORLD_SIZE")) return;
  const int64_t said = env.number("WORLD_SIZE");
  require(said == r.world, r.source, ": WORLD_SIZE: expected ", r.world, " (the tasks started), ",
          "got ", said, "; unset WORLD_SIZE, or start as many tasks");
}

bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

RankEnv from_torchrun(const EnvLookup& lookup) {
  RankEnv r{.source = "torchrun"};
  const Variables env(lookup, r.source);
  r.rank = env.number("RANK");
  r.world = env.number("WORLD_SIZE");
  if (r.world > 1) r.master_addr = env.text("MASTER_ADDR");
  r.master_port = r.world > 1 ? env.number("MASTER_PORT") : r.master_port;
  require(env.has("LOCAL_RANK") == env.has("LOCAL_WORLD_SIZE"), r.source,
          ": expected both or none of LOCAL_RANK and LOCAL_WORLD_SIZE, got one; export both");
  // Operators that give every pod one rank set neither. On one machine the local rank is the rank.
  const bool alone = !is_loopback(r.master_addr);
  r.local_rank = env.number_or("LOCAL_RANK", alone ? 0 : r.rank);
  r.local_world = env.number_or("LOCAL_WORLD_SIZE", alone ? 1 : r.world);
  if (env.find("TORCHELASTIC_USE_AGENT_STORE") == "True")
    r.agent_prefix =
        "/worker/attempt_" + std::to_string(env.number_or("TORCHELASTIC_RESTART_COUNT", 0));
  return r;
}

RankEnv from_open_mpi(const EnvLookup& lookup) {
  RankEnv r{.source = "Open MPI"};
  const Variables env(lookup, r.source);
  r.rank = env.number("OMPI_COMM_WORLD_RANK");
  r.world = env.number("OMPI_COMM_WORLD_SIZE");
  r.local_rank = env.number("OMPI_COMM_WORLD_LOCAL_RANK");
  r.local_world = env.number("OMPI_COMM_WORLD_LOCAL_SIZE");
  check_world_size(env, r);
  require(env.has("MASTER_ADDR") || r.local_world == r.world, r.source,
          ": expected MASTER_ADDR, since ", r.world, " ranks are on several machines, got ",
          "nothing; add -x MASTER_ADDR=HOST_OF_RANK_0 to mpirun");
  r.master_addr = env.find("MASTER_ADDR").value_or(r.master_addr);
  r.master_port = env.number_or("MASTER_PORT", r.master_port);
  return r;
}

/// Tasks on this node.
int64_t slurm_local_world(const Variables& env, const RankEnv& r) {
  const std::string name = first_set(env, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE");
  const std::vector<int64_t> tasks = slurm_tasks_per_node(env.text(name));
  const auto node = static_cast<std::size_t>(env.number_or("SLURM_NODEID", 0));
  int64_t sum = 0;
  bool equal = true;
  for (const int64_t n : tasks) {
    sum += n;
    equal = equal && n == tasks.front();
  }
  require(sum == r.world, r.source, ": ", name, ": expected ", r.world, " tasks in all, got ", sum,
          " (", env.text(name), "); start with srun, and no options that change between steps");
  require(node < tasks.size() && (equal || env.has("SLURM_NODEID")), r.source,
          ": SLURM_NODEID: expected a node below ", tasks.size(), ", got ",
          env.find("SLURM_NODEID").value_or("nothing"), "; start with srun");
  return tasks[node];
}

RankEnv from_slurm(const EnvLookup& lookup) {
  RankEnv r{.source = "Slurm"};
  const Variables env(lookup, r.source);
  r.rank = env.number("SLURM_PROCID");
  r.world = env.number(first_set(env, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"));
  // sbatch runs its script as one process with SLURM_PROCID=0 and the job's task count.
  require(env.has("SLURM_STEP_NUM_TASKS") || env.has("SLURM_STEP_ID"), r.source, ": expected ",
          r.world, " tasks, got the batch script's one process; start this program with srun");
  r.local_rank = env.number("SLURM_LOCALID");
  r.local_world = slurm_local_world(env, r);
  check_world_size(env, r);
  r.master_addr =
      env.has("MASTER_ADDR")
          ? env.text("MASTER_ADDR")
          : first_slurm_host(env.text(first_set(env, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST")));
  // A function of the job, so that all ranks agree and jobs that share a node rarely meet.
  r.master_port = env.has("MASTER_PORT") ? env.number("MASTER_PORT")
                                         : 15000 + env.number("SLURM_JOB_ID") % 15000;
  return r;
}

RankEnv from_kubernetes(const EnvLookup& lookup) {
  RankEnv r{.source = "Kubernetes"};
  const Variables env(lookup, r.source);
  r.rank = env.number("JOB_COMPLETION_INDEX");
  r.world = env.number("WORLD_SIZE");
  if (r.world > 1) r.master_addr = env.text("MASTER_ADDR");
  r.master_port = env.number_or("MASTER_PORT", r.master_port);
  return r;
}

bool started_by_srun(const EnvLookup& lookup) {
  const Variables env(lookup, "Slurm");
  if (!env.has("SLURM_PROCID")) return false;
  return env.number_or(first_set(env, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), 1) > 1;
}

RankEnv choose(const EnvLookup& lookup) {
  const Variables env(lookup, "environment");
  if (env.has("RANK")) return from_torchrun(lookup);
  if (env.has("OMPI_COMM_WORLD_RANK")) return from_open_mpi(lookup);
  if (started_by_srun(lookup)) return from_slurm(lookup);
  const bool sized = env.number_or("WORLD_SIZE", 1) > 1;
  // An indexed job without WORLD_SIZE is many runs of one process each.
  if (env.has("JOB_COMPLETION_INDEX") && env.has("WORLD_SIZE")) return from_kubernetes(lookup);
  require(!sized,
          "environment: expected RANK beside WORLD_SIZE=", env.find("WORLD_SIZE").value_or("1"),
          ", got nothing; start with torchrun, srun or mpirun, or unset WORLD_SIZE");
  return {};
}

}  // namespace

RankEnv read_rank_env(const EnvLookup& lookup) {
  RankEnv r = choose(lookup);
  check(r);
  return r;
}

RankEnv read_rank_env() {
  return read_rank_env([](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  });
}

}  // namespace cosmos::trainer
