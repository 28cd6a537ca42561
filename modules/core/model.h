#pragma once

// Base class of every model with a config.json: what the registry builds, the trainer trains and
// cosmos-forward runs.

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "modules/core/parallel_plan.h"
#include "modules/core/run_block.h"
#include "modules/core/tensor.h"
#include "modules/core/token_plan.h"

namespace cosmos {
using Json = nlohmann::json;
}

namespace cosmos::modules {

class Model : public torch::nn::Module {
 public:
  /// `_class_name` (diffusers) or the first of `architectures` (transformers) in config.json.
  virtual std::string class_name() const = 0;

  /// The config as config.json holds it: HF keys and defaults, keys we do not know kept.
  virtual Json config_json() const = 0;

  /// Calls `method` ("forward", "encode", "decode") with tensors named as the HF class names its
  /// arguments and returns tensors named as its output fields. Scalars are 1-element tensors.
  /// Throws Error on a missing, unknown or badly shaped input.
  virtual TensorMap run(const std::string& method, const TensorMap& inputs) = 0;

  /// Key under which a registered parameter or buffer stands in an HF file. The identity unless the
  /// file spells it otherwise; one table beside the model maps both ways.
  virtual std::string file_key(const std::string& name) const { return name; }

  /// The tensors of a foreign file under file_key()'s spelling and in the shapes registered here:
  /// older names, weights that a file splits or transposes.
  virtual TensorMap from_file(TensorMap tensors) const { return tensors; }
  /// Tensors by file_key() as save_pretrained writes them: where it splits what is one here.
  virtual TensorMap to_file(TensorMap tensors) const { return tensors; }

  /// Whether this parameter or buffer stays float32 when the model runs in bfloat16
  /// (`_keep_in_fp32_modules` of the HF class).
  virtual bool keeps_float32(const std::string& name) const { return false; }

  /// Installed by the trainer; null means plain calls.
  void set_block_runner(std::shared_ptr<BlockRunner> runner) { block_runner_ = std::move(runner); }
  const std::shared_ptr<BlockRunner>& block_runner() const { return block_runner_; }
  /// Installed by the trainer; by default this process holds all tokens. Models that do not split
  /// theirs (splits_tokens()) ignore it.
  void set_token_plan(std::shared_ptr<const TokenPlan> plan) { token_plan_ = std::move(plan); }
  /// Paths of the blocks in the order in which forward runs them, each once, when forward may be
  /// cut between any two: what lies between must be views of their outputs. Empty: it may not.
  virtual std::vector<std::string> block_order() const { return {}; }
  /// Whether the model scatters, gathers and attends through its token plan.
  virtual bool splits_tokens() const { return false; }
  /// Whether it scatters and gathers through it, its attention seeing the tokens that the products
  /// before it give: enough for sequence parallelism, not for context parallelism.
  virtual bool gathers_tokens() const { return splits_tokens(); }
  /// Whether the Linear at this path is given tokens that the token plan splits (rather than text,
  /// times, or what is whole again): adapters draw masks over whole inputs.
  virtual bool reads_tokens(const std::string& linear) const {
    fail(class_name(), ": does not say whether ", linear, " reads tokens that ranks split");
  }
  /// Which Linears tensor parallelism splits, and how; empty: the model has no such plan.
  virtual ParallelPlan parallel_plan() const { return {}; }

 protected:
  Tensors run_block(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
                    const BlockFn& fn) {
    return block_runner_ ? block_runner_->run(name, block, inputs, fn) : fn(inputs);
  }
  const std::shared_ptr<const TokenPlan>& tokens() const { return token_plan_; }

 private:
  std::shared_ptr<BlockRunner> block_runner_;
  std::shared_ptr<const TokenPlan> token_plan_ = std::make_shared<TokenPlan>();
};

}  // namespace cosmos::modules
