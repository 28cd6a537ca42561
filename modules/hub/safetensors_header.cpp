// Everything that is decided from the header alone; no tensor is touched here.

#include <algorithm>
#include <array>
#include <limits>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "modules/hub/safetensors.h"

namespace cosmos::modules {
namespace {

constexpr std::size_t kMaxDimensions = 64;

struct DtypeName {
  const char* name;
  torch::Dtype dtype;
};
// Sub-byte types (F4, F6) have no torch tensor of the same shape and are refused.
constexpr std::array<DtypeName, 17> kDtypes{{
    {"F64", torch::kFloat64},
    {"F32", torch::kFloat32},
    {"F16", torch::kFloat16},
    {"BF16", torch::kBFloat16},
    {"I64", torch::kInt64},
    {"I32", torch::kInt32},
    {"I16", torch::kInt16},
    {"I8", torch::kInt8},
    {"U8", torch::kUInt8},
    {"BOOL", torch::kBool},
    {"F8_E4M3", torch::kFloat8_e4m3fn},
    {"F8_E5M2", torch::kFloat8_e5m2},
    {"F8_E8M0", torch::kFloat8_e8m0fnu},
    {"U16", torch::kUInt16},
    {"U32", torch::kUInt32},
    {"U64", torch::kUInt64},
    {"C64", torch::kComplexFloat},
}};

torch::Dtype parse_dtype(const Json& value, const std::string& where) {
  require(value.is_string(), where, ": dtype is not a string");
  const auto& name = value.get_ref<const std::string&>();
  for (const auto& entry : kDtypes)
    if (name == entry.name) return entry.dtype;
  fail(where, ": dtype ", printable(name), " is not supported (F64 F32 F16 BF16 I64 I32 I16 I8 U8 ",
       "BOOL F8_E4M3 F8_E5M2 F8_E8M0 U16 U32 U64 C64 are)");
}

uint64_t parse_size(const Json& value, const std::string& where, const char* what) {
  require(value.is_number_unsigned(), where, ": ", what,
          " holds something other than whole numbers");
  return value.get<uint64_t>();
}

std::vector<int64_t> parse_shape(const Json& value, const std::string& where) {
  require(value.is_array(), where, ": shape is not a list");
  require(value.size() <= kMaxDimensions, where, ": shape has ", value.size(), " dimensions");
  std::vector<int64_t> shape;
  // Zeros count as one: torch computes strides the same way, so those must not overflow either.
  uint64_t product = 16;  // bytes of the widest element
  for (const auto& item : value) {
    const uint64_t size = parse_size(item, where, "shape");
    constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    require(size <= kMax && std::max<uint64_t>(size, 1) <= kMax / product, where,
            ": shape overflows 64 bits");
    product *= std::max<uint64_t>(size, 1);
    shape.push_back(static_cast<int64_t>(size));
  }
  return shape;
}

TensorInfo parse_info(const Json& entry, uint64_t data_bytes, const std::string& where) {
  require(entry.is_object() && entry.size() == 3 && entry.contains("dtype") &&
              entry.contains("shape") && entry.contains("data_offsets"),
          where, ": expected exactly dtype, shape and data_offsets");
  TensorInfo info;
  info.dtype = parse_dtype(entry["dtype"], where);
  info.shape = parse_shape(entry["shape"], where);
  const Json& offsets = entry["data_offsets"];
  require(offsets.is_array() && offsets.size() == 2, where, ": data_offsets is not a pair");
  info.begin = parse_size(offsets[0], where, "data_offsets");
  info.end = parse_size(offsets[1], where, "data_offsets");
  require(info.begin <= info.end && info.end <= data_bytes, where, ": data_offsets [", info.begin,
          ", ", info.end, "] lie outside the ", data_bytes, " bytes of data (file truncated?)");
  uint64_t expected = c10::elementSize(info.dtype);
  for (const int64_t size : info.shape) expected *= static_cast<uint64_t>(size);
  require(info.end - info.begin == expected, where, ": shape and dtype need ", expected,
          " bytes, data_offsets give ", info.end - info.begin);
  return info;
}

Metadata parse_metadata(const Json& entry, const std::string& where) {
  require(entry.is_object(), where, ": __metadata__ is not an object");
  Metadata metadata;
  for (const auto& [key, value] : entry.items()) {
    require(value.is_string(), where, ": __metadata__.", printable(key), " is not a string");
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

// Back to back from the first byte to the last: overlaps and holes both show as a gap.
void check_layout(const std::map<std::string, TensorInfo>& infos, uint64_t data_bytes,
                  const std::string& where) {
  using Entry = std::pair<const std::string, TensorInfo>;
  std::vector<const Entry*> order;
  for (const auto& entry : infos) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t position = 0;
  for (const Entry* entry : order) {
    require(entry->second.begin == position, where, ": ", printable(entry->first),
            entry->second.begin < position ? ": overlaps the tensor before it"
                                           : ": a hole lies before its data");
    position = entry->second.end;
  }
  require(position == data_bytes, where, ": ", data_bytes - position,
          " bytes at the end belong to no tensor");
}

}  // namespace

std::string safetensors_dtype(torch::Dtype dtype) {
  for (const auto& entry : kDtypes)
    if (dtype == entry.dtype) return entry.name;
  fail("safetensors cannot hold dtype ", c10::toString(dtype));
}

void parse_safetensors_header(std::string_view header, uint64_t data_bytes,
                              const std::string& where, std::map<std::string, TensorInfo>& infos,
                              Metadata& metadata) {
  require(!header.empty() && header.front() == '{', where,
          ": header does not start with '{' (not a safetensors file?)");
  const Json json = parse_json(header, where + ": header", {.max_depth = 4});
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") {
      metadata = parse_metadata(entry, where);
    } else {
      infos[name] = parse_info(entry, data_bytes, where + ": " + printable(name));
    }
  }
  check_layout(infos, data_bytes, where);
}

}  // namespace cosmos::modules
