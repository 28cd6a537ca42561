#include <catch2/catch.hpp>
#include <map>

#include "ops/core/error.h"
#include "trainer/parallel/rank_env.h"
#include "trainer/parallel/slurm.h"

using namespace cosmos;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;
using Variables = std::map<std::string, std::string>;

namespace {

RankEnv read(const Variables& variables) {
  return read_rank_env([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional<std::string>(found->second);
  });
}

Variables with(Variables variables, const Variables& changes) {
  for (const auto& [name, value] : changes) variables[name] = value;
  return variables;
}

/// One line that holds `part`.
void check_refused(const Variables& variables, const std::string& part) {
  INFO(part);
  try {
    read(variables);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK_THAT(error.what(), Contains(part) && !Contains("\n"));
  }
}

const Variables kTorchrun = {{"RANK", "5"},        {"WORLD_SIZE", "8"},
                             {"LOCAL_RANK", "1"},  {"LOCAL_WORLD_SIZE", "4"},
                             {"MASTER_PORT", "4"}, {"MASTER_ADDR", "node1"}};
const Variables kSlurm = {{"SLURM_PROCID", "9"},
                          {"SLURM_STEP_NUM_TASKS", "11"},
                          {"SLURM_NTASKS", "16"},
                          {"SLURM_LOCALID", "1"},
                          {"SLURM_NODEID", "2"},
                          {"SLURM_STEP_TASKS_PER_NODE", "4(x2),3"},
                          {"SLURM_STEP_NODELIST", "gpu[03-05,9],login1"},
                          {"SLURM_JOB_ID", "1234567"}};
const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "1"},
                            {"OMPI_COMM_WORLD_SIZE", "2"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
const Variables kKubernetes = {
    {"JOB_COMPLETION_INDEX", "3"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "job-0.job"}};

}  // namespace

TEST_CASE("no launcher means one process", "[rank-env]") {
  for (const Variables& none :
       {Variables{}, Variables{{"WORLD_SIZE", "1"}},
        Variables{{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "1"}},
        Variables{{"SLURM_NTASKS", "8"}},  // salloc
        Variables{{"RANK", ""}}, Variables{{"JOB_COMPLETION_INDEX", "3"}}}) {
    const RankEnv r = read(none);
    CHECK(r.world == 1);
    CHECK(r.rank == 0);
    CHECK(r.source == "one process");
  }
}

TEST_CASE("torchrun's variables", "[rank-env]") {
  const RankEnv r = read(kTorchrun);
  CHECK(r.source == "torchrun");
  CHECK(r.rank == 5);
  CHECK(r.world == 8);
  CHECK(r.local_rank == 1);
  CHECK(r.local_world == 4);
  CHECK(r.master_addr == "node1");
  CHECK(r.master_port == 4);
  CHECK(r.agent_prefix.empty());
  // torchrun's agent may serve the store itself, anew at every restart.
  CHECK(read(with(kTorchrun,
                  {{"TORCHELASTIC_USE_AGENT_STORE", "True"}, {"TORCHELASTIC_RESTART_COUNT", "2"}}))
            .agent_prefix == "/worker/attempt_2");
  CHECK(read(with(kTorchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}})).agent_prefix.empty());
  // They win over a surrounding job's.
  CHECK(read(with(kSlurm, kTorchrun)).source == "torchrun");
}

