// Thousands of damaged files, the same ones in every run. Whatever the damage: either the reader
// accepts the file and every byte it promises can be read, or it throws Error with one line. The
// sanitizer build (preset asan) watches the memory meanwhile.

#include <catch2/catch.hpp>
#include <fstream>
#include <functional>
#include <random>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "modules/hub/pytorch_file.h"
#include "modules/hub/safetensors.h"
#include "modules/hub/weight_folder.h"
#include "test/modules/hub/hostile.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::memory_folder;
using cosmos::test::raw_file;
using cosmos::test::TempFolder;

namespace {

using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t n) {
  return n == 0 ? 0 : random() % n;
}

void flip_bits(std::string& bytes, Random& random) {
  for (std::size_t i = 0; i < 1 + below(random, 3) && !bytes.empty(); ++i)
    bytes[below(random, bytes.size())] ^= static_cast<char>(1 << below(random, 8));
}

void truncate(std::string& bytes, Random& random) {
  bytes.resize(below(random, bytes.size() + 1));
}

void set_length(std::string& bytes, Random& random) {
  static constexpr uint64_t kLengths[] = {
      0, 1, 7, 8, 100, 1ull << 31, 1ull << 32, 1ull << 60, 1ull << 63, UINT64_MAX, UINT64_MAX - 7};
  uint64_t length = kLengths[below(random, std::size(kLengths))];
  if (below(random, 2) == 0) length = bytes.size() - below(random, bytes.size());
  if (bytes.size() >= 8) std::memcpy(bytes.data(), &length, 8);
}

// Puts a token that matters to JSON or to the format where another text stood.
void splice(std::string& bytes, Random& random) {
  static const std::string kTokens[] = {"\"",
                                        "{",
                                        "}",
                                        "[",
                                        "]",
                                        ",",
                                        ":",
                                        "\\",
                                        "\\u0000",
                                        "\xff",
                                        "NaN",
                                        "-1",
                                        "1e99",
                                        "1e999",
                                        "null",
                                        "0",
                                        "4",
                                        "18446744073709551615",
                                        "18446744073709551616",
                                        "9223372036854775807",
                                        "\"F64\"",
                                        "\"BOOL\"",
                                        "\"data_offsets\"",
                                        "\"__metadata__\"",
                                        "\"shape\"",
                                        "../../etc/passwd",
                                        "[[[[[[[["};
  const std::size_t at = below(random, bytes.size() + 1);
  bytes.replace(at, below(random, std::min<std::size_t>(12, bytes.size() - at) + 1),
                kTokens[below(random, std::size(kTokens))]);
}

void duplicate_part(std::string& bytes, Random& random) {
  const std::size_t at = below(random, bytes.size());
  bytes.insert(below(random, bytes.size() + 1), bytes.substr(at, below(random, 64)));
}

std::string damaged(std::string bytes, Random& random) {
  using Mutation = void (*)(std::string&, Random&);
  static constexpr Mutation kMutations[] = {flip_bits, truncate, set_length,
                                            splice,    splice,   duplicate_part};
  for (std::size_t i = 0; i <= below(random, 3); ++i)
    kMutations[below(random, std::size(kMutations))](bytes, random);
  return bytes;
}

// A header edit with the length field put right again: reaches the checks behind it.
std::string damaged_header(const std::string& bytes, Random& random) {
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), 8);
  std::string header = bytes.substr(8, size);
  splice(header, random);
  return raw_file(header, bytes.substr(8 + size));
}

// No fsync: thousands of files.
void put(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

uint64_t touch(const TensorMap& tensors) {
  uint64_t sum = 0;
  for (const auto& [name, tensor] : tensors) {
    const auto* data = static_cast<const uint8_t*>(tensor.data_ptr());
    for (std::size_t i = 0; i < tensor.nbytes(); ++i) sum += data[i];
  }
  return sum;
}

struct Tally {
  int accepted = 0, refused = 0;
  void attempt(const std::function<void()>& action) {
    try {
      action();
      ++accepted;
    } catch (const Error& error) {
      ++refused;
      if (std::string(error.what()).find('\n') != std::string::npos) FAIL(error.what());
    }
    // Any other exception fails the test.
  }
};

std::string sample_bytes(const TempFolder& folder) {
  save_safetensors(folder / "good.safetensors",
                   {{"blocks.0.weight", torch::arange(6.0).reshape({2, 3})},
                    {"blocks.0.bias", torch::ones({3}, torch::kBFloat16)},
                    {"flags", torch::ones({5}, torch::kBool)},
                    {"empty", torch::zeros({0, 4})},
                    {"step", torch::tensor(7, torch::kInt64)}},
                   {{"note", "x"}});
  return read_file(folder / "good.safetensors", 1 << 20);
}

}  // namespace

