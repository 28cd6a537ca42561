// Weights in the pages of their files: where they lie, what they compute, what they count.

#include <c10/core/alignment.h>
#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>

#include "modules/hub/mapped_file.h"
#include "modules/hub/mapped_weights.h"
#include "modules/hub/model_weights.h"
#include "ops/core/peak_memory.h"
#include "test/modules/hub/hostile.h"
#include "test/support/tiny_model.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::error_of;
using cosmos::test::has;
using cosmos::test::raw_file;
using cosmos::test::TempFolder;
using cosmos::test::TinyModel;

namespace {

constexpr uint64_t kMost = 1 << 24;  // bytes of the file

// One tensor of the file is read for two places that are not tied.
class SharingModel : public TinyModel {
 public:
  using TinyModel::TinyModel;
  TensorMap from_file(TensorMap tensors) const override {
    tensors["blocks.1.to_k.weight"] = tensors["blocks.0.to_k.weight"];
    return tensors;
  }
};

// A folder with a saved model.
struct Saved {
  explicit Saved(torch::Dtype dtype = torch::kFloat32, int64_t dim = 16) {
    register_model("TinyModel", [](const Json& config, const std::string&) {
      return std::make_shared<TinyModel>(config);
    });
    torch::manual_seed(5);
    model = test::tiny_model({{"dim", dim}});
    save_model(dir.path(), *model, {.dtype = dtype});
  }
  std::filesystem::path file() const { return dir / "diffusion_pytorch_model.safetensors"; }

  TempFolder dir;
  std::shared_ptr<TinyModel> model;
};

// The path of what is mapped at `tensor`'s bytes, as the kernel tells it.
std::string file_under(const Tensor& tensor) {
  const auto at = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    std::istringstream fields(line);
    fields >> std::hex >> begin >> dash >> end;
    if (at >= begin && at < end)
      return line.find('/') == std::string::npos ? "" : line.substr(line.find('/'));
  }
  return "";
}

Tensor output(Model& model) {
  torch::manual_seed(6);
  const torch::NoGradGuard no_grad;
  const int64_t dim = model.named_parameters()["tied"].numel();
  return model.run("forward", {{"x", torch::randn({5, dim})}}).at("sample").to(torch::kFloat32);
}

std::vector<std::pair<std::string, Tensor>> weights_of(Model& model) {
  std::vector<std::pair<std::string, Tensor>> all;
  for (const auto& item : model.named_parameters()) all.emplace_back(item.key(), item.value());
  for (const auto& item : model.named_buffers()) all.emplace_back(item.key(), item.value());
  return all;
}

// Bytes that are held of what `make` makes, as a meter counts them; and after it has gone.
template <typename Make>
std::pair<int64_t, int64_t> counted(Make make) {
  const auto meter = std::make_shared<MemoryMeter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  const auto now = [&] { return meter->lap(), meter->lap(); };
  auto made = make();
  const int64_t held = now();
  made.reset();
  return {held, now()};
}

}  // namespace

TEST_CASE("Mapped weights are the file's pages, and compute what copies do", "[hub][mapped]") {
  const Saved saved;
  const auto copied = load_model(saved.dir.path());
  const auto mapped = load_model(saved.dir.path(), {.mapped = true});
  int64_t there = 0;
  for (const auto& [name, weight] : weights_of(*mapped)) {
    INFO(name);
    const auto offset = reinterpret_cast<uintptr_t>(weight.const_data_ptr()) % c10::gAlignment;
    if (name != "mean") CHECK(offset == 0);  // that lies behind 12 bytes of head.bias
    CHECK(file_under(weight) == std::filesystem::canonical(saved.file()).string());
    ++there;
  }
  CHECK(there == 16);
  CHECK_FALSE(mapped->is_training());
  CHECK(mapped->named_parameters()["tied"].is_same(mapped->named_parameters()["blocks.0.norm"]));
  for (const auto& [name, weight] : weights_of(*copied)) CHECK(file_under(weight).empty());
  CHECK(output(*mapped).equal(output(*copied)));
}

