// Real processes: every case starts test/support/group_worker.cpp and looks at what it says.

#include <algorithm>
#include <chrono>
#include <regex>

#include "test/support/program.h"
#include "trainer/parallel/group.h"
#include "trainer/parallel/mesh.h"

using namespace cosmos;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;
using cosmos::test::Answer;
using cosmos::test::run_program;

namespace {

int64_t count(const std::string& text, const std::string& part) {
  int64_t n = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++n;
  return n;
}

/// Milliseconds after which the ranks that were left said `pattern`.
std::vector<int64_t> times_of(const std::string& text, const std::string& pattern) {
  const std::regex line("after (\\d+) ms: " + pattern);
  std::vector<int64_t> times;
  for (std::sregex_iterator it(text.begin(), text.end(), line), end; it != end; ++it)
    times.push_back(std::stoll((*it)[1]));
  return times;
}

}  // namespace

TEST_CASE("every collective agrees with its definition", "[group]") {
  const std::string ranks = GENERATE("1", "2", "3");
  const Answer answer = run_program("group_worker", ranks + " collectives");
  INFO(answer.text);
  CHECK(answer.code == 0);
  CHECK(count(answer.text, "collectives agree") == std::stoi(ranks));
}

TEST_CASE("a delayed group agrees too, and holds NaN until waited for", "[group]") {
  const Answer answer = run_program("group_worker", "2 delayed");
  INFO(answer.text);
  CHECK(answer.code == 0);
  CHECK(count(answer.text, "delayed agrees") == 2);
}

TEST_CASE("collectives inside a model have their adjoints as backward", "[group]") {
  const Answer answer = run_program("group_worker", "2 adjoint");
  INFO(answer.text);
  CHECK(answer.code == 0);
  CHECK(count(answer.text, "adjoint") == 2);
}

TEST_CASE("classes split over ranks give the loss and gradients of all classes", "[group]") {
  const Answer answer = run_program("group_worker", "3 vocabulary");
  INFO(answer.text);
  CHECK(answer.code == 0);
  CHECK(count(answer.text, "vocabulary agrees") == 3);
}

TEST_CASE("a mesh gives every rank its groups", "[group]") {
  const Answer answer = run_program("group_worker", "4 mesh");
  INFO(answer.text);
  CHECK_THAT(answer.text, Contains("rank 0 at 0,0,0 replica 02 shard 01 context 1") &&
                              Contains("rank 1 at 0,1,0 replica 13 shard 01 context 1") &&
                              Contains("rank 2 at 1,0,0 replica 02 shard 23 context 1") &&
                              Contains("rank 3 at 1,1,0 replica 13 shard 23 context 1"));
  CHECK(answer.code == 1);  // it ends with a mesh that does not fit
  CHECK_THAT(answer.text, Contains("number of ranks, 4, got replica 3 x shard 5 = 15"));
}

TEST_CASE("wrong arguments are refused in one line and the group goes on", "[group]") {
  const Answer answer = run_program("group_worker", "2 refuse");
  INFO(answer.text);
  CHECK(answer.code == 0);
  CHECK(std::count(answer.text.begin(), answer.text.end(), '\n') == 5);
  CHECK_THAT(answer.text,
             Contains("group world: all_gather: rank 0 of 2: expected 2 times 3") &&
                 Contains("reduce_scatter: rank 0 of 2: expected 2 times 2 elements") &&
                 Contains("all_reduce: rank 0 of 2: expected a contiguous tensor") &&
                 Contains("broadcast: rank 0 of 2: expected a source below 2") &&
                 Contains("group pair: expected distinct ranks below 2"));
}

TEST_CASE("ranks notice at once that one was killed", "[group]") {
  const Answer answer = run_program("group_worker", "3 kill");
  INFO(answer.text);
  CHECK(answer.code == 128 + 9);
  CHECK_THAT(answer.text, Contains("rank 1 of 3 (pid ") &&
                              Contains("failed first: killed by signal 9 (Killed)"));
  const auto times = times_of(answer.text, "group world: all_reduce: rank [02] of 3: ");
  REQUIRE(times.size() == 2);
  CHECK(*std::max_element(times.begin(), times.end()) < 2500);
}

TEST_CASE("ranks notice at the timeout that one is stuck", "[group]") {
  const Answer answer = run_program("group_worker", "3 stop");
  INFO(answer.text);
  CHECK(answer.code == 5);
  const auto times = times_of(answer.text, "group world: all_reduce: rank [02] of 3: ");
  REQUIRE(times.size() == 2);
  CHECK(*std::min_element(times.begin(), times.end()) >= 2000);
  CHECK(*std::max_element(times.begin(), times.end()) < 3000 + 2000);
}

TEST_CASE("a rank that does not come is reported at the timeout", "[group]") {
  const std::string first = "export RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=0";
  // A port that nobody else has: the kernel's choice is not known beforehand, so from the pid.
  const Answer answer = run_program("group_worker", "2 nobody",
                                    first + "; export MASTER_PORT=$((30000 + $$ % 2000))");
  INFO(answer.text);
  CHECK(answer.code == 1);
  CHECK_THAT(answer.text,
             Contains("group_worker: group world: rendezvous (torchrun) at 127.0.0.1"));
}

TEST_CASE("a group of one needs no network", "[group]") {
  const std::shared_ptr<Group> world = connect(RankEnv{}, torch::kCPU);
  CHECK(world->size() == 1);
  const Tensor out = torch::zeros(3);
  Pending pending = world->all_gather(torch::ones(3), out);
  CHECK(!pending);
  pending.wait();
  CHECK(out.sum().item<float>() == 3);
  CHECK(world->all_gather_text("a").front() == "a");
  const Mesh mesh(world, {{"replica", 1}, {"shard", 1}});
  CHECK(mesh.axis("shard").size() == 1);
  CHECK(mesh.axis("tensor").rank() == 0);
  CHECK_THROWS_WITH(Mesh(world, {{"shard", 2}}), Contains("shard 2 = 2; change"));
  CHECK_THROWS_WITH(Mesh(world, {{"shard", 0}}), Contains("shard = 0"));
}
