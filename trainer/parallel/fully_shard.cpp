#include "trainer/parallel/fully_shard.h"

#include <algorithm>
#include <set>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/nn/modules/container/modulelist.h>
#include <typeinfo>

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

/// Computes nothing itself, unlike a block whose parts have numbers for names (a projection).
bool is_container(const torch::nn::Module& module) {
  if (!module.parameters(/*recurse=*/false).empty() || module.children().empty()) return false;
  return typeid(module) == typeid(torch::nn::Module) ||
         typeid(module) == typeid(torch::nn::ModuleListImpl);
}

void list_units(const torch::nn::Module& parent, const std::string& path,
                std::vector<ShardUnit>& units) {
  for (const auto& child : parent.named_children()) {
    if (is_container(*child.value()))
      list_units(*child.value(), path + child.key() + ".", units);
    else
      units.push_back({path + child.key(), child.value()});
  }
}

const void* identity(const Tensor& parameter) {
  return parameter.unsafeGetTensorImpl();
}

/// A block's parameters, each once.
std::vector<std::pair<std::string, Tensor>> parameters_of(const ShardUnit& unit) {
  std::vector<std::pair<std::string, Tensor>> found;
  std::set<const void*> seen;
  for (const auto& item : unit.block->named_parameters())
    if (seen.insert(identity(item.value())).second)
      found.emplace_back(unit.name + "." + item.key(), item.value());
  return found;
}

/// Which parameters travel in 8 bits, and their layers' numbers.
std::map<const void*, int64_t> fp8_weights(const modules::Fp8Layers& layers) {
  std::map<const void*, int64_t> found;
  int64_t number = 0;
  for (const auto& [name, linear] : layers.linears()) {
    if (Fp8Gather::takes(*linear, linear->weight.sizes())) found[identity(linear->weight)] = number;
    ++number;
  }
  return found;
}

}  // namespace

std::vector<ShardUnit> shard_units(const torch::nn::Module& model) {
  std::vector<ShardUnit> units;
  list_units(model, "", units);
  return units;
}

FullyShard::FullyShard(modules::Model& model, const Mesh& mesh, ShardOptions options,
                       std::shared_ptr<modules::BlockRunner> inner, TensorSlices slices)
    : mesh_(mesh),
      options_(std::move(options)),
      slices_(std::move(slices)),
      inner_(std::move(inner)) {
  const std::vector<ShardUnit> units = shard_units(model);
  check_stages(units);
  for (const ShardUnit& unit : units)
    for (const auto& [name, parameter] : parameters_of(unit)) ++users_[identity(parameter)];
  if (options_.fp8) fp8_layers_ = fp8_weights(*options_.fp8);
  for (const ShardUnit& unit : units) is_here(unit) ? add_unit(unit) : leave_out(unit);
  for (const auto& item : model.named_parameters())
    require(by_name_.count(item.key()) + elsewhere_.count(item.key()) > 0, "cannot shard ",
            model.class_name(), ": parameter ", item.key(), " is in none of its blocks");
}

bool FullyShard::is_here(const ShardUnit& unit) const {
  const Group& pipeline = mesh_.axis("pipeline");
  return pipeline.size() == 1 || options_.stages.rank_of(unit.name) == pipeline.rank();
}

/// A weight has one place.
void FullyShard::check_stages(const std::vector<ShardUnit>& units) const {
  if (mesh_.axis("pipeline").size() == 1) return;
  std::map<const void*, std::string> first;
  for (const ShardUnit& unit : units)
    for (const auto& [name, parameter] : parameters_of(unit)) {
      const auto [found, added] = first.emplace(identity(parameter), unit.name);
      require(added || options_.stages.rank_of(found->second) == options_.stages.rank_of(unit.name),
              "trainer.parallel.pipeline: ", found->second, " and ", unit.name,
              " share a weight and are on different stages; set it to 1");
    }
}

const Group& FullyShard::row_group(const std::string& name) const {
  const auto slice = slices_.find(name);
  if (slice == slices_.end()) return mesh_.axis("model");
  return mesh_.axis(slice->second.axis == "expert" ? "experts" : "weights");
}

std::unique_ptr<Fp8Gather> FullyShard::fp8_gather(const Params& params) const {
  std::vector<int64_t> layers;
  Tensors weights;
  for (const auto& [name, parameter] : params) {
    layers.push_back(fp8_layers_.at(identity(parameter)));
    weights.push_back(parameter);
  }
  return std::make_unique<Fp8Gather>(*options_.fp8, layers, weights, row_group(params[0].first));
}

