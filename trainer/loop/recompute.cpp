#include "trainer/loop/recompute.h"

#include <torch/autograd.h>
#include <utility>

#include "trainer/loop/kept_results.h"

namespace cosmos::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What backward needs to run a block again, besides the tensors.
struct Segment : torch::CustomClassHolder {
  modules::BlockFn fn;
  std::size_t inputs = 0;     // the first tensors are inputs, the rest the block's parameters
  std::vector<bool> present;  // by position in the block's list: defined tensors only are passed
  bool keeps = false;         // results of attention
  KeptResults kept{};

  Tensors run(const Tensors& block_inputs, KeptResults::Run which) {
    if (!keeps) return fn(block_inputs);
    const KeptResults::Scope scope(kept, which);
    return fn(block_inputs);
  }
};

Tensors spread(const Segment& segment, const Tensors& defined) {
  Tensors all;
  std::size_t next = 0;
  for (const bool present : segment.present) all.push_back(present ? defined[next++] : Tensor());
  return all;
}

// The block's trainable parameters are inputs of the node. So its outputs require grad even where
// no input does (LoRA on a frozen stem: the first block would silently not train otherwise), and
// parameter gradients leave through the outer engine, whose post-accumulate hooks fire as ever.
struct Recompute : torch::autograd::Function<Recompute> {
  static variable_list forward(AutogradContext* ctx, const c10::intrusive_ptr<Segment>& segment,
                               at::TensorList tensors) {
    ctx->save_for_backward(tensors.vec());
    ctx->saved_data["segment"] = c10::IValue::make_capsule(segment);
    ctx->set_materialize_grads(false);
    return segment->run(spread(*segment, tensors.slice(0, segment->inputs).vec()),
                        KeptResults::Run::kFirst);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grad_outputs) {
    const auto segment =
        c10::static_intrusive_pointer_cast<Segment>(ctx->saved_data["segment"].toCapsule());
    const variable_list saved = ctx->get_saved_variables();
    torch::AutoGradMode with_grad(true);

    // Inputs are cut from the outer graph; parameters are leaves already.
    Tensors tensors, wanted;
    std::vector<std::size_t> position;
    for (std::size_t i = 0; i < saved.size(); ++i) {
      const bool is_input = i < segment->inputs;
      tensors.push_back(is_input ? saved[i].detach().requires_grad_(saved[i].requires_grad())
                                 : saved[i]);
      if (!tensors[i].requires_grad()) continue;
      wanted.push_back(tensors[i]);
      position.push_back(i);
    }
    const Tensors inputs(tensors.begin(), tensors.begin() + static_cast<int64_t>(segment->inputs));
    const Tensors outputs = segment->run(spread(*segment, inputs), KeptResults::Run::kAgain);

    Tensors roots, grads;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (!grad_outputs[i].defined() || !outputs[i].requires_grad()) continue;
      roots.push_back(outputs[i]);
      grads.push_back(grad_outputs[i]);
    }
    variable_list result(1 + saved.size());  // the first belongs to `segment`
    if (roots.empty()) return result;
    const variable_list found =
        torch::autograd::grad(roots, wanted, grads, /*retain_graph=*/false, /*create_graph=*/false,
                              /*allow_unused=*/true);
    for (std::size_t i = 0; i < found.size(); ++i) result[1 + position[i]] = found[i];
    return result;
  }
};

class RecomputeRunner : public modules::BlockRunner {
 public:
  RecomputeRunner(int64_t every, bool keeps) : every_(every), keeps_(keeps) {}

  Tensors run(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
              const modules::BlockFn& fn) override {
    if (!torch::GradMode::is_enabled() || !chosen(name)) return fn(inputs);
    auto segment = c10::make_intrusive<Segment>();
    segment->fn = fn;
    segment->keeps = keeps_;
    Tensors tensors;
    bool needs_grad = false;
    for (const Tensor& input : inputs) {
      segment->present.push_back(input.defined());
      if (!input.defined()) continue;
      tensors.push_back(input);
      needs_grad |= input.requires_grad();
    }
    segment->inputs = tensors.size();
    for (const Tensor& parameter : block.parameters()) {
      if (!parameter.requires_grad()) continue;
      tensors.push_back(parameter);
      needs_grad = true;
    }
    if (!needs_grad) return fn(inputs);
    return Recompute::apply(segment, at::TensorList(tensors));
  }

 private:
  // every_ = 0: all of them.
  bool chosen(const std::string& name) const {
    if (every_ == 0) return true;
    const std::size_t end = name.find_last_of("0123456789");
    if (end == std::string::npos) return false;
    const std::size_t begin = name.find_last_not_of("0123456789", end) + 1;
    return std::stoll(name.substr(begin, end - begin + 1)) % every_ == 0;
  }

  int64_t every_;
  bool keeps_;
};

}  // namespace

std::shared_ptr<modules::BlockRunner> make_recompute_runner(const std::string& mode,
                                                            int64_t every) {
  if (mode == "none") return nullptr;
  return std::make_shared<RecomputeRunner>(mode == "selective" ? every : 0,
                                           mode == "keep_attention");
}

}  // namespace cosmos::trainer
