#include "trainer/parallel/fully_shard.h"

#include <algorithm>
#include <set>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/parallel/shard_layout.h"

namespace cosmos::trainer {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Identity on a block's inputs whose backward runs when all of the block's backward has: the
/// block's nodes are younger, and the engine takes the youngest that is ready.
struct AfterBackward : torch::autograd::Function<AfterBackward> {
  struct Callback : torch::CustomClassHolder {
    std::function<void()> call;
  };

  static variable_list forward(AutogradContext* ctx, const c10::intrusive_ptr<Callback>& callback,
                               at::TensorList inputs) {
    ctx->saved_data["callback"] = c10::IValue::make_capsule(callback);
    ctx->set_materialize_grads(false);
    return inputs.vec();
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    c10::static_intrusive_pointer_cast<Callback>(ctx->saved_data["callback"].toCapsule())->call();
    grads.insert(grads.begin(), Tensor());  // the callback's
    return grads;
  }
};

namespace {

bool is_container(const torch::nn::Module& module) {
  const auto children = module.named_children();
  return module.parameters(/*recurse=*/false).empty() && !children.is_empty() &&
         std::all_of(children.begin(), children.end(), [](const auto& child) {
           return child.key().find_first_not_of("0123456789") == std::string::npos;
         });
}

}  // namespace

std::vector<ShardUnit> shard_units(const torch::nn::Module& model) {
  std::vector<ShardUnit> units;
  for (const auto& child : model.named_children()) {
    if (!is_container(*child.value())) {
      units.push_back({child.key(), child.value()});
      continue;
    }
    for (const auto& block : child.value()->named_children())
      units.push_back({child.key() + "." + block.key(), block.value()});
  }
  return units;
}

FullyShard::FullyShard(modules::Model& model, const Mesh& mesh, ShardOptions options,
                       std::shared_ptr<modules::BlockRunner> inner, TensorSlices slices)
    : mesh_(mesh), options_(options), slices_(std::move(slices)), inner_(std::move(inner)) {
  for (const ShardUnit& unit : shard_units(model)) add_unit(unit.name, *unit.block);
  for (const auto& item : model.named_parameters())
    require(by_name_.count(item.key()) > 0, "cannot shard ", model.class_name(), ": parameter ",
            item.key(), " is in none of its blocks");
}

const Group& FullyShard::row_group(const std::string& name) const {
  return mesh_.axis(slices_.count(name) > 0 ? "weights" : "model");
}

void FullyShard::add_unit(const std::string& name, torch::nn::Module& block) {
  // One bucket a dtype (bf16 weights and the few that stay float32) and group.
  std::map<std::pair<torch::Dtype, bool>, std::vector<std::pair<std::string, Tensor>>> kinds;
  std::set<const void*> seen;
  for (const auto& item : block.named_parameters()) {
    if (!seen.insert(item.value().unsafeGetTensorImpl()).second) continue;
    const std::string path = name + "." + item.key();
    kinds[{item.value().scalar_type(), slices_.count(path) > 0}].emplace_back(path, item.value());
  }
  auto unit = std::make_unique<Unit>();
  unit->name = name;
  for (const auto& [kind, params] : kinds) {
    unit->buckets.push_back(
        std::make_unique<ShardBucket>(params, row_group(params[0].first), mesh_));
    unit->trained |= unit->buckets.back()->trained();
    for (const auto& param : unit->buckets.back()->params()) by_name_[param.name] = &param;
  }
  by_block_[&block] = unit.get();
  units_.push_back(std::move(unit));
}

FullyShard::Unit* FullyShard::unit_of(const std::string& name, torch::nn::Module& block) {
  const auto found = by_block_.find(&block);
  require(found != by_block_.end(), "cannot shard block ", name,
          ": only models whose blocks are their direct children, or those of a list of blocks, can "
          "be (the DiT); train this one in one process");
  return found->second;
}

void FullyShard::unshard(Unit& unit) {
  for (const auto& bucket : unit.buckets) bucket->unshard(traffic_);
}

void FullyShard::reshard(Unit& unit) {
  for (const auto& bucket : unit.buckets) bucket->reshard();
}

/// Makes the unit whole and begins to gather the one that followed it last time. The first of a
/// forward is never gathered ahead: weights may change before it runs.
void FullyShard::enter(Unit& unit) {
  if (!first_) first_ = &unit;
  if (&unit == first_) {
    last_ = nullptr;
    settle();
  }
  unit.before = last_;
  if (last_) last_->after = &unit;
  last_ = &unit;
  unshard(unit);
  if (unit.after)
    for (const auto& bucket : unit.after->buckets) bucket->prefetch(traffic_);
}

Tensors FullyShard::run(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
                        const modules::BlockFn& fn) {
  Unit& unit = *unit_of(name, block);
  enter(unit);
  const bool graph = torch::GradMode::is_enabled();
  const Tensors marked = graph ? mark_inputs(unit, inputs) : inputs;
  Tensors outputs = inner_ ? inner_->run(name, block, marked, fn) : fn(marked);
  if (graph) mark_outputs(unit, outputs);
  if (options_.reshard_after_forward || !unit.expects_backward) reshard(unit);
  return outputs;
}

Tensors FullyShard::mark_inputs(Unit& unit, const Tensors& inputs) {
  Tensors marked = inputs, with_grad;
  for (const Tensor& x : inputs)
    if (x.defined() && x.requires_grad()) with_grad.push_back(x);
  if (with_grad.empty()) return marked;  // finish_backward() does it
  auto callback = c10::make_intrusive<AfterBackward::Callback>();
  callback->call = [self = weak_from_this(), &unit] {
    if (const auto alive = self.lock()) alive->after_backward(unit);
  };
  const Tensors through = AfterBackward::apply(callback, at::TensorList(with_grad));
  std::size_t next = 0;
  for (Tensor& x : marked)
    if (x.defined() && x.requires_grad()) x = through[next++];
  return marked;
}

void FullyShard::mark_outputs(Unit& unit, const Tensors& outputs) {
  for (const Tensor& y : outputs) {
    if (!y.defined() || !y.requires_grad()) continue;
    unit.expects_backward = true;
    y.register_hook([self = weak_from_this(), &unit](const Tensor&) {
      if (const auto alive = self.lock()) alive->before_backward(unit);
    });
  }
}

void FullyShard::before_backward(Unit& unit) {
  unshard(unit);
  if (unit.before && unit.before->expects_backward)
    for (const auto& bucket : unit.before->buckets) bucket->prefetch(traffic_);
}

void FullyShard::after_backward(Unit& unit) {
  unit.expects_backward = false;
  reduce(unit);
  reshard(unit);
}

void FullyShard::reduce(Unit& unit) {
  if (!unit.trained || unit.reduced) return;
  unit.reduced = true;
  for (const auto& bucket : unit.buckets) {
    if (!reduce_) {
      bucket->keep_gradients();
      continue;
    }
    if (reducing_) reducing_->finish_reduce();  // one at a time: bounded memory
    bucket->reduce(traffic_);
    reducing_ = bucket.get();
  }
}

void FullyShard::finish_backward() {
  // Blocks without an input that requires grad (stems, the first block under LoRA), in the order of
  // construction: the same on every rank.
  for (const auto& unit : units_)
    if (!unit->reduced) after_backward(*unit);
  if (reducing_) reducing_->finish_reduce();
  reducing_ = nullptr;
  for (const auto& unit : units_) {
    unit->reduced = false;
    for (const auto& bucket : unit->buckets)
      for (const auto& param : bucket->params())
        require(!param.full.grad().defined(), unit->name, ": ", param.name,
                " received a gradient after its block's backward had ended");
  }
  settle();
}

/// Forgets gathers that nobody used: they may be of other weights.
void FullyShard::settle() {
  for (const auto& unit : units_)
    for (const auto& bucket : unit->buckets) bucket->drop_prefetched();
}

NamedTensors FullyShard::shards() const {
  NamedTensors found;
  for (const auto& unit : units_)
    for (const auto& bucket : unit->buckets)
      for (const auto& param : bucket->params())
        if (param.trained) found.emplace_back(param.name, param.shard);
  return found;
}

TensorMap FullyShard::gather(const TensorMap& shards) const {
  torch::NoGradGuard no_grad;
  TensorMap whole;
  for (const auto& [name, shard] : shards) {
    const Group& group = row_group(name);
    const Tensor& full = by_name_.at(name)->full;
    const int64_t chunk = shard_rows(full.size(0), 0, group.size()).size();
    std::vector<int64_t> sizes = full.sizes().vec();
    sizes[0] = chunk;
    const Tensor padded = torch::zeros(sizes, shard.options().requires_grad(false));
    padded.narrow(0, 0, shard.size(0)).copy_(shard);
    sizes[0] = chunk * group.size();
    const Tensor all = torch::empty(sizes, padded.options());
    group.all_gather(padded.flatten(), all.flatten()).wait();
    whole[name] = all.narrow(0, 0, full.size(0));
    if (const auto slice = slices_.find(name); slice != slices_.end())
      whole[name] = whole_of(whole[name], slice->second, mesh_.axis("tensor"));
  }
  return whole;
}

void FullyShard::load(const std::string& name, const Tensor& whole) {
  const torch::NoGradGuard no_grad;
  const ShardBucket::Param& param = *by_name_.at(name);
  Tensor(param.shard).copy_(part_of(name, whole).to(param.full.scalar_type()));
}

Tensor FullyShard::part_of(const std::string& name, const Tensor& whole) const {
  const Group &rows = row_group(name), &tensor = mesh_.axis("tensor");
  const auto slice = slices_.find(name);
  const Tensor mine =
      slice == slices_.end() ? whole : slice_of(whole, slice->second, tensor.rank(), tensor.size());
  return shard_of(mine, rows.rank(), rows.size());
}

Tensor FullyShard::shard(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? Tensor() : found->second->shard;
}

FullyShard::Whole::Whole(FullyShard* sharded) : sharded_(sharded) {
  if (!sharded_) return;
  sharded_->settle();
  for (const auto& unit : sharded_->units_) sharded_->unshard(*unit);
  torch::NoGradGuard no_grad;
  for (const auto& [name, slice] : sharded_->slices_) {
    Tensor full = sharded_->by_name_.at(name)->full;
    slices_.emplace_back(full, full.detach());
    full.set_data(whole_of(full.detach(), slice, sharded_->mesh_.axis("tensor")));
  }
}

FullyShard::Whole::~Whole() {
  if (!sharded_) return;
  for (auto& [full, mine] : slices_) full.set_data(mine);
  for (const auto& unit : sharded_->units_) sharded_->reshard(*unit);
}

FullyShard::WholeShapes::WholeShapes(FullyShard* sharded) {
  if (!sharded) return;
  for (const auto& [name, slice] : sharded->slices_) {
    Tensor full = sharded->by_name_.at(name)->full;
    slices_.emplace_back(full, full.detach());
    full.set_data(torch::empty({}, full.options().requires_grad(false)).expand(slice.whole));
  }
}

FullyShard::WholeShapes::~WholeShapes() {
  for (auto& [full, mine] : slices_) full.set_data(mine);
}

int64_t FullyShard::resident_bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, param] : by_name_) {
    bytes += static_cast<int64_t>(param->shard.nbytes());
    if (param->shard.grad().defined()) bytes += static_cast<int64_t>(param->shard.grad().nbytes());
    if (param->sum.defined()) bytes += static_cast<int64_t>(param->sum.nbytes());
  }
  return bytes;
}

}  // namespace cosmos::trainer
