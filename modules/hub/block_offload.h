#pragma once

// A model whose weights stay in its folder's files: each block's come in when it runs and go when
// it is done, so that what is held is one block, and the next, which is read ahead.
//
//   auto model = load_model(dir, {.dtype = torch::kBFloat16, .offload = true});
//
// On a CPU weights that the file has in the wanted dtype are not copied at all: a block computes on
// the mapped file, whose pages are asked for ahead and are the first to go when memory is short.
// Others are converted by a thread of its own. On a device they wait in pinned memory and are
// copied on a stream of its own. The numbers are those of the whole model, bit for bit. For calls
// without gradients.

#include <future>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "modules/hub/registry.h"

namespace cosmos::modules {

class BlockOffload : public BlockRunner {
 public:
  /// Takes the parameters' bytes away. `tensors`: the weights by file key, as load_weights takes
  /// them, and with its errors. Buffers are read at once and stay.
  BlockOffload(Model& model, const TensorMap& tensors, const std::string& where,
               const LoadOptions& options);
  ~BlockOffload() override;

  Tensors run(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
              const BlockFn& fn) override;

 private:
  struct Source {
    Tensor file;                   ///< mapped, or pinned where the model is on a device
    torch::TensorOptions options;  ///< wanted
    Tensor absent;                 ///< what the parameter is while it is not there
  };
  using Weights = std::vector<std::pair<Tensor, Tensor>>;  ///< parameter, value

  Weights fetch(torch::nn::Module& block) const;
  Weights take(const std::string& name, torch::nn::Module& block);
  void read_ahead(const std::string& name);
  void let_go(const Weights& weights) const;

  std::map<const c10::TensorImpl*, Source> sources_;
  torch::Device device_;
  std::map<std::string, torch::nn::Module*> blocks_;
  std::map<std::string, std::string> next_;  ///< the block that ran after
  std::string first_, last_;
  std::string ahead_name_;
  std::future<Weights> ahead_;
};

}  // namespace cosmos::modules
