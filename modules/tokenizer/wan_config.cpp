#include "modules/tokenizer/wan_config.h"

namespace cosmos::modules {

void WanVaeConfig::check(const std::string& where) const {
  require(base_dim >= 1 && z_dim >= 1 && num_res_blocks >= 1, where,
          ": base_dim, z_dim and num_res_blocks must be at least 1");
  require(!dim_mult.empty(), where, ": dim_mult: expected at least one level");
  for (int64_t mult : dim_mult)
    require(mult >= 1, where, ": dim_mult: ", mult, " is not a multiple");
  require(temperal_downsample.size() + 1 == dim_mult.size(), where,
          ": temperal_downsample: expected ", dim_mult.size() - 1,
          " values (one fewer than dim_mult), got ", temperal_downsample.size());
  require(patch() >= 1, where, ": patch_size: expected at least 1, got ", patch());
  require(in_channels % (patch() * patch()) == 0 && out_channels % (patch() * patch()) == 0, where,
          ": in_channels and out_channels count patches: multiples of ", patch() * patch(),
          " expected, got ", in_channels, " and ", out_channels);
  require(dropout >= 0 && dropout < 1, where, ": dropout: expected a value in [0, 1), got ",
          dropout);
}

LatentStats WanVaeConfig::default_stats() {
  return {.mean = {{-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134,
                    -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921}},
          .std = {{2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526,
                   2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160}}};
}

}  // namespace cosmos::modules
