#include "trainer/parallel/tensor_parallel.h"

namespace cosmos::trainer {
namespace {

using modules::Split;
using Collectives = std::shared_ptr<const ModelCollectives>;

constexpr int64_t kTokens = -2;  ///< dimension of the tokens around a product

/// Every rank computes some of the outputs.
class ColumnParallel : public modules::LinearCollective {
 public:
  ColumnParallel(Collectives collectives, bool tokens, bool whole_output)
      : collectives_(std::move(collectives)), tokens_(tokens), whole_output_(whole_output) {}
  Tensor enter(const Tensor& x) const override {
    return tokens_ ? collectives_->all_gather(x, kTokens) : x;
  }
  Tensor leave(const Tensor& product) const override {
    return whole_output_ ? collectives_->all_gather(product, -1) : product;
  }
  bool sums() const override { return false; }
  std::optional<ops::ClassRange> class_range(int64_t rows) const override {
    const Group& group = collectives_->group();
    return ops::ClassRange{
        .first = group.rank() * rows,
        .classes = group.size() * rows,
        .gather = [c = collectives_](const Tensor& x) { return c->all_gather(x.unsqueeze(0), 0); },
        .sum = [c = collectives_](const Tensor& x) { return c->all_reduce(x); }};
  }
  Tensor row_norm(const Tensor& partial) const override { return partial; }

 private:
  Collectives collectives_;
  bool tokens_;        ///< whether the input is a part of them
  bool whole_output_;  ///< whether the others' outputs are wanted
};

/// Every rank computes a term of all outputs, from some of the inputs.
class RowParallel : public modules::LinearCollective {
 public:
  RowParallel(Collectives collectives, bool tokens)
      : collectives_(std::move(collectives)), tokens_(tokens) {}
  Tensor enter(const Tensor& x) const override { return x; }
  Tensor leave(const Tensor& product) const override {
    return tokens_ ? collectives_->reduce_scatter(product, kTokens)
                   : collectives_->all_reduce(product);
  }
  bool sums() const override { return true; }
  std::optional<ops::ClassRange> class_range(int64_t) const override { return std::nullopt; }
  Tensor row_norm(const Tensor& partial) const override {
    const torch::NoGradGuard no_grad;
    return collectives_->all_reduce(partial.square()).sqrt();
  }

 private:
  Collectives collectives_;
  bool tokens_;  ///< whether the output is to be a part of them
};

/// Tokens of `inner`'s part, split again between the products; within an attention they are whole.
class SequencePlan : public modules::TokenPlan {
 public:
  SequencePlan(Collectives collectives, std::shared_ptr<const modules::TokenPlan> inner)
      : collectives_(std::move(collectives)), inner_(std::move(inner)) {}
  Tensor scatter(const Tensor& x, int64_t dim) const override {
    const Tensor part = inner_->scatter(x, dim);
    const int64_t ranks = collectives_->group().size();
    require(
        part.size(dim) % ranks == 0, "trainer.parallel.tensor: ", ranks,
        " ranks do not divide the ", part.size(dim),
        " tokens of a frame or sequence; change the size of the clips, pad the sequences, or set "
        "trainer.parallel.sequence=false");
    return collectives_->narrow(part, dim);
  }
  Tensor gather(const Tensor& x, int64_t dim) const override {
    return inner_->gather(collectives_->all_gather(x, dim), dim);
  }
  Tensor scatter_positions(const Tensor& x, int64_t dim) const override {
    return inner_->scatter_positions(x, dim);
  }
  Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v) const override {
    return inner_->attend(q, k, v);
  }

 private:
  Collectives collectives_;
  std::shared_ptr<const modules::TokenPlan> inner_;
};

std::map<std::string, std::shared_ptr<modules::LinearImpl>> linears_of(
    const modules::Model& model) {
  std::map<std::string, std::shared_ptr<modules::LinearImpl>> found;
  for (const auto& [name, linear] : modules::named_linears(model)) found[name] = linear;
  return found;
}

const std::string kWhere = "trainer.parallel.tensor: ";

void check_divides(const modules::SplitLinear& split, const Tensor& weight, int64_t ranks) {
  const int64_t features = weight.size(split.split == Split::kColumn ? 0 : 1);
  const int64_t units = features / split.unit;
  require(features % split.unit == 0 && units % ranks == 0, kWhere, ranks,
          " ranks do not divide the ", units, split.unit > 1 ? " heads of " : " features of ",
          split.name, "; choose a divisor of ", units);
}

}  // namespace

TensorSlices tensor_slices(const modules::Model& model, int64_t ranks) {
  TensorSlices slices;
  if (ranks == 1) return slices;
  const modules::ParallelPlan plan = model.parallel_plan();
  require(!plan.empty(), kWhere, "got ", ranks, ", but ", model.class_name(),
          " has no plan by which its products are split; set it to 1");
  const auto linears = linears_of(model);
  for (const modules::SplitLinear& split : plan) {
    const modules::LinearImpl& linear = *linears.at(split.name);
    check_divides(split, linear.weight, ranks);
    const int64_t dim = split.split == Split::kColumn ? 0 : 1;
    slices[split.name + ".weight"] = {dim, linear.weight.sizes().vec()};
    if (linear.bias.defined() && split.split == Split::kColumn)
      slices[split.name + ".bias"] = {0, linear.bias.sizes().vec()};
    if (!linear.adapter()) continue;
    for (const auto& item : linear.adapter()->named_parameters())
      if (const auto along = linear.adapter()->split_dim(item.key(), split.split))
        slices[split.name + ".adapter." + item.key()] = {*along, item.value().sizes().vec()};
  }
  return slices;
}

TensorParallel::TensorParallel(modules::Model& model, const Group& group, bool sequence,
                               std::shared_ptr<const modules::TokenPlan> inner)
    : collectives_(std::make_shared<ModelCollectives>(group)),
      slices_(tensor_slices(model, group.size())) {
  take_slices(model, slices_, group);
  install(model, sequence);
  if (!sequence) return;
  require(model.gathers_tokens(), "trainer.parallel.sequence: ", model.class_name(),
          " does not split its tokens; set it to false");
  model.set_token_plan(std::make_shared<SequencePlan>(collectives_, std::move(inner)));
}

std::shared_ptr<const modules::LinearCollective> TensorParallel::make_collective(
    Split split, bool tokens, bool whole_output) const {
  if (split == Split::kRow) return std::make_shared<RowParallel>(collectives_, tokens);
  return std::make_shared<ColumnParallel>(collectives_, tokens, whole_output);
}

void TensorParallel::install(modules::Model& model, bool sequence) const {
  // One object a kind, so that Linears of one input gather it once.
  std::map<std::tuple<Split, bool, bool>, std::shared_ptr<const modules::LinearCollective>> kinds;
  const auto linears = linears_of(model);
  for (const modules::SplitLinear& split : model.parallel_plan()) {
    const bool tokens = split.tokens && sequence;
    auto& kind = kinds[{split.split, tokens, split.whole_output}];
    if (!kind) kind = make_collective(split.split, tokens, split.whole_output);
    linears.at(split.name)->set_collective(kind);
  }
}

}  // namespace cosmos::trainer
