// Files of torch.save, TorchScript and torch.distributed.checkpoint: what is read, and what is
// refused before it can do harm.

#include <catch2/catch.hpp>
#include <fstream>
#include <torch/csrc/jit/api/module.h>

#include "modules/hub/atomic_file.h"
#include "modules/hub/pytorch_file.h"
#include "modules/hub/safetensors.h"
#include "test/modules/hub/hostile.h"
#include "test/modules/hub/pickled.h"

using namespace cosmos;
using namespace cosmos::modules;
using namespace cosmos::test;

namespace {

void put(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

const std::string kZero(1, '\0');
const ZipEntry kSix{"archive/data/0", float_bytes({0, 1, 2, 3, 4, 5})};

struct Fixture {
  TempFolder folder;
  std::filesystem::path path = folder / "x.pt";

  WeightSource read(const std::string& bytes) {
    put(path, bytes);
    return open_weights(path);
  }
  /// The one line with which `bytes` are refused.
  std::string refusal(const std::string& bytes) {
    put(path, bytes);
    const std::string error = error_of([&] {
      for (const auto& [name, tensor] : open_weights(path).tensors) tensor.read();
    });
    CHECK(error.find('\n') == std::string::npos);
    CHECK((error.empty() || error.find("x.pt") != std::string::npos));
    return error;
  }
};

}  // namespace

TEST_CASE("What is written as torch.save does is read back bit for bit", "[hub][pickle]") {
  Fixture f;
  const TensorMap tensors = {{"a.weight", torch::randn({3, 4})},
                             {"a.half", torch::randn({5}).to(torch::kBFloat16)},
                             {"strided", torch::randn({4, 6}).t()},
                             {"flags", torch::randn({7}) > 0},
                             {"scalar", torch::tensor(7, torch::kInt64)},
                             {"empty", torch::zeros({0, 3})}};
  save_pytorch_file(f.path, lazy_tensors(tensors));
  const WeightSource source = open_weights(f.path);
  REQUIRE(source.tensors.size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const Tensor read = source.tensors.at(name).read();
    CHECK(read.dtype() == tensor.dtype());
    CHECK(torch::equal(read, tensor));
  }
}

TEST_CASE("Containers become dotted names, views stay views, the rest is listed", "[hub][pickle]") {
  Fixture f;
  PickleText p;
  p.raw("}(").string("model").raw("}(").string("w").tensor("0", 6, {2, 3}, {3, 1});
  p.string("column").tensor("0", 6, {2}, {3}, 1).raw("u");
  p.string("list").raw("](").tensor("0", 6, {1}, {1}, 5).raw("e");
  p.string("iteration").integer(-7).string("state").global("_io", "BytesIO").raw(")\x81(");
  p.raw(
       "C\x02"
       "abK")
      .raw(kZero)
      .raw("Ntbu");
  const WeightSource source = f.read(torch_file(p.stop(), {kSix}));
  CHECK(source.format == "PyTorch file");
  CHECK(torch::equal(source.tensors.at("model.w").read(), torch::arange(6.0f).reshape({2, 3})));
  CHECK(torch::equal(source.tensors.at("model.column").read(), torch::tensor({1.0f, 4.0f})));
  CHECK(torch::equal(source.tensors.at("list.0").read(), torch::tensor({5.0f})));
  CHECK(source.tensors.size() == 3);
  CHECK(source.others.at("iteration") == "the integer -7");
  CHECK(source.others.at("state") == "a record _io.BytesIO");
}

TEST_CASE("A loaded tensor shares the file and never writes to it", "[hub][pickle]") {
  Fixture f;
  const TensorMap before = {{"w", torch::randn({1000})}};
  save_pytorch_file(f.path, lazy_tensors(before));
  const WeightSource source = open_weights(f.path);
  const Tensor a = source.tensors.at("w").read(), b = source.tensors.at("w").read();
  CHECK(a.data_ptr() == b.data_ptr());
  a.zero_();
  CHECK(torch::equal(open_weights(f.path).tensors.at("w").read(), before.at("w")));
}

TEST_CASE("TorchScript archives give their parameters, and their code stays unread",
          "[hub][pickle]") {
  Fixture f;
  torch::jit::Module inner("Inner"), outer("Outer");
  inner.register_parameter("weight", torch::randn({3, 2}), false);
  outer.register_module("layer", inner);
  outer.register_buffer("mean", torch::randn({4}));
  outer.register_attribute("scales", c10::ListType::ofInts(), c10::List<int64_t>({1, 2}));
  outer.define("def forward(self, x):\n    return x + self.mean\n");
  outer.save(f.path.string());
  const WeightSource source = open_weights(f.path);
  CHECK(source.format == "TorchScript archive");
  CHECK(source.tensors.size() == 2);
  CHECK(torch::equal(source.tensors.at("layer.weight").read(), inner.attr("weight").toTensor()));
  CHECK(torch::equal(source.tensors.at("mean").read(), outer.attr("mean").toTensor()));
}

TEST_CASE("The stream that torch.save wrote before 1.6 is read", "[hub][pickle]") {
  Fixture f;
  PickleText version, system, object, keys;
  version.integer(1001);
  system.raw("}").string("little_endian").raw("\x88s");
  object.raw("}").string("w").global("torch._utils", "_rebuild_tensor_v2").raw("((");
  object.string("storage").global("torch", "FloatStorage").string("k1").string("cpu").integer(6);
  object.raw("NtQ").integer(0).sizes({2, 3}).sizes({3, 1}).raw("\x89");
  object.global("collections", "OrderedDict").raw(")RtRs");
  keys.raw("]").string("k1").raw("a");
  const std::string magic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  const std::string head = magic + version.stop() + system.stop() + object.stop() + keys.stop();
  const std::string data = float_bytes({0, 1, 2, 3, 4, 5});
  CHECK(torch::equal(f.read(head + little(6, 8) + data).tensors.at("w").read(),
                     torch::arange(6.0f).reshape({2, 3})));
  CHECK(has(f.refusal(head + little(7, 8) + data), "reaches beyond the file"));
  CHECK(has(f.refusal(head + little(5, 8) + data.substr(4)), "has 20 bytes, its pickle says 24"));
  CHECK(has(f.refusal(head + little(6, 8) + data + "x"), "belong to no storage"));
}

TEST_CASE("A pickle that would run code is refused by name", "[hub][pickle]") {
  Fixture f;
  const auto calls = [&](const std::string& module, const std::string& name) {
    const std::filesystem::path victim = f.folder / "victim";
    PickleText p;
    p.global(module, name).raw("(").string("touch " + victim.string()).raw("tR");
    const std::string error = f.refusal(torch_file(p.stop()));
    CHECK(!std::filesystem::exists(victim));
    return error;
  };
  CHECK(has(calls("posix", "system"), "asks for posix.system"));
  CHECK(has(calls("os", "system"), "asks for os.system"));
  CHECK(has(calls("builtins", "eval"), "asks for builtins.eval"));
  CHECK(has(calls("builtins", "getattr"), "asks for builtins.getattr"));
  CHECK(has(calls("torch", "load"), "asks for torch.load"));
  CHECK(has(calls("torch.serialization", "load"), "asks for torch.serialization.load"));
  // A class of TorchScript outside of a TorchScript archive.
  CHECK(has(calls("__torch__", "M"), "asks for __torch__.M"));
  // By the opcodes of protocol 4, of protocol 0, and by an extension code.
  PickleText stack;
  stack.string("posix").string("system").raw("\x93").raw(")R");
  CHECK(has(f.refusal(torch_file(stack.stop())), "asks for posix.system"));
  CHECK(has(f.refusal(torch_file("\x80\x02iposix\nsystem\n.")), "opcode 105"));
  CHECK(has(f.refusal(torch_file("\x80\x02\x82\x01.")), "opcode 130"));
  // A known class called as what it is not.
  PickleText size;
  size.global("torch", "FloatStorage").raw(")R");
  CHECK(has(f.refusal(torch_file(size.stop())), "the pickle calls the class torch.FloatStorage"));
  CHECK(has(f.refusal("\x80\x02"
                      "cposix\nsystem\n.      "),
            "a bare pickle"));
}

TEST_CASE("Containers that contain themselves and towers of them are refused", "[hub][pickle]") {
  Fixture f;
  CHECK(
      has(f.refusal(torch_file(PickleText().raw("]q").raw(kZero).raw("h").raw(kZero + "a").stop())),
          "contains itself"));
  CHECK(has(f.refusal(torch_file(PickleText()
                                     .raw("}q")
                                     .raw(kZero)
                                     .string("k")
                                     .raw(std::string("h") + kZero + "s")
                                     .stop())),
            "contains itself"));
  PickleText tower;
  for (int i = 0; i < 200; ++i) tower.raw("]");
  for (int i = 1; i < 200; ++i) tower.raw("a");
  CHECK(has(f.refusal(torch_file(tower.stop())), "nested beyond"));
  // A billion laughs: 40 lists of ten times the list before.
  PickleText laughs;
  laughs.raw("]q").raw(kZero);
  for (int i = 0; i < 40; ++i) {
    laughs.raw("](");
    for (int k = 0; k < 10; ++k) laughs.raw("h").raw(std::string(1, static_cast<char>(i)));
    laughs.raw("eq").raw(std::string(1, static_cast<char>(i + 1)));
  }
  for (int i = 0; i < 40; ++i) laughs.raw("\x86");
  CHECK(has(f.refusal(torch_file(laughs.stop())), "more than 1000000 values"));
  // One long text, copied from the memo over and over.
  PickleText copies;
  copies.raw("(").global("_codecs", "encode").raw("q").raw(kZero);
  copies.string(std::string(1 << 20, 'x')).string("latin1").raw("\x86q\x01").raw("R");
  for (int i = 0; i < 100; ++i) copies.raw("h").raw(kZero).raw("h\x01").raw("R");
  CHECK(has(f.refusal(torch_file(copies.raw("t").stop())), "copies itself"));
}

TEST_CASE("Views that reach beyond their storage are refused", "[hub][pickle]") {
  Fixture f;
  const auto view = [&](const std::vector<int64_t>& shape, const std::vector<int64_t>& stride,
                        int64_t offset = 0, int64_t elements = 6) {
    PickleText p;
    p.raw("}").string("w").tensor("0", elements, shape, stride, offset).raw("s");
    return f.refusal(torch_file(p.stop(), {kSix}));
  };
  CHECK(view({2, 3}, {3, 1}) == "");
  CHECK(has(view({2, 3}, {3, 1}, 1), "reaches beyond the 6 elements"));
  CHECK(has(view({7}, {1}), "reaches beyond"));
  CHECK(has(view({2}, {6}), "reaches beyond"));
  CHECK(has(view({1'000'000'000'000}, {0}), "reaches beyond"));  // would be written out whole
  CHECK(has(view({1ll << 40, 1ll << 40}, {1, 1}), "overflows"));
  CHECK(has(view({3}, {1ll << 58}), "overflow"));
  CHECK(has(view({-1}, {1}), "expected a size"));
  CHECK(has(view({2}, {1}, -1), "expected a size"));
  CHECK(has(view({2, 3}, {1}), "2 dimensions with 1 strides"));
  CHECK(has(view({7}, {1}, 0, 7), "has 24 bytes, its pickle says 28"));
  PickleText other;
  other.raw("}").string("w").tensor("../../etc/passwd", 6, {6}, {1}).raw("s");
  CHECK(has(f.refusal(torch_file(other.stop(), {kSix})), "has no entry archive/data/../../etc"));
}

TEST_CASE("Zip archives that lie are refused", "[hub][pickle]") {
  Fixture f;
  PickleText p;
  p.raw("}").string("w").tensor("0", 6, {6}, {1}).raw("s");
  const std::string pickle = p.stop();
  REQUIRE(f.refusal(torch_file(pickle, {kSix})) == "");
  const auto storage = [&](ZipEntry entry) { return f.refusal(torch_file(pickle, {entry})); };
  ZipEntry bomb = kSix;
  bomb.method = 8;
  bomb.claimed_size = 1ll << 31;  // 24 bytes that unfold to 2 GiB
  CHECK(has(storage(bomb), "is compressed"));
  ZipEntry lie = kSix;
  lie.claimed_size = 1000;
  CHECK(has(storage(lie), "is stored, yet claims 24 bytes that unfold to 1000"));
  ZipEntry over = kSix;
  over.claimed_header = 0;  // on data.pkl, as the quine bombs do
  over.local_name = "";
  CHECK(has(storage(over), "says otherwise"));
  const std::string inner = torch_file(pickle);
  CHECK(has(f.refusal(zip_file(
                {{"archive/data.pkl", pickle + inner}, {"archive/data.pkl", "", 0, -1, 0}})),
            "appears twice"));
  CHECK(has(f.refusal(zip_file({{"archive/data.pkl", pickle}, {"b/data.pkl", pickle}})),
            "several data.pkl"));
  CHECK(has(f.refusal(zip_file({{"archive/x", "y"}})), "without data.pkl"));
  CHECK(has(f.refusal(zip_file({{"archive/data.pkl", pickle}, {"archive/byteorder", "big"}})),
            "big-endian"));
  ZipEntry far = kSix;
  far.claimed_header = 1 << 30;
  CHECK(has(storage(far), "where no entry begins"));
  ZipEntry alias = kSix;
  alias.local_name = "archive/data/1";
  CHECK(has(storage(alias), "says otherwise"));
  CHECK(has(f.refusal(torch_file(pickle + "rest", {kSix})), "bytes follow the end"));
}

TEST_CASE("Overlapping zip entries are refused", "[hub][pickle]") {
  Fixture f;
  // The second entry lies inside the first one's data.
  const std::string inside = "PK\x03\x04" + little(20, 2) + little(0, 2) + little(0, 2) +
                             little(0, 8) + little(4, 4) + little(4, 4) + little(1, 2) +
                             little(0, 2) + "b" + "data";
  const uint64_t at = 30 + std::string("archive/data.pkl").size();
  const std::string file =
      zip_file({{"archive/data.pkl", inside}, {"b", "data", 0, -1, static_cast<int64_t>(at)}});
  CHECK(has(f.refusal(file), "b overlaps archive/data.pkl"));
}

TEST_CASE("Every truncation of a PyTorch file is refused in one line", "[hub][pickle]") {
  Fixture f;
  save_pytorch_file(f.path, lazy_tensors({{"w", torch::randn({3})}}));
  const std::string whole = read_file(f.path, 1 << 20);
  for (std::size_t size = 0; size < whole.size(); size += 7)
    CHECK(f.refusal(whole.substr(0, size)) != "");
}
