#include "trainer/parallel/pipeline.h"

#include <algorithm>
#include <limits>
#include <torch/csrc/autograd/autograd.h>

namespace cosmos::trainer {
namespace {

/// Leaves a model's forward when the stage's blocks have run. Not an error, so nothing that catches
/// errors sees it.
struct StageEnd {};

/// The shape without the numbers: NaN, so that what uses it shows, in the memory of one.
Tensor placeholder(const StageValue& value, at::Device device) {
  return torch::full({}, std::numeric_limits<double>::quiet_NaN(),
                     torch::TensorOptions().dtype(value.dtype).device(device))
      .expand(value.sizes);
}

bool holds(const Tensors& tensors, const Tensor& x) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const Tensor& t) { return t.defined() && t.is_alias_of(x); });
}

}  // namespace

Pipeline::Pipeline(modules::Model& model, const Mesh& mesh, PipelineStages stages,
                   PipelineSchedule schedule, std::shared_ptr<FullyShard> blocks)
    : mesh_(mesh),
      stages_(std::move(stages)),
      schedule_(schedule),
      blocks_(std::move(blocks)),
      device_(model.parameters().front().device()) {
  const Group& group = mesh.axis("pipeline");
  const int64_t ranks = group.size(), me = group.rank();
  // From the last rank on to the first when a rank has several stages.
  const int64_t cuts = stages_.stages() > ranks ? ranks : ranks - 1;
  for (int64_t from = 0; from < cuts; ++from) {
    const int64_t to = (from + 1) % ranks;
    if (me != from && me != to) continue;
    const std::string cut = std::to_string(from);
    (me == from ? out_ : in_) =
        std::make_unique<PipelineLink>(mesh, "pipeline forward " + cut, from, to);
    (me == from ? gradients_in_ : gradients_out_) =
        std::make_unique<PipelineLink>(mesh, "pipeline backward " + cut, to, from);
  }
  if (schedule_ != PipelineSchedule::kZeroBubble) return;
  postponed_ = std::make_shared<modules::PostponedGradients>();
  for (const auto& [name, linear] : modules::named_linears(model))
    linear->postpone_weight_gradient(postponed_);
}

Tensors Pipeline::run(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
                      const modules::BlockFn& fn) {
  if (!passage_) return run_everywhere(name, block, inputs, fn);
  require(torch::GradMode::is_enabled(),
          "trainer.parallel.pipeline: expected 1 for a recipe whose ",
          "loss also runs the model without gradients (a reference, generated answers)");
  const int64_t stage = stages_.stage_of(name);
  if (stage < passage_->stage) return earlier(name);
  check_here(name, inputs);
  if (stage > passage_->stage) leave(name, inputs);
  const Tensors outputs = blocks_->run(name, block, inputs, fn);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    passage_->values.push_back({.info = {.block = name,
                                         .output = static_cast<int64_t>(i),
                                         .sizes = outputs[i].sizes().vec(),
                                         .dtype = outputs[i].scalar_type()},
                                .tensor = outputs[i]});
  return outputs;
}

Tensors Pipeline::run_everywhere(const std::string& name, torch::nn::Module& block,
                                 const Tensors& inputs, const modules::BlockFn& fn) {
  require(!torch::GradMode::is_enabled(), "pipeline: block ", name,
          ": expected a training step, or no gradients, got a forward with gradients outside one");
  const Group& group = mesh_.axis("pipeline");
  TensorMap outputs;
  if (stages_.rank_of(name) == group.rank()) {
    const Tensors mine = blocks_->run(name, block, inputs, fn);
    for (std::size_t i = 0; i < mine.size(); ++i) outputs[std::to_string(i)] = mine[i];
  }
  outputs = share_tensors(group, outputs, device_);
  Tensors all;
  for (std::size_t i = 0; i < outputs.size(); ++i) all.push_back(outputs.at(std::to_string(i)));
  return all;
}

Tensors Pipeline::earlier(const std::string& name) const {
  Tensors outputs;
  for (const Value& value : passage_->values)
    if (value.info.block == name) outputs.push_back(value.tensor);
  return outputs;
}

