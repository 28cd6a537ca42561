// The names a pickle may use. Everything else is refused by name.

#include <algorithm>
#include <array>
#include <utility>

#include "modules/hub/atomic_file.h"
#include "modules/hub/pickle.h"

namespace cosmos::modules {
namespace {

using Kind = PickleValue::Kind;

constexpr std::array<std::pair<const char*, PickleClass>, 40> kClasses{{
    {"collections.OrderedDict", PickleClass::kDict},
    {"builtins.dict", PickleClass::kDict},
    {"torch._utils._rebuild_tensor_v2", PickleClass::kTensorV2},
    {"torch._utils._rebuild_tensor_v3", PickleClass::kTensorV3},
    {"torch._utils._rebuild_parameter", PickleClass::kParameter},
    {"torch._utils._rebuild_parameter_with_state", PickleClass::kParameter},
    {"torch.Size", PickleClass::kSize},
    {"torch.DoubleStorage", PickleClass::kStorageType},
    {"torch.FloatStorage", PickleClass::kStorageType},
    {"torch.HalfStorage", PickleClass::kStorageType},
    {"torch.BFloat16Storage", PickleClass::kStorageType},
    {"torch.LongStorage", PickleClass::kStorageType},
    {"torch.IntStorage", PickleClass::kStorageType},
    {"torch.ShortStorage", PickleClass::kStorageType},
    {"torch.CharStorage", PickleClass::kStorageType},
    {"torch.ByteStorage", PickleClass::kStorageType},
    {"torch.BoolStorage", PickleClass::kStorageType},
    {"torch.ComplexFloatStorage", PickleClass::kStorageType},
    {"torch.storage.UntypedStorage", PickleClass::kStorageType},
    {"torch.UntypedStorage", PickleClass::kStorageType},
    // Protocol 2 writes bytes as a text to be encoded.
    {"_codecs.encode", PickleClass::kEncode},
    {"torch.serialization._get_layout", PickleClass::kFirstArgument},
    {"torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING", PickleClass::kFirstArgument},
    {"torch.distributed._shard.sharded_tensor.metadata.MEM_FORMAT_ENCODING",
     PickleClass::kFirstArgument},
    {"torch.device", PickleClass::kFirstArgument},
    {"torch.jit._pickle.build_intlist", PickleClass::kFirstArgument},
    {"torch.jit._pickle.build_doublelist", PickleClass::kFirstArgument},
    {"torch.jit._pickle.build_boollist", PickleClass::kFirstArgument},
    {"torch.jit._pickle.build_tensorlist", PickleClass::kFirstArgument},
    {"torch.jit._pickle.restore_type_tag", PickleClass::kFirstArgument},
    {"pathlib.PosixPath", PickleClass::kPath},
    // TransformerEngine keeps its _extra_state in one.
    {"_io.BytesIO", PickleClass::kRecord},
    {"torch.distributed.checkpoint.metadata.Metadata", PickleClass::kRecord},
    {"torch.distributed.checkpoint.metadata.MetadataIndex", PickleClass::kRecord},
    {"torch.distributed.checkpoint.metadata.TensorStorageMetadata", PickleClass::kRecord},
    {"torch.distributed.checkpoint.metadata.BytesStorageMetadata", PickleClass::kRecord},
    {"torch.distributed.checkpoint.metadata.ChunkStorageMetadata", PickleClass::kRecord},
    {"torch.distributed.checkpoint.metadata.TensorProperties", PickleClass::kRecord},
    {"torch.distributed.checkpoint.metadata.StorageMeta", PickleClass::kRecord},
    {"torch.distributed.checkpoint.filesystem._StorageInfo", PickleClass::kRecord},
}};
// Where older versions of PyTorch kept TensorProperties.
constexpr const char* kOldProperties =
    "torch.distributed._shard.sharded_tensor.metadata.TensorProperties";

constexpr std::array<std::pair<const char*, torch::Dtype>, 18> kDtypes{{
    {"float64", torch::kFloat64},
    {"float32", torch::kFloat32},
    {"float16", torch::kFloat16},
    {"bfloat16", torch::kBFloat16},
    {"int64", torch::kInt64},
    {"int32", torch::kInt32},
    {"int16", torch::kInt16},
    {"int8", torch::kInt8},
    {"uint8", torch::kUInt8},
    {"uint16", torch::kUInt16},
    {"uint32", torch::kUInt32},
    {"uint64", torch::kUInt64},
    {"bool", torch::kBool},
    {"complex64", torch::kComplexFloat},
    {"float8_e4m3fn", torch::kFloat8_e4m3fn},
    {"float8_e5m2", torch::kFloat8_e5m2},
    {"float8_e8m0fnu", torch::kFloat8_e8m0fnu},
    {"double", torch::kFloat64},
}};

constexpr std::array<std::pair<const char*, torch::Dtype>, 11> kStorages{{
    {"torch.DoubleStorage", torch::kFloat64},
    {"torch.FloatStorage", torch::kFloat32},
    {"torch.HalfStorage", torch::kFloat16},
    {"torch.BFloat16Storage", torch::kBFloat16},
    {"torch.LongStorage", torch::kInt64},
    {"torch.IntStorage", torch::kInt32},
    {"torch.ShortStorage", torch::kInt16},
    {"torch.CharStorage", torch::kInt8},
    {"torch.ByteStorage", torch::kUInt8},
    {"torch.BoolStorage", torch::kBool},
    {"torch.ComplexFloatStorage", torch::kComplexFloat},
}};

}  // namespace

PickleValue find_pickle_class(const std::string& module, const std::string& name,
                              const std::string& where, const PickleOptions& options) {
  const std::string full = module + "." + name;
  for (const auto& [known, what] : kClasses)
    if (full == known)
      return {.kind = Kind::kClass, .integer = static_cast<int64_t>(what), .text = full};
  const bool record =
      full == kOldProperties || (options.torchscript && (full + ".").rfind("__torch__.", 0) == 0);
  if (record)
    return {
        .kind = Kind::kClass, .integer = static_cast<int64_t>(PickleClass::kRecord), .text = full};
  if (module == "torch")
    for (const auto& [known, dtype] : kDtypes)
      if (name == known) return {.kind = Kind::kDtype, .integer = static_cast<int64_t>(dtype)};
  fail(where, ": the pickle asks for ", printable(full),
       ", which is no tensor or container and could run code; refused");
}

std::optional<torch::Dtype> storage_dtype(const PickleValue& storage_class,
                                          const std::string& where) {
  require(storage_class.is(Kind::kClass) &&
              storage_class.integer == static_cast<int64_t>(PickleClass::kStorageType),
          where, ": a storage's type is ", storage_class.describe());
  for (const auto& [known, dtype] : kStorages)
    if (storage_class.text == known) return dtype;
  return std::nullopt;  // UntypedStorage
}

}  // namespace cosmos::modules