TEST_CASE("torchrun's variables without the local ones", "[rank-env]") {
  const Variables pod = {
      {"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "node1"}, {"MASTER_PORT", "29500"}};
  CHECK(read(pod).local_rank == 0);
  CHECK(read(pod).local_world == 1);
  const RankEnv here = read(with(pod, {{"MASTER_ADDR", "127.0.0.1"}}));
  CHECK(here.local_rank == 1);
  CHECK(here.local_world == 2);
  CHECK(read({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).world == 1);
}

TEST_CASE("Slurm's variables", "[rank-env]") {
  const RankEnv r = read(kSlurm);
  CHECK(r.source == "Slurm");
  CHECK(r.rank == 9);
  CHECK(r.world == 11);
  CHECK(r.local_rank == 1);
  CHECK(r.local_world == 3);
  CHECK(r.master_addr == "gpu03");
  CHECK(r.master_port == 15000 + 1234567 % 15000);
  const RankEnv told = read(with(kSlurm, {{"MASTER_ADDR", "10.0.0.7"}, {"MASTER_PORT", "77"}}));
  CHECK(told.master_addr == "10.0.0.7");
  CHECK(told.master_port == 77);
  // srun of the whole job on one node.
  const RankEnv one = read({{"SLURM_PROCID", "1"},
                            {"SLURM_STEP_ID", "0"},
                            {"SLURM_NTASKS", "2"},
                            {"SLURM_LOCALID", "1"},
                            {"SLURM_TASKS_PER_NODE", "2"},
                            {"SLURM_JOB_NODELIST", "localhost"},
                            {"SLURM_JOB_ID", "1"}});
  CHECK(one.local_world == 2);
  CHECK(one.master_addr == "localhost");
  CHECK(one.master_port == 15001);
}

TEST_CASE("Slurm's notations", "[rank-env]") {
  CHECK(first_slurm_host("gpu[03-05,9],login1") == "gpu03");
  CHECK(first_slurm_host("gpu[7,9]") == "gpu7");
  CHECK(first_slurm_host("login1,gpu[1-2]") == "login1");
  CHECK(first_slurm_host("rack[2-3]node[08-09]") == "rack2node08");
  CHECK(first_slurm_host("n[1-4].cluster,x") == "n1.cluster");
  for (const char* bad : {"", ",a", "gpu[", "gpu[]", "gpu[1-2"})
    CHECK_THROWS_WITH(first_slurm_host(bad), Contains("MASTER_ADDR"));
  using Tasks = std::vector<int64_t>;
  CHECK(slurm_tasks_per_node("4(x2),3") == Tasks{4, 4, 3});
  CHECK(slurm_tasks_per_node("1") == Tasks{1});
  for (const char* bad : {"", "4(x)", "4x2", "4,", "-1", "4(x2", "9999999999999999999"})
    CHECK_THROWS_WITH(slurm_tasks_per_node(bad), Contains("4(x2),3"));
}

TEST_CASE("Open MPI's variables", "[rank-env]") {
  const RankEnv r = read(kOpenMpi);
  CHECK(r.source == "Open MPI");
  CHECK(r.rank == 1);
  CHECK(r.world == 2);
  CHECK(r.local_rank == 1);
  CHECK(r.local_world == 2);
  CHECK(r.master_addr == "127.0.0.1");
  CHECK(r.master_port == 29500);
  CHECK(
      read(with(kOpenMpi, {{"OMPI_COMM_WORLD_SIZE", "4"}, {"MASTER_ADDR", "node1"}})).master_addr ==
      "node1");
  // Inside an allocation mpirun's processes see the variables of Slurm's batch step.
  CHECK(read(with(kOpenMpi, {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}})).source == "Open MPI");
}

TEST_CASE("a Kubernetes indexed job's variables", "[rank-env]") {
  const RankEnv r = read(kKubernetes);
  CHECK(r.source == "Kubernetes");
  CHECK(r.rank == 3);
  CHECK(r.world == 4);
  CHECK(r.local_rank == 0);
  CHECK(r.local_world == 1);
  CHECK(r.master_addr == "job-0.job");
  CHECK(r.master_port == 29500);
}

TEST_CASE("variables that are missing or at odds are refused", "[rank-env]") {
  check_refused({{"WORLD_SIZE", "2"}}, "RANK");
  check_refused({{"RANK", "0"}}, "WORLD_SIZE");
  check_refused({{"RANK", "0"}, {"WORLD_SIZE", "2"}}, "MASTER_ADDR");
  check_refused({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}}, "MASTER_PORT");
  check_refused(with(kTorchrun, {{"RANK", "8"}}), "rank 8 of 8");
  check_refused(with(kTorchrun, {{"RANK", "-1"}}), "\"-1\"");
  check_refused(with(kTorchrun, {{"RANK", "1a"}}), "\"1a\"");
  check_refused(with(kTorchrun, {{"LOCAL_RANK", ""}}), "LOCAL_RANK");
  check_refused(with(kTorchrun, {{"LOCAL_RANK", "4"}}), "local rank 4 of 4");
  check_refused(with(kTorchrun, {{"LOCAL_WORLD_SIZE", "9"}}), "local rank 1 of 9");
  check_refused(with(kTorchrun, {{"MASTER_PORT", "70000"}}), "70000");
  check_refused(with(kSlurm, {{"SLURM_STEP_NUM_TASKS", ""}}), "srun");
  check_refused(with(kSlurm, {{"SLURM_STEP_NUM_TASKS", "12"}}), "12 tasks in all, got 11");
  check_refused(with(kSlurm, {{"SLURM_NODEID", "3"}}), "SLURM_NODEID");
  check_refused(with(kSlurm, {{"SLURM_NODEID", ""}}), "SLURM_NODEID");
  check_refused(with(kSlurm, {{"SLURM_LOCALID", ""}}), "SLURM_LOCALID");
  check_refused(with(kSlurm, {{"SLURM_JOB_ID", ""}}), "SLURM_JOB_ID");
  check_refused(with(kSlurm, {{"SLURM_STEP_NODELIST", "gpu["}}), "MASTER_ADDR");
  check_refused(with(kSlurm, {{"SLURM_STEP_TASKS_PER_NODE", "4x2"}}), "4x2");
  check_refused(with(kSlurm, {{"WORLD_SIZE", "16"}}), "WORLD_SIZE");
  check_refused(with(kOpenMpi, {{"OMPI_COMM_WORLD_SIZE", "4"}}), "-x MASTER_ADDR");
  check_refused(with(kOpenMpi, {{"OMPI_COMM_WORLD_LOCAL_RANK", ""}}), "LOCAL_RANK");
  check_refused(with(kOpenMpi, {{"WORLD_SIZE", "3"}}), "WORLD_SIZE");
  check_refused(with(kKubernetes, {{"MASTER_ADDR", ""}}), "MASTER_ADDR");
  check_refused(with(kKubernetes, {{"JOB_COMPLETION_INDEX", "4"}}), "rank 4 of 4");
}