/// Everything that a block is given must be here.
void Pipeline::check_here(const std::string& name, const Tensors& inputs) const {
  for (const Value& value : passage_->values)
    require(value.here || !holds(inputs, value.tensor), "pipeline: ", name, " needs output ",
            value.info.output, " of ", value.info.block,
            ", which the first block of its stage does not take; cut the model elsewhere "
            "(another trainer.parallel.pipeline)");
}

/// What the next block is given goes on to its stage: outputs of blocks, or views of them.
void Pipeline::leave(const std::string& name, const Tensors& inputs) {
  for (Value& value : passage_->values) {
    value.info.carried = holds(inputs, value.tensor);
    value.info.requires_grad = value.here && value.tensor.requires_grad();
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const bool known =
        std::any_of(passage_->values.begin(), passage_->values.end(), [&](const Value& value) {
          return inputs[i].defined() && inputs[i].is_alias_of(value.tensor);
        });
    require(known || !inputs[i].defined() || !inputs[i].requires_grad(), "pipeline: input ", i,
            " of ", name,
            ": expected an output of a block or a view of one, got a tensor computed ",
            "between blocks");
  }
  passage_->left = true;
  throw StageEnd();
}

Tensors Pipeline::empty_like(const StageLayout& layout, bool gradients) const {
  Tensors tensors;
  for (const StageValue& value : layout)
    if (value.carried && (value.requires_grad || !gradients))
      tensors.push_back(
          torch::empty(value.sizes, torch::TensorOptions().dtype(value.dtype).device(device_)));
  return tensors;
}

/// Begins to receive what the action needs, where its shapes are known.
bool Pipeline::post(const PipelineAction& action, const MicroBatches& micro_batches) {
  const Key key{action.stage, action.micro_batch};
  const std::string shape = micro_batches.shape(action.micro_batch);
  if (action.kind == PipelineAction::kForward) {
    const auto layout = layouts_in_.find({action.stage, shape});
    if (action.stage == 0 || forwards_.count(key) > 0) return true;
    if (layout == layouts_in_.end()) return false;
    Arrival& arrival = forwards_[key];
    arrival.tensors = empty_like(layout->second, /*gradients=*/false);
    arrival.pending = in_->receive(arrival.tensors);
  } else if (action.kind == PipelineAction::kBackward) {
    const auto layout = layouts_out_.find({action.stage, shape});
    if (last(action.stage) || backwards_.count(key) > 0) return true;
    if (layout == layouts_out_.end()) return false;
    Arrival& arrival = backwards_[key];
    arrival.tensors = empty_like(layout->second, /*gradients=*/true);
    arrival.pending = gradients_in_->receive(arrival.tensors);
  }
  return true;
}

Tensors Pipeline::arrive(const PipelineAction& action, const MicroBatches& micro_batches) {
  if (!post(action, micro_batches)) {
    layouts_in_[{action.stage, micro_batches.shape(action.micro_batch)}] = in_->receive_layout();
    post(action, micro_batches);
  }
  auto& arrivals = action.kind == PipelineAction::kForward ? forwards_ : backwards_;
  const auto found = arrivals.find({action.stage, action.micro_batch});
  if (action.kind == PipelineAction::kWeights || found == arrivals.end()) return {};
  Arrival arrival = std::move(found->second);
  arrivals.erase(found);
  arrival.pending.wait();
  return arrival.tensors;
}

void Pipeline::forward(const PipelineAction& action, const Tensors& arrived,
                       const MicroBatches& micro_batches) {
  const std::string shape = micro_batches.shape(action.micro_batch);
  Passage& passage = passages_[{action.stage, action.micro_batch}];
  passage.stage = action.stage;
  std::size_t next = 0;
  if (action.stage > 0)
    for (const StageValue& info : layouts_in_.at({action.stage, shape})) {
      Value value{.info = info, .here = info.carried};
      value.tensor = info.carried ? arrived[next++] : placeholder(info, device_);
      if (info.carried && info.requires_grad)
        passage.arrived.push_back(value.tensor.set_requires_grad(true));
      passage.values.push_back(std::move(value));
    }
  passage_ = &passage;
  try {
    passage.loss = micro_batches.loss(action.micro_batch);
  } catch (const StageEnd&) {
  } catch (...) {
    passage_ = nullptr;
    throw;
  }
  passage_ = nullptr;
  require(passage.left != last(action.stage), "pipeline: stage ", action.stage, ": expected the ",
          "forward to go through the model's block_order(), got another end");
  if (passage.left) send_on(passage, shape);
  passage.values.clear();
}

