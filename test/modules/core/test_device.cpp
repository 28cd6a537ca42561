#include <catch2/catch.hpp>
#include <torch/cuda.h>

#include "modules/core/device.h"

using namespace cosmos;
using namespace cosmos::modules;
using Catch::Contains;

TEST_CASE("a device setting names what is there, or is refused with the place", "[core]") {
  CHECK(choose_device("cpu", "x").is_cpu());
  CHECK_THROWS_WITH(choose_device("gpu", "run.json: trainer.device"),
                    Contains("run.json: trainer.device: expected auto, cpu, cuda or cuda:N") &&
                        Contains("\"gpu\""));
  CHECK_THROWS_WITH(choose_device("cuda:x", "x"), Contains("expected auto"));
  const auto gpus = static_cast<int64_t>(torch::cuda::device_count());
  if (gpus == 0) {
    CHECK(choose_device("auto", "x").is_cpu());
    CHECK_THROWS_WITH(choose_device("cuda", "x"), Contains("no GPU here"));
  } else {
    CHECK(choose_device("auto", "x").is_cuda());
    CHECK_THROWS_WITH(choose_device("cuda", "x", gpus), Contains("this machine shows"));
  }
}

TEST_CASE("a tensor comes to a device as it was", "[core]") {
  const Tensor x = torch::arange(6).view({2, 3});
  CHECK(torch::equal(to_device(x, torch::kCPU), x));
  CHECK(peak_device_bytes(torch::kCPU) == 0);
}
