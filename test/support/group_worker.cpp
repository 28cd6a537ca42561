// group_worker RANKS SCENARIO: runs itself RANKS times, each a rank of one of the scenarios below.
// Its exit code and what it prints are what test/trainer/parallel looks at.

#include <csignal>
#include <iostream>
#include <torch/autograd.h>
#include <unistd.h>

#include "ops/linear_cross_entropy/linear_cross_entropy.h"
#include "ops/linear_cross_entropy/split_linear_cross_entropy.h"
#include "test/support/delayed_group.h"
#include "tools/program.h"
#include "trainer/loop/stop_signal.h"
#include "trainer/parallel/context_parallel.h"
#include "trainer/parallel/group.h"
#include "trainer/parallel/mesh.h"
#include "trainer/parallel/model_collectives.h"
#include "trainer/parallel/spawn.h"

namespace {

using namespace cosmos;
using namespace cosmos::trainer;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using Reduce = Group::Reduce;

/// One write, so that lines of several ranks do not mix.
void say(const std::string& line) {
  const std::string text = line + "\n";
  (void)!::write(STDOUT_FILENO, text.data(), text.size());
}

void expect_equal(const Tensor& got, const Tensor& expected, const std::string& what) {
  require(got.dtype() == expected.dtype() && torch::equal(got, expected), what, ", ", got.dtype(),
          ": expected ", expected.to(torch::kFloat64), ", got ", got.to(torch::kFloat64));
}

/// What rank r holds: small whole numbers, whose sums bf16 holds exactly.
Tensor content(int64_t rank, int64_t n, torch::Dtype dtype) {
  return torch::arange(n).remainder(7).add(rank + 1).to(dtype);
}

Tensor contents(int64_t ranks, int64_t n, torch::Dtype dtype) {
  Tensors all;
  for (int64_t r = 0; r < ranks; ++r) all.push_back(content(r, n, dtype));
  return torch::stack(all);
}

void check_all_gather(const Group& g, int64_t n, torch::Dtype dtype) {
  const Tensor all = contents(g.size(), n, dtype);
  const Tensor out = torch::full({g.size(), n}, -1, dtype);
  g.all_gather(content(g.rank(), n, dtype), out).wait();
  expect_equal(out, all, "all_gather");
  const Tensor in_place = torch::full({g.size() * n}, -1, dtype);
  const Tensor mine = in_place.narrow(0, g.rank() * n, n);
  mine.copy_(content(g.rank(), n, dtype));
  g.all_gather(mine, in_place).wait();
  expect_equal(in_place, all.view(-1), "all_gather in place");
}

void check_reductions(const Group& g, int64_t n, torch::Dtype dtype) {
  const int64_t size = g.size();
  const Tensor sum = contents(size, size * n, dtype).sum(0).to(dtype);
  const Tensor out = torch::full({n}, -1, dtype);
  g.reduce_scatter(content(g.rank(), size * n, dtype), out).wait();
  expect_equal(out, sum.narrow(0, g.rank() * n, n), "reduce_scatter");
  const Tensor x = content(g.rank(), size * n, dtype);
  g.all_reduce(x).wait();
  expect_equal(x, sum, "all_reduce");
  const Tensor y = content(g.rank(), n, dtype);
  g.all_reduce(y, Reduce::kMax).wait();
  expect_equal(y, content(size - 1, n, dtype), "all_reduce max");
}

void check_broadcast(const Group& g, int64_t n, torch::Dtype dtype) {
  for (int64_t source = 0; source < g.size(); ++source) {
    const Tensor x = content(g.rank(), n, dtype);
    g.broadcast(x, source).wait();
    expect_equal(x, content(source, n, dtype), "broadcast");
  }
}

void check_all_to_all(const Group& g, int64_t n, torch::Dtype dtype) {
  Tensors parts, expected;
  for (int64_t r = 0; r < g.size(); ++r) {
    parts.push_back(content(10 * g.rank() + r, n, dtype));
    expected.push_back(content(10 * r + g.rank(), n, dtype));
  }
  const Tensor out = torch::full({g.size() * n}, -1, dtype);
  g.all_to_all(torch::cat(parts), out).wait();
  expect_equal(out, torch::cat(expected), "all_to_all");
}

/// Around the ring in both directions at once, twice, the second before the first was waited for.
void check_exchange(const Group& g, int64_t n, torch::Dtype dtype) {
  const int64_t next = (g.rank() + 1) % g.size(), last = (g.rank() + g.size() - 1) % g.size();
  Tensors from_last, from_next;
  std::vector<Pending> pending;
  for (int64_t i = 0; i < 2; ++i) {
    from_last.push_back(torch::full({n}, -1, dtype));
    from_next.push_back(torch::full({n + 1}, -1, dtype));
    pending.push_back(g.exchange(
        {{content(g.rank() + i, n, dtype), next}, {content(g.rank() + 5 + i, n + 1, dtype), last}},
        {{from_last[i], last}, {from_next[i], next}}));
  }
  for (int64_t i = 0; i < 2; ++i) {
    pending[i].wait();
    expect_equal(from_last[i], content(last + i, n, dtype), "exchange, from the last");
    expect_equal(from_next[i], content(next + 5 + i, n + 1, dtype), "exchange, from the next");
  }
}

/// Several under way at once, waited for in another order.
void check_overlap(const Group& g, torch::Dtype dtype) {
  constexpr int64_t kCount = 6, kSize = 1000;
  Tensors outs;
  std::vector<Pending> pending;
  for (int64_t i = 0; i < kCount; ++i) {
    outs.push_back(torch::empty({g.size() * kSize}, dtype));
    pending.push_back(g.all_gather(content(g.rank() + i, kSize, dtype), outs.back()));
  }
  for (int64_t i = kCount - 1; i >= 0; --i) {
    require(static_cast<bool>(pending[i]) == g.size() > 1, "overlap: pending says otherwise");
    pending[i].wait();
    require(!pending[i], "overlap: still pending after wait");
    const Tensor first = outs[i].narrow(0, 0, kSize);
    expect_equal(first, content(i, kSize, dtype), "overlap");
  }
}

void check_text(const Group& g) {
  const auto texts = g.all_gather_text(std::string(g.rank(), 'x') + "\n");
  require(static_cast<int64_t>(texts.size()) == g.size(), "text: got ", texts.size());
  for (int64_t r = 0; r < g.size(); ++r)
    require(texts[r] == std::string(r, 'x') + "\n", "text of rank ", r, ": got ", texts[r]);
  for (const std::string& text : g.all_gather_text("")) require(text.empty(), "empty text");
}

void check_collectives(const Group& g) {
  for (const torch::Dtype dtype : {torch::kFloat64, torch::kFloat32, torch::kBFloat16}) {
    for (const int64_t n : {1, 5, 4099}) {
      check_all_gather(g, n, dtype);
      check_reductions(g, n, dtype);
      check_broadcast(g, n, dtype);
      check_all_to_all(g, n, dtype);
      check_exchange(g, n, dtype);
    }
    check_overlap(g, dtype);
  }
  check_text(g);
  g.barrier();
}

using Attend = Tensor (*)(const Tensor&, const Tensor&, const Tensor&,
                          const std::shared_ptr<TokenRing>&);

/// Attention over all ranks' tokens, and its gradients, against one process that has them all.
/// Every rank's loss is another one, so that a gradient that is not summed over ranks shows.
void check_attention(const Group& g, const char* name, Attend attend, double forward,
                     double backward) {
  constexpr int64_t B = 2, L = 3, H = 4, d = 6;
  const int64_t c = g.size(), mine = g.rank() * L;
  torch::manual_seed(5);
  Tensors whole, part;
  for (int i = 0; i < 3; ++i)
    whole.push_back(torch::randn({B, c * L, H, d}, torch::kFloat64).requires_grad_());
  const Tensor weight = torch::randn({B, c * L, H, d}, torch::kFloat64);
  (modules::dense_attention(whole[0], whole[1], whole[2]) * weight).sum().backward();
  for (const Tensor& x : whole)
    part.push_back(x.detach().narrow(1, mine, L).clone().requires_grad_());
  const auto ring = std::make_shared<TokenRing>();
  ring->group = &g;
  const Tensor out = attend(part[0], part[1], part[2], ring);
  const double bytes = static_cast<double>(B * L * H * d) * sizeof(double);
  const auto expect_bytes = [&](double expected) {
    require(static_cast<double>(ring->received) == expected * bytes, name, ": received ",
            ring->received.load(), ", expected ", expected * bytes);
  };
  expect_bytes(forward);
  (out * weight.narrow(1, mine, L)).sum().backward();
  expect_bytes(forward + backward);
  const torch::NoGradGuard no_grad;
  const Tensor all = modules::dense_attention(whole[0], whole[1], whole[2]);
  const auto expect_close = [&](const Tensor& got, const Tensor& expected, const char* what) {
    const double worst = (got - expected.narrow(1, mine, L)).abs().max().item<double>();
    require(worst < 1e-12, name, ", ", what, ": off by ", worst);
  };
  expect_close(out, all, "out");
  for (int i = 0; i < 3; ++i) expect_close(part[i].grad(), whole[i].grad(), "gradient");
}

int attention(const Group& world) {
  const auto c = static_cast<double>(world.size());
  for (const std::shared_ptr<Group>& group :
       {world.subgroup("plain", world.size() == 2 ? std::vector<int64_t>{0, 1}
                                                  : std::vector<int64_t>{0, 1, 2, 3}),
        test::delayed(world, 3)}) {
    check_attention(*group, "ring", ring_attention, 2 * (c - 1), 2 * (c - 1) + 2 * c);
    check_attention(*group, "all_to_all", all_to_all_attention, 4 * (c - 1) / c, 4 * (c - 1) / c);
    check_attention(*group, "all_gather", all_gather_attention, 2 * (c - 1), 4 * (c - 1));
  }
  return say("attention agrees"), 0;
}

int collectives(const Group& world) {
  check_collectives(world);
  return say("collectives agree"), 0;
}

int delayed(const Group& world) {
  const std::shared_ptr<Group> group = test::delayed(world, 11);
  check_collectives(*group);
  const Tensor x = torch::ones({3});
  Pending pending = group->all_reduce(x);
  require(x.isnan().all().item<bool>(), "delayed: expected NaN before wait, got ", x);
  pending.wait();
  expect_equal(x, torch::full({3}, static_cast<float>(group->size())), "delayed all_reduce");
  return say("delayed agrees"), 0;
}

/// <A x, y> = <x, Aᵀ y>, summed over ranks: what backward must be.
void check_adjoint(const Group& g, const std::function<Tensor(const Tensor&)>& map, int64_t rows,
                   const std::string& what) {
  const Tensor x = torch::randn({3, rows, 2}, torch::kFloat64).set_requires_grad(true);
  const Tensor z = map(x);
  const Tensor y = torch::randn_like(z);
  const Tensor grad = torch::autograd::grad({z}, {x}, {y})[0];
  const Tensor sums = torch::stack({(z.detach() * y).sum(), (x.detach() * grad).sum()});
  g.all_reduce(sums).wait();
  require(torch::allclose(sums[0], sums[1], 1e-12, 1e-12), what, ": ", sums);
}

int adjoint(const Group& world) {
  const std::shared_ptr<Group> group = test::delayed(world, 7);
  const ModelCollectives collectives(*group);
  torch::manual_seed(static_cast<uint64_t>(10 + world.rank()));
  const int64_t n = world.size();
  const auto check = [&](const std::string& what, int64_t rows, auto&& map) {
    check_adjoint(*group, map, rows, what);
  };
  check("all_gather", 5, [&](const Tensor& x) { return collectives.all_gather(x, 1); });
  check("all_gather, last", 5, [&](const Tensor& x) { return collectives.all_gather(x, -1); });
  check("reduce_scatter", 2 * n, [&](const Tensor& x) { return collectives.reduce_scatter(x, 1); });
  check("all_reduce", 3, [&](const Tensor& x) { return collectives.all_reduce(x); });
  check("narrow", 2 * n, [&](const Tensor& x) { return collectives.narrow(x, 1); });
  const Tensor x = torch::randn({3, 2 * n, 2});
  group->broadcast(x, 0).wait();
  expect_equal(collectives.all_gather(collectives.narrow(x, 1), 1), x, "gather of narrow");
  expect_equal(collectives.reduce_scatter(x, 1), collectives.narrow(x, 1) * double(n),
               "reduce_scatter of equal parts");
  return say("adjoint"), 0;
}

/// Classes on all ranks against all classes here; the mean of the ranks' losses is the objective.
void check_split_loss(const Group& g, const ModelCollectives& c, bool log_probs) {
  torch::manual_seed(3);  // the same on every rank
  const int64_t V = 6 * g.size();
  const auto leaf = [](at::IntArrayRef size) {
    return torch::randn(size, torch::kFloat64).set_requires_grad(true);
  };
  const Tensor hidden = leaf({2, 4, 5}), weight = leaf({V, 5}), bias = leaf({V});
  Tensor target = torch::randint(V, {2, 4});
  target[1][2] = -100;
  const auto part = [&](const Tensor& x) {
    return x.detach().narrow(0, g.rank() * 6, 6).clone().set_requires_grad(true);
  };
  const Tensor my_weight = part(weight), my_bias = part(bias);
  const Tensor my_hidden = hidden.detach().clone().set_requires_grad(true);
  const ops::ClassRange range{
      .first = g.rank() * 6,
      .classes = V,
      .gather = [&](const Tensor& x) { return c.all_gather(x.unsqueeze(0), 0); },
      .sum = [&](const Tensor& x) { return c.all_reduce(x); }};
  Tensor want, got;
  if (log_probs) {
    const auto all = ops::linear_log_probs_entropy(hidden, weight, target, bias, 0.7);
    const auto mine =
        ops::split_linear_log_probs_entropy(my_hidden, my_weight, target, my_bias, range, 0.7);
    require(torch::allclose(std::get<1>(all), std::get<1>(mine), 1e-12, 1e-12), "entropy");
    want = std::get<0>(all), got = std::get<0>(mine);
  } else {
    want = ops::linear_cross_entropy(hidden, weight, target, bias, -100, 0.1, 1e-2, "none");
    got = ops::split_linear_cross_entropy(my_hidden, my_weight, target, my_bias, range, -100, 0.1,
                                          1e-2, "none");
  }
  require(torch::allclose(got, want, 1e-12, 1e-12), "split loss: ", got, want);
  const Tensor upstream = torch::randn({2, 4}, torch::kFloat64);
  (want * upstream).sum().backward();
  (got * upstream).sum().backward();
  const double ranks = static_cast<double>(g.size());
  const auto close = [&](const Tensor& a, const Tensor& b, const std::string& what) {
    require(torch::allclose(a / ranks, b, 1e-12, 1e-12), "split loss, grad of ", what);
  };
  close(c.all_reduce(my_hidden.grad()), hidden.grad(), "hidden");
  close(my_weight.grad(), weight.grad().narrow(0, g.rank() * 6, 6), "weight");
  close(my_bias.grad(), bias.grad().narrow(0, g.rank() * 6, 6), "bias");
}

int vocabulary(const Group& world) {
  const std::shared_ptr<Group> group = test::delayed(world, 5);
  const ModelCollectives collectives(*group);
  for (const bool log_probs : {false, true}) check_split_loss(*group, collectives, log_probs);
  return say("vocabulary agrees"), 0;
}

std::string ranks_of(const Group& g, int64_t world_rank) {
  std::string ranks;
  for (const std::string& text : g.all_gather_text(std::to_string(world_rank))) ranks += text;
  return ranks;
}

int mesh(const std::shared_ptr<Group>& world) {
  const Mesh m(world, {{"replica", world->size() / 2}, {"shard", 2}, {"context", 1}});
  check_collectives(m.axis("replica"));
  check_collectives(m.axis("shard"));
  check_collectives(m.axis("context"));
  const Mesh again(test::delayed(*world, 5), {{"shard", world->size()}});
  check_collectives(again.axis("shard"));
  say("rank " + std::to_string(world->rank()) + " at " + std::to_string(m.coordinate("replica")) +
      "," + std::to_string(m.coordinate("shard")) + "," + std::to_string(m.coordinate("pipeline")) +
      " replica " + ranks_of(m.axis("replica"), world->rank()) + " shard " +
      ranks_of(m.axis("shard"), world->rank()) + " context " +
      std::to_string(m.axis("context").size()));
  const Mesh wrong(world, {{"replica", 3}, {"shard", 5}});
  return 0;
}

/// Wrong arguments are refused before anything is sent, so the group can be used on.
int refuse(const Group& world) {
  const auto message = [](auto&& call) {
    try {
      call();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  if (world.rank() == 0) {
    say(message([&] { world.all_gather(torch::ones(3), torch::ones(5)); }));
    say(message([&] { world.reduce_scatter(torch::ones(4), torch::ones(2, torch::kFloat64)); }));
    say(message([&] { world.all_reduce(torch::ones({2, 3}).t()); }));
    say(message([&] { world.broadcast(torch::ones(2), 2); }));
    say(message([&] { world.subgroup("pair", {0, 0}); }));
  }
  world.barrier();
  return 0;
}

/// Rank 1 sends itself `number` in the middle of things; the others say what they saw and when.
int lose_a_rank(const Group& world, int number) {
  world.barrier();
  const auto start = Clock::now();
  if (world.rank() == 1) ::raise(number);
  try {
    for (int i = 0; i < 1000; ++i) world.all_reduce(torch::ones(1000)).wait();
    say("no error");
  } catch (const Error& error) {
    const auto ms = std::chrono::duration_cast<milliseconds>(Clock::now() - start).count();
    say("after " + std::to_string(ms) + " ms: " + error.what());
  }
  return 5;
}

void sleep_ms(int64_t ms) {
  std::this_thread::sleep_for(milliseconds(ms));
}

int wait_for_signal(const RankEnv& env) {
  const StopSignal signal;
  say("ready");
  for (int i = 0; i < 3000 && signal.received() == 0; ++i) sleep_ms(10);
  if (env.rank == 0) sleep_ms(1500);  // saves while the others are gone
  say("rank " + std::to_string(env.rank) + " saved");
  return 128 + signal.received();
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return std::string(name) + "=" + (value != nullptr ? value : "") + " ";
}

/// Scenarios of processes only.
int run_alone(const std::string& scenario, const RankEnv& env) {
  if (scenario == "environment")
    return say(variable("RANK") + variable("WORLD_SIZE") + variable("LOCAL_RANK") +
               variable("LOCAL_WORLD_SIZE") + variable("MASTER_ADDR") +
               variable("OMP_NUM_THREADS")),
           0;
  if (scenario == "signal") return wait_for_signal(env);
  if (scenario == "fail" || scenario == "stubborn") {
    if (scenario == "stubborn") ::signal(SIGTERM, SIG_IGN);
    if (env.rank == env.world - 1) return sleep_ms(200), 3;
  }
  if (scenario == "sleep") say(std::to_string(::getpid()));
  if (scenario == "uneven" && env.rank == 1) return 0;
  if (scenario == "uneven") return sleep_ms(1500), say("rank 0 done"), 0;
  return sleep_ms(60000), 0;
}

int run_rank(const std::string& scenario) {
  torch::set_num_threads(1);
  const RankEnv env = read_rank_env();
  for (const char* alone : {"environment", "signal", "fail", "stubborn", "sleep", "uneven"})
    if (scenario == alone) return run_alone(scenario, env);
  const milliseconds timeout(scenario == "stop" || scenario == "nobody" ? 3000 : 60000);
  const std::shared_ptr<Group> world = connect(env, torch::kCPU, timeout);
  if (scenario == "collectives") return collectives(*world);
  if (scenario == "delayed") return delayed(*world);
  if (scenario == "adjoint") return adjoint(*world);
  if (scenario == "attention") return attention(*world);
  if (scenario == "vocabulary") return vocabulary(*world);
  if (scenario == "mesh") return mesh(world);
  if (scenario == "refuse") return refuse(*world);
  if (scenario == "kill") return lose_a_rank(*world, SIGKILL);
  if (scenario == "stop") return lose_a_rank(*world, SIGSTOP);
  fail("no such scenario: ", scenario);
}

int run(int argc, char** argv) {
  require(argc == 3, "usage: group_worker RANKS SCENARIO");
  if (std::getenv("RANK") != nullptr) return run_rank(argv[2]);
  const SpawnOptions options{.grace = milliseconds(1000), .kill_after = milliseconds(1000)};
  return spawn_local(std::stoi(argv[1]), {argv, argv + argc}, options);
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("group_worker", argc, argv, run);
}
