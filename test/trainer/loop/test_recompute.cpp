#include <catch2/catch.hpp>

#include "modules/core/token_plan.h"
#include "test/support/rank_runs.h"
#include "test/trainer/toy_recipe.h"
#include "trainer/loop/recompute.h"

using namespace cosmos;
using namespace cosmos::test;

namespace {

struct Gradients {
  Tensor loss;
  TensorMap grads;
};

Gradients train(ToyModel& model, const std::string& mode, const Tensor& x) {
  model.set_block_runner(trainer::make_recompute_runner(mode, 2));
  model.zero_grad();
  Gradients outcome;
  const Tensor y = model.forward(x);
  REQUIRE(y.requires_grad());
  outcome.loss = y.square().mean() + y.sum();
  outcome.loss.backward();
  for (const auto& item : model.named_parameters())
    if (item.value().grad().defined()) outcome.grads[item.key()] = item.value().grad().clone();
  return outcome;
}

void check_same(ToyModel& model, const Tensor& x, std::size_t expected_grads) {
  const Gradients plain = train(model, "none", x);
  CHECK(plain.grads.size() == expected_grads);
  for (const char* mode : {"full", "selective", "keep_attention"}) {
    INFO(mode);
    const Gradients again = train(model, mode, x);
    CHECK(torch::equal(again.loss, plain.loss));
    REQUIRE(again.grads.size() == plain.grads.size());
    for (const auto& [name, grad] : plain.grads) {
      INFO(name);
      CHECK(torch::equal(again.grads.at(name), grad));
    }
  }
}

// y = W x + scale * x: stands for LoRA on a frozen base.
class ScaleAdapter : public modules::LinearAdapter {
 public:
  explicit ScaleAdapter(int64_t out) { scale = register_parameter("scale", torch::ones({out})); }
  Tensor adapt(const Tensor&, const Tensor& base, const modules::LinearImpl&) override {
    return base * scale;
  }
  std::optional<int64_t> split_dim(const std::string&, modules::Split split) const override {
    return split == modules::Split::kColumn ? std::optional<int64_t>(0) : std::nullopt;
  }
  Tensor scale;
};

}  // namespace

TEST_CASE("Recomputed blocks give the same gradients", "[recompute]") {
  torch::manual_seed(3);
  ToyModel model({.width = 6, .layers = 4});
  check_same(model, torch::randn({5, 6}), 16);
  ToyModel half({.width = 6, .layers = 4, .freeze_first = true});
  check_same(half, torch::randn({5, 6}), 12);
}

TEST_CASE("Adapters of a frozen model train from the first block on, recomputed or not",
          "[recompute]") {
  torch::manual_seed(4);
  ToyModel model({.width = 6, .layers = 3});
  for (Tensor& p : model.parameters()) p.requires_grad_(false);
  for (const auto& item : model.named_modules("", /*include_self=*/false))
    if (auto linear = std::dynamic_pointer_cast<modules::LinearImpl>(item.value()))
      linear->set_adapter(std::make_shared<ScaleAdapter>(linear->out_features()));
  // The input needs no gradient: the reentrant form of checkpointing would lose block 0 here.
  check_same(model, torch::randn({5, 6}), 6);
}

// What a sharded trainer counts gradients with.
struct CountHook : torch::autograd::PostAccumulateGradHook {
  explicit CountHook(int64_t& count) : count(count) {}
  void operator()(const Tensor&) override { ++count; }
  int64_t& count;
};

TEST_CASE("Recompute sums over several backwards and fires hooks once a backward", "[recompute]") {
  torch::manual_seed(5);
  ToyModel model({.width = 4, .layers = 2});
  model.set_block_runner(trainer::make_recompute_runner("full", 1));
  int64_t fired = 0;
  Tensor weight = model.parameters()[0];
  torch::autograd::impl::set_post_acc_grad_hooks(weight, std::make_unique<CountHook>(fired));
  const Tensor x = torch::randn({3, 4});
  model.forward(x).sum().backward();
  const Tensor once = weight.grad().clone();
  model.forward(x).sum().backward();
  CHECK(fired == 2);
  CHECK(torch::allclose(weight.grad(), 2 * once));
}

