#include "modules/hub/fp8_weights.h"

#include <algorithm>

#include "modules/core/linear.h"
#include "ops/fp8/fp8_quantize.h"

namespace cosmos::modules {
namespace {

constexpr double kLargest = ops::fp8_largest(at::kFloat8_e4m3fn);

Json round_to(const char* strategy, bool dynamic) {
  return {{"num_bits", 8},
          {"type", "float"},
          {"symmetric", true},
          {"group_size", nullptr},
          {"strategy", strategy},
          {"dynamic", dynamic},
          {"observer", dynamic ? Json() : Json("minmax")}};
}

Json quantization_config(const std::vector<std::string>& kept) {
  Json ignore = Json::array();
  for (const auto& part : kept) ignore.push_back("re:.*" + part + ".*");
  return {{"quant_method", "compressed-tensors"},
          {"format", "float-quantized"},
          {"quantization_status", "compressed"},
          {"ignore", ignore},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}},
              {"weights", round_to("channel", false)},
              {"input_activations", round_to("token", true)},
              {"output_activations", nullptr}}}}}};
}

}  // namespace

Fp8Weights fp8_weights(const Model& model, TensorMap tensors,
                       const std::vector<std::string>& kept) {
  for (const auto& item : model.named_parameters())
    require(item.key().find(".experts.") == std::string::npos, model.class_name(), ": ", item.key(),
            " holds all experts as one tensor, which cannot be kept in FP8");
  Fp8Weights out{.tensors = std::move(tensors), .config = quantization_config(kept)};
  for (const auto& [name, linear] : named_linears(model)) {
    const auto holds = [&name = name](const std::string& part) {
      return name.find(part) != std::string::npos;
    };
    if (std::any_of(kept.begin(), kept.end(), holds)) continue;
    const std::string key = model.file_key(name + ".weight");
    Tensor& weight = out.tensors.at(key);
    const Tensor wide = weight.to(torch::kFloat32);
    // The scale as the file has it, so that rounding is undone by the same number.
    const Tensor scale =
        (wide.abs().amax(1, /*keepdim=*/true) / kLargest).clamp_min(1e-12).to(weight.scalar_type());
    weight =
        (wide / scale.to(torch::kFloat32)).clamp(-kLargest, kLargest).to(torch::kFloat8_e4m3fn);
    out.tensors[key + "_scale"] = scale;
    ++out.rounded;
  }
  require(out.rounded > 0, model.class_name(), ": has no products to keep in FP8");
  return out;
}

}  // namespace cosmos::modules
