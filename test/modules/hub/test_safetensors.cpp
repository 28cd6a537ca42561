#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <sys/resource.h>

#include "modules/hub/atomic_file.h"
#include "modules/hub/safetensors.h"
#include "test/modules/hub/hostile.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::error_of;
using cosmos::test::has;
using cosmos::test::memory_folder;
using cosmos::test::raw_file;
using cosmos::test::TempFolder;

namespace {

std::string error_of_file(const TempFolder& folder, const std::string& bytes) {
  write_file(folder / "hostile.safetensors", bytes);
  const std::string error = error_of([&] { load_safetensors(folder / "hostile.safetensors"); });
  CHECK(error.find('\n') == std::string::npos);
  return error;
}

}  // namespace

TEST_CASE("Every dtype of the format survives a round trip bit by bit", "[hub]") {
  TempFolder folder(memory_folder());
  const torch::Dtype dtypes[] = {torch::kFloat64,      torch::kFloat32,       torch::kFloat16,
                                 torch::kBFloat16,     torch::kInt64,         torch::kInt32,
                                 torch::kInt16,        torch::kInt8,          torch::kUInt8,
                                 torch::kBool,         torch::kFloat8_e4m3fn, torch::kFloat8_e5m2,
                                 torch::kUInt16,       torch::kUInt32,        torch::kUInt64,
                                 torch::kComplexFloat, torch::kFloat8_e8m0fnu};
  TensorMap tensors;
  for (const auto dtype : dtypes) {
    Tensor x = torch::empty({3, 5}, dtype);
    auto* bytes = static_cast<uint8_t*>(x.data_ptr());
    for (std::size_t i = 0; i < x.nbytes(); ++i)
      bytes[i] = static_cast<uint8_t>(dtype == torch::kBool ? i % 2 : i * 37 + 11);
    tensors[std::string("t.") + c10::toString(dtype)] = x;
  }
  tensors["scalar"] = torch::tensor(2.5);
  tensors["empty"] = torch::empty({0, 7});
  save_safetensors(folder / "x.safetensors", tensors, {{"note", "héllo"}});

  SafetensorsFile file(folder / "x.safetensors");
  CHECK(file.metadata() == Metadata{{"format", "pt"}, {"note", "héllo"}});
  const TensorMap loaded = file.tensors();
  REQUIRE(loaded.size() == tensors.size());
  for (const auto& [name, expected] : tensors) {
    INFO(name);
    const Tensor& got = loaded.at(name);
    REQUIRE(got.scalar_type() == expected.scalar_type());
    REQUIRE(got.sizes() == expected.sizes());
    if (expected.numel() > 0)  // else there is no pointer to compare at
      CHECK(std::memcmp(got.data_ptr(), expected.data_ptr(), expected.nbytes()) == 0);
  }
}

TEST_CASE("Loaded tensors outlive the file object and never write back", "[hub]") {
  TempFolder folder(memory_folder());
  save_safetensors(folder / "x.safetensors", {{"a", torch::arange(6.0).reshape({2, 3}).t()}});
  Tensor a;
  {
    SafetensorsFile file(folder / "x.safetensors");
    a = file.get("a");
    CHECK(a.data_ptr() == file.get("a").data_ptr());  // zero-copy: both see the mapping
  }
  a.add_(1);
  CHECK(torch::equal(a, (torch::arange(6.0) + 1).reshape({2, 3}).t()));
  CHECK(torch::equal(load_safetensors(folder / "x.safetensors")["a"],
                     torch::arange(6.0).reshape({2, 3}).t()));
}

TEST_CASE("A tensor at an unaligned offset is copied, not misread", "[hub]") {
  TempFolder folder(memory_folder());
  const float values[] = {1.5f, -2.0f};
  const std::string data("\x01", 1);
  const std::string floats(reinterpret_cast<const char*>(values), 8);
  write_file(folder / "u.safetensors",
             raw_file(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})",
                      data + floats));
  const Tensor b = load_safetensors(folder / "u.safetensors")["b"];
  CHECK(reinterpret_cast<uintptr_t>(b.data_ptr()) % 4 == 0);
  CHECK(b[0].item<float>() == 1.5f);
  CHECK(b[1].item<float>() == -2.0f);
}

TEST_CASE("An unknown tensor name gets the nearest as a hint", "[hub]") {
  TempFolder folder(memory_folder());
  save_safetensors(folder / "x.safetensors", {{"proj.weight", torch::zeros({1})}});
  const std::string error =
      error_of([&] { SafetensorsFile(folder / "x.safetensors").get("proj.wieght"); });
  CHECK(has(error, "did you mean proj.weight?"));
}