TEST_CASE("What the file has in another dtype is converted", "[hub][mapped]") {
  const Saved saved(torch::kBFloat16);
  for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
    const auto copied = load_model(saved.dir.path(), {.dtype = dtype});
    const auto mapped = load_model(saved.dir.path(), {.dtype = dtype, .mapped = true});
    const auto other = copied->named_parameters();
    for (const auto& weight : mapped->named_parameters()) {
      INFO(weight.key());
      CHECK(weight.value().scalar_type() == other[weight.key()].scalar_type());
      CHECK(weight.value().equal(other[weight.key()]));
      const bool kept = mapped->keeps_float32(weight.key());  // float32 in the file too
      if (dtype == torch::kFloat32) CHECK(file_under(weight.value()).empty() != kept);
    }
    if (dtype == torch::kBFloat16)
      CHECK_FALSE(file_under(mapped->named_parameters()["head.weight"]).empty());
  }
}

TEST_CASE("Where a file's tensors begin changes no bit", "[hub][mapped]") {
  const Saved saved(torch::kFloat32, 96);
  const Tensor expected = output(*load_model(saved.dir.path()));
  const std::string bytes = read_file(saved.file(), kMost);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  for (const std::size_t shift : {1, 2, 4, 8, 16, 24, 32, 40, 48, 56}) {
    INFO(shift);
    const std::string padded = bytes.substr(8, header) + std::string(shift, ' ');
    write_file(saved.file(), raw_file(padded, bytes.substr(8 + header)));
    const auto mapped = load_model(saved.dir.path(), {.mapped = true});
    const bool aligned = shift % 4 == 0;
    for (const auto& [name, weight] : weights_of(*mapped))
      CHECK(file_under(weight).empty() != aligned);
    CHECK(output(*mapped).equal(expected));
  }
}

TEST_CASE("Writing into a mapped weight reaches neither its file nor another weight",
          "[hub][mapped]") {
  const Saved saved;
  const std::string before = read_file(saved.file(), kMost);
  SharingModel sharing(saved.model->config_json());
  load_mapped(sharing, WeightFolder(saved.dir.path()), {});
  const auto weights = sharing.named_parameters();
  const Tensor first = weights["blocks.0.to_k.weight"], second = weights["blocks.1.to_k.weight"];
  CHECK(first.equal(second));
  CHECK(file_under(first) != file_under(second));
  const torch::NoGradGuard no_grad;
  first.fill_(3);
  CHECK(second.max().item<float>() < 3);
  CHECK(read_file(saved.file(), kMost) == before);
}

TEST_CASE("Mapped weights outlive the file's name", "[hub][mapped]") {
  const Saved saved;
  const auto mapped = load_model(saved.dir.path(), {.mapped = true});
  const Tensor expected = output(*mapped);
  save_model(saved.dir.path(), *test::tiny_model({{"dim", 16}}));  // replaced by renaming
  CHECK(output(*mapped).equal(expected));
  CHECK_FALSE(output(*load_model(saved.dir.path())).equal(expected));
  std::filesystem::remove(saved.file());
  CHECK(output(*mapped).equal(expected));
}

TEST_CASE("Mapped weights count as allocated ones", "[hub][mapped]") {
  const Saved saved;
  const auto load = [&](bool mapped) {
    return counted([&] { return load_model(saved.dir.path(), {.mapped = mapped}); });
  };
  load(false);  // what the first load leaves behind
  int64_t bytes = 0;
  for (const BaseTensor& weight : base_tensors(*saved.model))
    bytes += static_cast<int64_t>(weight.tensor.nbytes());
  const auto [copied, copied_after] = load(false);
  const auto [mapped, mapped_after] = load(true);
  CHECK(copied == bytes);
  CHECK(mapped == bytes);
  CHECK(copied_after == 0);
  CHECK(mapped_after == 0);
}

TEST_CASE("A file that is cut short while its pages come in is an error", "[hub][mapped]") {
  const TempFolder dir;
  const std::filesystem::path path = dir / "weights";
  write_file(path, std::string(std::size_t{1} << 20, 'w'));
  const FileBytes bytes = map_file(path, 1, "test");
  const std::string_view all = bytes.view();
  // Neighbours, pieces that overlap in a page, and an empty one.
  bring_in({all.substr(5000, 100), all.substr(0, 5000), all.substr(5100), all.substr(7, 0)}, "DIR");
  CHECK(all.back() == 'w');
  std::filesystem::resize_file(path, 8192);
  CHECK(has(error_of([&] { bring_in({all}, "DIR"); }), "DIR: a weight file has become shorter"));
}
