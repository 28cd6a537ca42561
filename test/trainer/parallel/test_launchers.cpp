// A real launcher where there is one: the same losses as --nproc. Slurm and torchrun:
// test/long/launchers.sh.

#include <cstdlib>

#include "test/support/rank_runs.h"

using namespace cosmos;
using namespace cosmos::test;

TEST_CASE("ranks that mpirun starts train as --nproc's do", "[parallel][launchers]") {
  if (std::system("mpirun --version > /dev/null 2>&1") != 0) {
    WARN("mpirun is not installed (Debian package openmpi-bin): not tested");
    return;
  }
  Runs runs;
  const Json how = {{"gradient_accumulation", 2}};
  const Outcome local = runs.run("local", 2, how);
  const std::string command =
      "mpirun --allow-run-as-root --oversubscribe -np 2 " COSMOS_BIN_DIR "/rank_worker 2 " +
      runs.dir("local.json").string() + " run.dir=" + runs.dir("mpirun").string() + " > " +
      runs.dir("mpirun.txt").string() + " 2>&1";
  INFO(command);
  REQUIRE(std::system(("OMP_NUM_THREADS=1 " + command).c_str()) == 0);
  CHECK(Runs::read(runs.dir("mpirun")).losses == local.losses);
}