TEST_CASE("Hostile headers are refused with file and tensor named", "[hub]") {
  TempFolder folder(memory_folder());
  const std::string four(4, '\0');
  const auto entry = [](const std::string& shape, const std::string& offsets) {
    return R"({"w":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  CHECK(has(error_of_file(folder, ""), "too few"));
  CHECK(has(error_of_file(folder, "1234567"), "too few"));
  CHECK(has(error_of_file(folder, raw_file("{}", "", 1ull << 60)), "header claims"));
  CHECK(has(error_of_file(folder, raw_file("{}", "", UINT64_MAX)), "header claims"));
  CHECK(has(error_of_file(folder, raw_file("{}", "", UINT64_MAX - 7)), "header claims"));
  CHECK(has(error_of_file(folder, raw_file("[]", "")), "does not start with '{'"));
  CHECK(has(error_of_file(folder, raw_file("", "")), "does not start with '{'"));
  CHECK(has(error_of_file(folder, raw_file("{\"a\":\n1,", "")), "not valid JSON"));
  CHECK(has(error_of_file(folder, raw_file(entry("[1]", "[0,8]"), four)), "outside"));
  CHECK(has(error_of_file(folder, raw_file(entry("[1]", "[4,0]"), four)), "outside"));
  CHECK(has(error_of_file(folder, raw_file(entry("[1]", "[-4,0]"), four)), "whole numbers"));
  CHECK(has(error_of_file(folder, raw_file(entry("[1.0]", "[0,4]"), four)), "whole numbers"));
  CHECK(
      has(error_of_file(folder, raw_file(entry("[2]", "[0,4]"), four)), "w: shape and dtype need"));
  CHECK(has(error_of_file(folder, raw_file(entry("[4294967296,4294967296]", "[0,4]"), four)),
            "overflows"));
  CHECK(has(error_of_file(folder, raw_file(entry("[0,9223372036854775807,2]", "[0,0]"), "")),
            "overflows"));
  CHECK(has(error_of_file(folder, raw_file(entry("[1]", "[4,8]"), four + four)), "hole"));
  CHECK(has(error_of_file(folder, raw_file(entry("[1]", "[0,4]"), four + four)), "no tensor"));
  CHECK(has(error_of_file(folder, raw_file(entry("[1]", "[0,NaN]"), four)), "not valid JSON"));
  CHECK(has(error_of_file(folder, raw_file(entry("[1]", "[0,1e999]"), four)), "number overflow"));
  CHECK(has(error_of_file(
                folder, raw_file(R"({"w":{"dtype":"F4","shape":[1],"data_offsets":[0,4]}})", four)),
            "dtype F4 is not supported"));
  CHECK(
      has(error_of_file(folder, raw_file(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                         R"("w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                                         four)),
          "appears twice"));
  CHECK(
      has(error_of_file(folder, raw_file(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                         R"("b":{"dtype":"F16","shape":[2],"data_offsets":[2,6]}})",
                                         four + "12")),
          "overlaps"));
  CHECK(has(error_of_file(folder, raw_file(R"({"__metadata__":{"a":1}})", "")), "__metadata__.a"));
  CHECK(has(error_of_file(folder, raw_file(R"({"a\nb":1})", "")), "a\\x0ab: expected exactly"));
  CHECK(has(error_of_file(folder, raw_file("{\"a\":" + std::string(100000, '[') + "}", "")),
            "deeper"));
}

TEST_CASE("Truncating a valid file anywhere gives an error, never a tensor", "[hub]") {
  TempFolder folder(memory_folder());
  save_safetensors(folder / "x.safetensors",
                   {{"a", torch::arange(5.0)}, {"b", torch::ones({3}, torch::kBFloat16)}});
  const std::string bytes = read_file(folder / "x.safetensors", 1 << 20);
  for (std::size_t size = 0; size < bytes.size(); ++size)
    CHECK(!error_of_file(folder, bytes.substr(0, size)).empty());
  CHECK(error_of_file(folder, bytes).empty());
}

TEST_CASE("Pipes, folders and missing files are refused", "[hub]") {
  TempFolder folder(memory_folder());
  CHECK(has(error_of([&] { load_safetensors(folder.path()); }), "expected a regular file"));
  CHECK(has(error_of([&] { load_safetensors(folder / "none"); }), "cannot open"));
  CHECK(has(error_of([&] { save_safetensors(folder.path(), TensorMap{}); }), "is a folder"));
}

TEST_CASE("A write that fails leaves the old file and nothing else", "[hub]") {
  TempFolder folder(memory_folder());
  save_safetensors(folder / "x.safetensors", {{"a", torch::ones({2})}});
  // A file-size limit fails the write as a full disk does.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  rlimit small = old;
  small.rlim_cur = 1 << 16;
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string error = error_of([&] {
    save_safetensors(folder / "x.safetensors", {{"a", torch::zeros({1 << 16})}});
  });
  setrlimit(RLIMIT_FSIZE, &old);
  CHECK(has(error, "cannot write"));
  CHECK(load_safetensors(folder / "x.safetensors")["a"].numel() == 2);
  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path()))
    ++files;
  CHECK(files == 1);
}