void Pipeline::send_on(Passage& passage, const std::string& shape) {
  StageLayout layout;
  Tensors carried;
  for (const Value& value : passage.values) {
    layout.push_back(value.info);
    if (!value.info.carried) continue;
    carried.push_back(value.tensor);
    if (value.info.requires_grad) passage.sent.push_back(value.tensor);
  }
  const auto [known, is_new] = layouts_out_.emplace(std::pair{passage.stage, shape}, layout);
  require(known->second == layout, "pipeline: stage ", passage.stage,
          ": expected micro-batches of ",
          "one shape to take the same way through the model, got two");
  if (is_new) out_->send_layout(layout);
  out_->send(carried);
}

void Pipeline::backward(const PipelineAction& action, const Tensors& gradients) {
  Passage& passage = passages_.at({action.stage, action.micro_batch});
  if (passage.loss.defined() && passage.loss.requires_grad()) passage.loss.backward();
  if (!passage.sent.empty()) torch::autograd::backward(passage.sent, gradients);
  blocks_->finish_backward();
  if (action.stage > 0) {
    Tensors back;
    for (const Tensor& x : passage.arrived)
      back.push_back(x.grad().defined() ? x.grad() : torch::zeros_like(x));
    gradients_out_->send(back);
  }
  if (!postponed_) {
    passages_.erase({action.stage, action.micro_batch});
    return;
  }
  const Passage left{.weights = postponed_->take()};
  passage = left;
}

void Pipeline::weights(const PipelineAction& action) {
  const auto found = passages_.find({action.stage, action.micro_batch});
  for (const auto& gradient : found->second.weights) gradient();
  passages_.erase(found);
  blocks_->keep_gradients();
}

void Pipeline::step(const MicroBatches& micro_batches) {
  const Group& group = mesh_.axis("pipeline");
  const int64_t chunks = stages_.stages() / group.size();
  const auto actions =
      pipeline_actions(schedule_, group.rank(), group.size(), chunks, micro_batches.count);
  passages_.clear();
  // With one stage and whole backwards, blocks are reduced while the last backward runs; else when
  // all is done, since no backward is the last of every block.
  const bool at_last = chunks == 1 && !postponed_;
  for (std::size_t i = 0; i < actions.size(); ++i) {
    const PipelineAction& action = actions[i];
    const Tensors arrived = arrive(action, micro_batches);
    if (i + 1 < actions.size()) post(actions[i + 1], micro_batches);
    blocks_->set_reduce(at_last && i + 1 == actions.size());
    if (action.kind == PipelineAction::kForward) forward(action, arrived, micro_batches);
    if (action.kind == PipelineAction::kBackward) {
      micro_batches.prepare(action.micro_batch);
      backward(action, arrived);
    }
    if (action.kind == PipelineAction::kWeights) weights(action);
  }
  if (!at_last) {
    blocks_->set_reduce(true);
    blocks_->finish_backward();
  }
  for (PipelineLink* link : {out_.get(), gradients_out_.get()})
    if (link) link->finish();
}

Tensor Pipeline::from_last(const Tensor& scalar) const {
  const Group& group = mesh_.axis("pipeline");
  const bool here = group.rank() + 1 == group.size();
  // float64 holds any loss; ranks without one do not know its dtype.
  const Tensor value =
      torch::zeros({1}, torch::TensorOptions().dtype(torch::kFloat64).device(device_));
  if (here) value.copy_(scalar.detach().reshape({1}));
  group.broadcast(value, group.size() - 1).wait();
  return value.reshape({});
}

std::string Pipeline::from_last(const std::string& text) const {
  return mesh_.axis("pipeline").all_gather_text(text).back();
}

int64_t Pipeline::sent_bytes() const {
  int64_t bytes = 0;
  for (const PipelineLink* link : {out_.get(), gradients_out_.get()})
    if (link) bytes += link->sent_bytes();
  return bytes;
}

}  // namespace cosmos::trainer
