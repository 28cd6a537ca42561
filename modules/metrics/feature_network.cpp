#include "modules/metrics/feature_network.h"

#include <torch/script.h>

namespace cosmos::modules {

struct FeatureNetwork::Network {
  std::string where;
  torch::jit::Module module;

  bool takes(const std::string& argument) {
    for (const auto& known : module.get_method("forward").function().getSchema().arguments())
      if (known.name() == argument) return true;
    return false;
  }
};

FeatureNetwork::FeatureNetwork(const std::filesystem::path& file)
    : network_(std::make_unique<Network>()) {
  network_->where = file.string();
  require(std::filesystem::is_regular_file(file), file.string(), ": no such file");
  try {
    network_->module = torch::jit::load(file.string(), torch::kCPU);
    network_->module.get_method("forward");
  } catch (const c10::Error&) {
    fail(file.string(), ": expected a TorchScript file with a forward()");
  }
  network_->module.eval();
}

FeatureNetwork::~FeatureNetwork() = default;

Tensor FeatureNetwork::run(const Tensor& x, const std::vector<const char*>& switches) {
  const torch::NoGradGuard no_grad;
  std::unordered_map<std::string, torch::IValue> options;
  for (const char* name : switches)
    if (network_->takes(name)) options[name] = true;
  torch::IValue result;
  try {
    result = network_->module.get_method("forward")({x}, options);
  } catch (const std::exception& error) {
    const std::string text = error.what();
    fail(network_->where, ": cannot read ", x.sizes(), ": ", text.substr(0, text.find('\n')));
  }
  require(
      result.isTensor() && result.toTensor().dim() >= 2 && result.toTensor().size(0) == x.size(0),
      network_->where, ": expected one row of features for each of ", x.size(0), " samples, got ",
      result.isTensor() ? c10::str(result.toTensor().sizes()) : "no tensor");
  return result.toTensor().flatten(1);
}

Tensor FeatureNetwork::features(const Tensor& x) {
  if (x.dim() == 5) return run(x, {"return_features", "rescale", "resize"});
  return run(x, {"return_features"});
}

Tensor FeatureNetwork::lpips_features(const Tensor& x) {
  require(network_->takes("return_lpips"), network_->where,
          ": its forward() has no return_lpips (expected a network such as NVIDIA's vgg16.pt)");
  return run(x, {"return_lpips"});
}

}  // namespace cosmos::modules