ShardBucket* FullyShard::add_bucket(const Params& params, bool fp8) {
  buckets_.push_back(std::make_unique<ShardBucket>(
      params, row_group(params[0].first), mesh_,
      BucketOptions{.fp8 = fp8 ? fp8_gather(params) : nullptr, .away = options_.away}));
  ShardBucket* bucket = buckets_.back().get();
  for (const auto& param : bucket->params()) by_name_[param.name] = &param;
  return bucket;
}

ShardBucket* FullyShard::tied_bucket(const std::string& name, const Tensor& parameter) {
  ShardBucket*& bucket = tied_[identity(parameter)];
  if (!bucket) bucket = add_bucket({{name, parameter}});
  by_name_[name] = &bucket->params()[0];
  return bucket;
}

bool FullyShard::is_tied(const ShardBucket& bucket) const {
  return users_.at(identity(bucket.params()[0].full)) > 1;
}

void FullyShard::add_unit(const ShardUnit& given) {
  // One bucket a dtype (bf16 weights and the few that stay float32), group and way to travel.
  std::map<std::tuple<torch::Dtype, std::string, bool>, Params> kinds;
  auto unit = std::make_unique<Unit>();
  unit->name = given.name;
  for (const auto& [name, parameter] : parameters_of(given)) {
    if (users_.at(identity(parameter)) > 1)
      unit->tied.push_back(tied_bucket(name, parameter));
    else
      kinds[{parameter.scalar_type(), row_group(name).name(),
             fp8_layers_.count(identity(parameter)) > 0}]
          .emplace_back(name, parameter);
  }
  for (const auto& [kind, params] : kinds) {
    unit->buckets.push_back(add_bucket(params, std::get<bool>(kind)));
    unit->trained |= unit->buckets.back()->trained();
  }
  by_block_[given.block.get()] = unit.get();
  units_.push_back(std::move(unit));
}

void FullyShard::leave_out(const ShardUnit& given) {
  for (const auto& [name, parameter] : parameters_of(given)) {
    elsewhere_[name] = parameter;
    set_storage(parameter, 0);
  }
}

FullyShard::Unit* FullyShard::unit_of(const std::string& name, torch::nn::Module& block) {
  const auto found = by_block_.find(&block);
  require(found != by_block_.end(), "cannot shard block ", name,
          ": only models whose blocks are their children, or those of plain containers, can be; "
          "train this one in one process");
  return found->second;
}

void FullyShard::unshard(Unit& unit) {
  for (ShardBucket* bucket : unit.buckets) bucket->unshard(traffic_);
  for (ShardBucket* bucket : unit.tied) bucket->unshard(traffic_);
}

void FullyShard::prefetch(Unit& unit) {
  for (ShardBucket* bucket : unit.buckets) bucket->prefetch(traffic_);
  for (ShardBucket* bucket : unit.tied) bucket->prefetch(traffic_);
}

void FullyShard::reshard(Unit& unit) {
  for (ShardBucket* bucket : unit.buckets) bucket->reshard();
  for (ShardBucket* bucket : unit.tied) bucket->reshard();
}

/// Makes the unit whole and begins to gather the one that followed it last time. The first of a
/// forward is never gathered ahead: weights may change before it runs.
void FullyShard::enter(Unit& unit) {
  if (!first_) first_ = &unit;
  if (&unit == first_) {
    last_ = nullptr;
    settle();
    scales_taken_ = false;
  }
  if (!scales_taken_) take_scales();
  unit.before = last_;
  if (last_) last_->after = &unit;
  last_ = &unit;
  unshard(unit);
  if (unit.after) prefetch(*unit.after);
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
  if (unit.before && unit.before->expects_backward) prefetch(*unit.before);
}

void FullyShard::after_backward(Unit& unit) {
  unit.expects_backward = false;
  reduce(unit);
  reshard(unit);
}

void FullyShard::reduce(Unit& unit) {
  if (!unit.trained || unit.reduced) return;
  unit.reduced = true;
  for (ShardBucket* bucket : unit.buckets) reduce(*bucket);
}

void FullyShard::reduce(ShardBucket& bucket) {
  if (!reduce_) return bucket.keep_gradients();
  if (reducing_) reducing_->finish_reduce();  // one at a time: bounded memory
  bucket.reduce(traffic_);
  reducing_ = &bucket;
}

