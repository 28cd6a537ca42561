// Folders of torch.distributed.checkpoint: chunks of several ranks become whole tensors; what is
// missing, doubled or out of place is refused.

#include <catch2/catch.hpp>
#include <fstream>

#include "modules/hub/safetensors.h"
#include "modules/hub/weight_source.h"
#include "test/modules/hub/hostile.h"
#include "test/modules/hub/pickled.h"

using namespace cosmos;
using namespace cosmos::modules;
using namespace cosmos::test;

namespace {

constexpr const char* kModule = "torch.distributed.checkpoint.metadata";

void put(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// The rows [offset, offset + rows) of w, [4, 2], values counting up.
struct Share {
  int64_t offset, rows;
  std::string file;
};

std::string share_bytes(const Share& share) {
  std::vector<float> values;
  for (int64_t i = 0; i < share.rows * 2; ++i)
    values.push_back(static_cast<float>(share.offset * 2 + i));
  PickleText p;
  p.tensor("0", share.rows * 2, {share.rows, 2}, {2, 1});
  return torch_file(p.stop(), {{"archive/data/0", float_bytes(values)}});
}

void size_of(PickleText& p, const std::vector<int64_t>& sizes) {
  p.global("torch", "Size").sizes(sizes).raw("\x85R");
}

// What torch writes for a tensor `w` of [4, 2], in the pickle's own order of fields.
std::string metadata_of(const std::vector<Share>& shares, int64_t length_error = 0) {
  PickleText p;
  p.global(kModule, "Metadata").raw(")\x81}(").string("state_dict_metadata").raw("}(");
  p.string("w").global(kModule, "TensorStorageMetadata").raw(")\x81}(").string("properties");
  p.global(kModule, "TensorProperties").raw(")\x81(").global("torch", "float32");
  p.global("torch.serialization", "_get_layout").string("torch.strided").raw("\x85R\x89");
  p.global(kModule, "_MEM_FORMAT_ENCODING").integer(0).raw("\x85R\x89tb").string("size");
  size_of(p, {4, 2});
  p.string("chunks").raw("](");
  for (const auto& share : shares) {
    p.global(kModule, "ChunkStorageMetadata").raw(")\x81}(").string("offsets");
    size_of(p, {share.offset, 0});
    p.string("sizes");
    size_of(p, {share.rows, 2});
    p.raw("ub");
  }
  p.raw("eub").string("step").global(kModule, "BytesStorageMetadata").raw(")\x81u");
  p.string("storage_data").raw("}(");
  std::map<std::string, int64_t> position;
  for (const auto& share : shares) {
    const auto size = static_cast<int64_t>(share_bytes(share).size());
    p.global(kModule, "MetadataIndex").raw(")\x81}(").string("fqn").string("w").string("offset");
    size_of(p, {share.offset, 0});
    p.string("index").raw("Nub");
    p.global("torch.distributed.checkpoint.filesystem", "_StorageInfo").raw(")\x81}(");
    p.string("relative_path").string(share.file).string("offset").integer(position[share.file]);
    p.string("length").integer(size + length_error).raw("ub");
    position[share.file] += size;
  }
  return p.raw("uub").stop();
}

struct Fixture {
  TempFolder folder;

  void write(const std::vector<Share>& shares, int64_t length_error = 0) {
    std::map<std::string, std::string> files;
    for (const auto& share : shares) files[share.file] += share_bytes(share);
    for (const auto& [name, bytes] : files)
      if (name.find('/') == std::string::npos) put(folder / name, bytes);
    put(folder / ".metadata", metadata_of(shares, length_error));
  }
  std::string refusal() {
    const std::string error = error_of([&] { open_weights(folder.path()).tensors.at("w").read(); });
    CHECK(error.find('\n') == std::string::npos);
    return error;
  }
};

}  // namespace

TEST_CASE("Chunks of ranks become whole tensors", "[hub][dcp]") {
  Fixture f;
  f.write({{0, 1, "__0_0.distcp"}, {3, 1, "__1_0.distcp"}, {1, 2, "__0_0.distcp"}});
  const WeightSource source = open_weights(f.folder.path());
  CHECK(source.format == "distributed checkpoint");
  CHECK(torch::equal(source.tensors.at("w").read(), torch::arange(8.0f).reshape({4, 2})));
  CHECK(source.others.at("step") == "bytes of a Python object");
}

TEST_CASE("Checkpoints with holes, overlaps or missing files are refused", "[hub][dcp]") {
  Fixture f;
  f.write({{0, 2, "__0_0.distcp"}, {3, 1, "__1_0.distcp"}});
  CHECK(has(f.refusal(), "its chunks hold 6 of 8 elements"));
  f.write({{0, 3, "__0_0.distcp"}, {2, 2, "__1_0.distcp"}});
  CHECK(has(f.refusal(), "two of its chunks overlap"));
  f.write({{0, 2, "__0_0.distcp"}, {2, 3, "__1_0.distcp"}});
  CHECK(has(f.refusal(), "reaches beyond"));
  f.write({{0, 4, "__0_0.distcp"}}, 1);
  CHECK(has(f.refusal(), "lie outside"));
  f.write({{0, 4, "../escape"}});
  CHECK(has(f.refusal(), "is not a plain file name"));
  f.write({{0, 2, "__0_0.distcp"}, {2, 2, "__7_0.distcp"}});
  std::filesystem::remove(f.folder / "__7_0.distcp");
  CHECK(has(f.refusal(), "is missing"));
  f.write({{0, 4, "__0_0.distcp"}});
  put(f.folder / ".metadata", metadata_of({{0, 4, "__0_0.distcp"}}).substr(0, 200));
  CHECK(f.refusal() != "");
}

TEST_CASE("A chunk that is not what the metadata say is refused", "[hub][dcp]") {
  Fixture f;
  f.write({{0, 2, "__0_0.distcp"}, {2, 2, "__1_0.distcp"}});
  PickleText other;
  other.tensor("0", 4, {4}, {1});
  const std::string bytes =
      torch_file(other.stop(), {{"archive/data/0", float_bytes({1, 2, 3, 4})}});
  std::string padded = bytes;
  const std::size_t wanted = share_bytes({2, 2, ""}).size();
  REQUIRE(padded.size() < wanted);
  put(f.folder / "__1_0.distcp", std::string(wanted - padded.size(), '\0') + padded);
  CHECK(f.refusal() != "");
}

TEST_CASE("Sharded safetensors of distributed checkpoints are put together", "[hub][dcp]") {
  TempFolder folder;
  const auto info = [](int64_t row) {
    return Metadata{
        {"DCP_SHARDING_INFO", "{\"w\": {\"saved_offsets\": [" + std::to_string(row) + ", 0]}}"}};
  };
  const Tensor whole = torch::randn({5, 3});
  save_safetensors(folder / "shard-00001-model-00001-of-00001.safetensors",
                   {{"w", whole.slice(0, 0, 3)}}, info(0));
  save_safetensors(folder / "shard-00002-model-00001-of-00001.safetensors",
                   {{"w", whole.slice(0, 3, 5)}}, info(3));
  const WeightSource source = open_weights(folder.path());
  CHECK(source.format == "sharded safetensors");
  CHECK(torch::equal(source.tensors.at("w").read(), whole));
  save_safetensors(folder / "shard-00002-model-00001-of-00001.safetensors",
                   {{"w", whole.slice(0, 3, 5)}}, info(4));
  CHECK(has(error_of([&] { open_weights(folder.path()); }), "its chunks hold 15 of 18"));
}