TEST_CASE("Recompute passes undefined inputs, several outputs and unused ones", "[recompute]") {
  auto runner = trainer::make_recompute_runner("full", 1);
  torch::nn::Module block;
  Tensor w = block.register_parameter("w", torch::full({2}, 3.0));
  Tensor x = torch::ones({2}, torch::requires_grad());
  const Tensors out = runner->run("b", block, {Tensor(), x}, [&](const Tensors& in) -> Tensors {
    CHECK(!in[0].defined());
    return {in[1] * w, in[1] * 2, torch::zeros({1})};
  });
  out[0].sum().backward();
  CHECK(torch::equal(x.grad(), torch::full({2}, 3.0)));
  CHECK(torch::equal(w.grad(), torch::ones({2})));
  torch::NoGradGuard no_grad;
  CHECK(!runner->run("b", block, {x}, [](const Tensors& in) -> Tensors { return {in[0] + 1}; })[0]
             .requires_grad());
}

TEST_CASE("recomputation that keeps attention does not run it again", "[recompute]") {
  torch::manual_seed(6);
  torch::nn::Module block;
  const Tensor w = block.register_parameter("w", torch::randn({8, 8}));
  const Tensor mask = torch::zeros({1, 1, 1, 5});
  // A constant that changes between the runs shows what is computed anew.
  double factor = 1;
  Tensors attended;
  const modules::BlockFn fn = [&](const Tensors& in) -> Tensors {
    const Tensor x = torch::matmul(in[0] * factor, w).view({2, 5, 2, 4});
    const Tensor out = modules::dense_attention(x, x, x, attended.size() % 2 ? mask : Tensor());
    attended.push_back(out.detach().clone());
    const Tensor again = modules::dense_attention(out, x, x);  // two in a block
    attended.push_back(again.detach().clone());
    return {again.flatten(2)};
  };
  const Tensor x = torch::randn({2, 5, 8});
  const auto gradient = [&](const char* mode, double second) {
    block.zero_grad();
    attended.clear();
    factor = 1;
    const auto runner = trainer::make_recompute_runner(mode, 1);
    const Tensor y = runner ? runner->run("b", block, {x}, fn)[0] : fn({x})[0];
    factor = second;
    y.square().sum().backward();
    return w.grad().clone();
  };
  const Tensor plain = gradient("none", 1);
  CHECK(torch::equal(gradient("full", 1), plain));
  CHECK(torch::equal(gradient("keep_attention", 1), plain));
  gradient("full", 2);
  REQUIRE(attended.size() == 4);
  CHECK(!torch::equal(attended[2], attended[0]));
  gradient("keep_attention", 2);
  REQUIRE(attended.size() == 4);
  CHECK(torch::equal(attended[2], attended[0]));
  CHECK(torch::equal(attended[3], attended[1]));
}

TEST_CASE("a result that was changed in place is computed anew", "[recompute]") {
  torch::manual_seed(7);
  torch::nn::Module block;
  const Tensor w = block.register_parameter("w", torch::randn({4, 4}));
  const modules::BlockFn fn = [&](const Tensors& in) -> Tensors {
    const Tensor x = torch::matmul(in[0], w).view({1, 3, 1, 4});
    const Tensor out = [&] {
      const torch::NoGradGuard no_grad;  // as an autograd function of our own would
      return modules::dense_attention(x, x, x).add_(1);
    }();
    return {(out * x).flatten(2)};
  };
  const Tensor x = torch::randn({1, 3, 4});
  fn({x})[0].sum().backward();
  const Tensor plain = w.grad().clone();
  block.zero_grad();
  trainer::make_recompute_runner("keep_attention", 1)->run("b", block, {x}, fn)[0].sum().backward();
  CHECK(torch::equal(w.grad(), plain));
}

TEST_CASE("with attention kept, models train to the same bits", "[recompute]") {
  Runs runs;
  const Json base = {{"precision", "fp32"}, {"gradient_accumulation", 2}};
  Json keep = base;
  keep["activation_checkpointing"] = "keep_attention";
  // In one process a block that runs again sums the gradients of what blocks share first.
  Json full = base;
  full["activation_checkpointing"] = "full";
  check_same(runs.run("keep", 1, keep), runs.run("full", 1, full), 1e-300);
  check_same(runs.run("keep2", 2, keep), runs.run("none2", 2, base), 1e-300);
  // Attention over the tokens of two ranks changes its parts in place.
  keep["parallel"] = {{"context", 2}, {"context_attention", "ring"}};
  Json ring = base;
  ring["parallel"] = keep["parallel"];
  check_same(runs.run("keep-ring", 2, keep), runs.run("none-ring", 2, ring), 1e-300);
}
