#pragma once

// What every tokenizer's networks do: a tensor goes from block to block, each called through
// Model::run_block under its registered name.

#include <string>

#include "modules/tokenizer/video_tokenizer.h"

namespace cosmos::modules {

/// walk.through("conv_in", *conv_in_, cache) is x = conv_in_->forward(x, cache).
class Walk {
 public:
  /// `side` stands before every name: "encoder.", or "" for the tokenizer's own blocks.
  Walk(const BlockCall& call, std::string side, Tensor x)
      : call_(call), side_(std::move(side)), x_(std::move(x)) {}

  template <typename Block, typename... More>
  Walk& through(const std::string& name, Block& block, More... more) {
    return by(name, block, [&](const Tensor& x) { return block.forward(x, more...); });
  }

  /// Every block of a list of `Block`s: name.0, name.1, ...
  template <typename Block, typename... More>
  Walk& through_all(const std::string& name, torch::nn::ModuleListImpl& blocks, More... more) {
    for (std::size_t i = 0; i < blocks.size(); ++i)
      through(name + "." + std::to_string(i), blocks.at<Block>(i), more...);
    return *this;
  }

  /// x = fn(x), with `block`'s parameters.
  template <typename Fn>
  Walk& by(const std::string& name, torch::nn::Module& block, const Fn& fn) {
    x_ = call_(side_ + name, block, x_, fn);
    return *this;
  }

  const Tensor& result() const { return x_; }

 private:
  const BlockCall& call_;
  std::string side_;
  Tensor x_;
};

}  // namespace cosmos::modules