void FullyShard::finish_backward() {
  // Blocks without an input that requires grad (stems, the first block under LoRA), in the order of
  // construction: the same on every rank.
  for (const auto& unit : units_)
    if (!unit->reduced) after_backward(*unit);
  for (const auto& bucket : buckets_)
    if (is_tied(*bucket)) reduce(*bucket);
  if (reducing_) reducing_->finish_reduce();
  reducing_ = nullptr;
  for (const auto& unit : units_) unit->reduced = false;
  for (const auto& bucket : buckets_)
    for (const auto& param : bucket->params())
      require(!param.full.grad().defined(), param.name,
              " received a gradient after its block's backward had ended");
  settle();
  scales_taken_ = false;
}

/// The weights of a forward are those at its beginning: one small exchange for all of them.
void FullyShard::take_scales() {
  for (const auto& bucket : buckets_) bucket->begin_scales(torch::GradMode::is_enabled(), traffic_);
  for (const auto& bucket : buckets_) bucket->end_scales();
  scales_taken_ = true;
}

void FullyShard::keep_gradients() {
  for (const auto& bucket : buckets_) bucket->keep_gradients();
}

/// Forgets gathers that nobody used: they may be of other weights.
void FullyShard::settle() {
  for (const auto& bucket : buckets_) bucket->drop_prefetched();
}

NamedTensors FullyShard::shards() const {
  NamedTensors found;
  for (const auto& bucket : buckets_)
    for (const auto& param : bucket->params())
      if (param.trained) found.emplace_back(param.name, param.shard);
  return found;
}

Tensor FullyShard::shard(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? Tensor() : found->second->shard;
}

void FullyShard::load(const std::string& name, const Tensor& whole) {
  const torch::NoGradGuard no_grad;
  if (is_elsewhere(name)) return;
  const ShardBucket::Param& param = *by_name_.at(name);
  Tensor(param.shard).copy_(region_of(whole, region(name)).to(param.full.scalar_type()));
}

Region FullyShard::region(const std::string& name) const {
  const Group& rows_of = row_group(name);
  const auto slice = slices_.find(name);
  if (slice == slices_.end()) {
    const at::IntArrayRef sizes = by_name_.at(name)->full.sizes();
    return rows_region(sizes, shard_rows(sizes[0], rows_of.rank(), rows_of.size()));
  }
  const Group& ranks = mesh_.axis(slice->second.axis);
  const std::vector<int64_t> mine = slice_sizes(slice->second, ranks.size());
  Region region = rows_region(mine, shard_rows(mine[0], rows_of.rank(), rows_of.size()));
  region.offset[slice->second.dim] += ranks.rank() * mine[slice->second.dim];
  return region;
}

Copies FullyShard::copies(const std::string& name) const {
  require(by_name_.count(name) > 0, "no parameter ", name);
  const Group& group = mesh_.axis("replica");
  return {.index = group.rank(), .count = group.size()};
}

Copies FullyShard::stage_ranks() const {
  const int64_t count = mesh_.world().size() / mesh_.axis("pipeline").size();
  return {.index = mesh_.world().rank() % count, .count = count};
}

/// The model's own tensor, wherever its block is.
Tensor FullyShard::full_of(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? elsewhere_.at(name) : found->second->full;
}

FullyShard::WholeShapes::WholeShapes(FullyShard* sharded) {
  if (!sharded) return;
  for (const auto& [name, slice] : sharded->slices_) {
    Tensor full = sharded->full_of(name);
    slices_.emplace_back(full, full.detach());
    full.set_data(torch::empty({}, full.options().requires_grad(false)).expand(slice.whole));
  }
}

FullyShard::WholeShapes::~WholeShapes() {
  for (auto& [full, mine] : slices_) full.set_data(mine);
}

FullyShard::Held FullyShard::held_bytes() const {
  Held held;
  const auto bytes = [](const Tensor& x) {
    return x.defined() ? static_cast<int64_t>(x.nbytes()) : 0;
  };
  for (const auto& bucket : buckets_)
    for (const auto& param : bucket->params()) {
      (options_.away ? held.away : held.device) += bytes(param.shard) + bytes(param.shard.grad());
      held.device += bytes(param.sum);
    }
  return held;
}

}  // namespace cosmos::trainer