TEST_CASE("Damaged safetensors files never crash the reader", "[hub][fuzz]") {
  TempFolder folder(memory_folder());
  const std::string good = sample_bytes(folder);
  Random random(20261122);
  Tally tally;
  for (int i = 0; i < 6000; ++i) {
    put(folder / "x.safetensors", i % 2 ? damaged_header(good, random) : damaged(good, random));
    tally.attempt([&] { touch(load_safetensors(folder / "x.safetensors")); });
  }
  CHECK(tally.accepted > 0);  // a flipped bit of data is legal
  CHECK(tally.refused > 3000);
}

TEST_CASE("Damaged PyTorch files never crash the reader", "[hub][fuzz]") {
  TempFolder folder(memory_folder());
  save_pytorch_file(folder / "good.pt", lazy_tensors({{"blocks.0.weight", torch::ones({2, 3})},
                                                      {"half", torch::ones({5}, torch::kHalf)},
                                                      {"empty", torch::zeros({0, 4})}}));
  const std::string good = read_file(folder / "good.pt", 1 << 20);
  const std::size_t pickle = good.find("\x80\x02"), pickle_end = good.find("u.", pickle);
  REQUIRE(pickle_end != std::string::npos);
  Random random(20261125);
  Tally tally;
  for (int i = 0; i < 6000; ++i) {
    std::string bytes = good;
    if (i % 2) {
      bytes = damaged(good, random);
    } else {  // the pickle in place: reaches the interpreter behind the container's checks
      for (std::size_t k = 0; k <= below(random, 3); ++k)
        bytes[pickle + below(random, pickle_end - pickle)] = static_cast<char>(random());
    }
    put(folder / "x.pt", bytes);
    tally.attempt([&] {
      TensorMap tensors;
      for (const auto& [name, tensor] : read_pytorch_file(folder / "x.pt").tensors)
        tensors[name] = tensor.read().contiguous();
      touch(tensors);
    });
  }
  CHECK(tally.accepted > 0);  // a flipped bit of data is legal
  CHECK(tally.refused > 3000);
}

TEST_CASE("Headers parsed in memory stay within their bytes", "[hub][fuzz]") {
  TempFolder folder(memory_folder());
  const std::string good = sample_bytes(folder);
  uint64_t size = 0;
  std::memcpy(&size, good.data(), 8);
  Random random(1);
  Tally tally;
  for (int i = 0; i < 10000; ++i) {
    std::string text = good.substr(8, size);
    for (std::size_t k = 0; k <= below(random, 2); ++k) splice(text, random);
    // An exact heap copy, so that reading one byte past the end is seen.
    const std::vector<char> header(text.begin(), text.end());
    tally.attempt([&] {
      std::map<std::string, TensorInfo> infos;
      Metadata metadata;
      const uint64_t bytes = good.size() - 8 - size;
      parse_safetensors_header({header.data(), header.size()}, bytes, "x", infos, metadata);
      for (const auto& [name, info] : infos)
        if (info.begin > info.end || info.end > bytes) FAIL(name);
    });
  }
  CHECK(tally.accepted > 0);
  CHECK(tally.refused > 5000);
}

TEST_CASE("Damaged indices never lead the reader astray", "[hub][fuzz]") {
  TempFolder folder(memory_folder());
  save_weights(folder.path(), kTransformersWeights,
               {{"a", torch::ones({3})}, {"b", torch::ones({3})}}, /*max_shard_bytes=*/12);
  const std::string good = read_file(folder / "model.safetensors.index.json", 1 << 20);
  Random random(2);
  Tally tally;
  for (int i = 0; i < 2000; ++i) {
    put(folder / "model.safetensors.index.json", damaged(good, random));
    tally.attempt([&] { touch(WeightFolder(folder.path()).tensors()); });
  }
  CHECK(tally.refused > 1000);
}

TEST_CASE("Damaged JSON gives a value or one line", "[hub][fuzz]") {
  const std::string good =
      R"({"_class_name": "X", "list": [1, 2.5, -3e2, true, null], "o": {"a": {"b": "\u00e9"}}})";
  Random random(3);
  Tally tally;
  for (int i = 0; i < 20000; ++i) {
    const std::string text = damaged(good, random);
    const std::vector<char> bytes(text.begin(), text.end());
    tally.attempt([&] {
      parse_json({bytes.data(), bytes.size()}, "x.json", {.comments = i % 2 == 0});
    });
  }
  CHECK(tally.accepted > 0);
  CHECK(tally.refused > 10000);
}
