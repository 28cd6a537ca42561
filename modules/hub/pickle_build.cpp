#include "modules/hub/pickle_build.h"

#include <limits>

#include "modules/hub/atomic_file.h"

namespace cosmos::modules {
namespace {

using Kind = PickleValue::Kind;

constexpr int64_t kMaxElements = std::numeric_limits<int64_t>::max() / 16;

int64_t size_of(const PickleValue& value, const std::string& where, const char* what) {
  require(value.is(Kind::kInteger) && value.integer >= 0 && value.integer <= kMaxElements, where,
          ": ", what, ": expected a size, got ", value.describe());
  return value.integer;
}

std::vector<int64_t> sizes_of(const PickleValue& value, const std::string& where,
                              const char* what) {
  require(value.is(Kind::kTuple) && value.items.size() <= 64, where, ": ", what,
          ": expected a tuple of sizes, got ", value.describe());
  std::vector<int64_t> sizes;
  for (const auto* item : value.items) sizes.push_back(size_of(*item, where, what));
  return sizes;
}

// Within its storage, and no larger: an expanded view would be written out many times its size.
void check_view(const PickledTensor& tensor, const std::string& where) {
  require(tensor.shape.size() == tensor.stride.size(), where, ": a tensor of ", tensor.shape.size(),
          " dimensions with ", tensor.stride.size(), " strides");
  const auto item = static_cast<int64_t>(c10::elementSize(tensor.dtype));
  const int64_t limit =
      tensor.storage.dtype ? tensor.storage.elements : tensor.storage.elements / item;
  int64_t elements = 1, last = tensor.offset;
  for (const int64_t size : tensor.shape) {
    // Zeros count as one: torch computes strides the same way, so those must not overflow either.
    const int64_t factor = std::max<int64_t>(size, 1);
    require(elements <= kMaxElements / factor, where, ": a tensor's shape overflows 64 bits");
    elements *= factor;
  }
  for (const int64_t size : tensor.shape)
    if (size == 0) return;
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    const int64_t steps = tensor.shape[i] - 1;
    require(steps == 0 || tensor.stride[i] <= (kMaxElements - last) / steps, where,
            ": a tensor's strides overflow 64 bits");
    last += steps * tensor.stride[i];
  }
  require(last < limit && elements <= limit, where, ": a tensor of shape ",
          c10::IntArrayRef(tensor.shape), " reaches beyond the ", limit,
          " elements of its storage");
}

PickleValue build_tensor(const std::vector<PickleValue*>& arguments, bool typed,
                         const std::string& where) {
  // storage, offset, shape, stride, requires_grad, hooks [, dtype in v3] [, metadata]
  const std::size_t least = typed ? 6 : 7;
  require(arguments.size() >= least && arguments.size() <= least + 1, where, ": a tensor of ",
          arguments.size(), " arguments");
  require(arguments[0]->is(Kind::kStorage), where, ": a tensor's storage is ",
          arguments[0]->describe());
  auto tensor = std::make_shared<PickledTensor>(*arguments[0]->tensor);
  tensor->offset = size_of(*arguments[1], where, "a tensor's offset");
  tensor->shape = sizes_of(*arguments[2], where, "a tensor's shape");
  tensor->stride = sizes_of(*arguments[3], where, "a tensor's strides");
  if (typed) {
    require(tensor->storage.dtype.has_value(), where, ": a tensor of bytes without a dtype");
    tensor->dtype = *tensor->storage.dtype;
  } else {
    require(arguments[6]->is(Kind::kDtype), where, ": a tensor's dtype is ",
            arguments[6]->describe());
    tensor->dtype = static_cast<torch::Dtype>(arguments[6]->integer);
    require(!tensor->storage.dtype, where, ": a tensor with two dtypes");
  }
  check_view(*tensor, where);
  return {.kind = Kind::kTensor, .tensor = std::move(tensor)};
}

// The bytes of a latin-1 text: each character is one byte, at most two in UTF-8.
PickleValue encode_latin1(const std::vector<PickleValue*>& arguments, const std::string& where) {
  require(arguments.size() == 2 && arguments[0]->is(Kind::kText) && arguments[1]->is(Kind::kText) &&
              arguments[1]->text == "latin1",
          where, ": bytes in another form than torch.save writes");
  const std::string& text = arguments[0]->text;
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto lead = static_cast<uint8_t>(text[i]);
    if (lead < 0x80) {
      bytes += text[i];
      continue;
    }
    require((lead & 0xfe) == 0xc2 && i + 1 < text.size(), where, ": bytes that are not latin-1");
    bytes += static_cast<char>(((lead & 3) << 6) | (static_cast<uint8_t>(text[++i]) & 0x3f));
  }
  return {.kind = Kind::kBytes, .text = std::move(bytes)};
}

PickleValue build_dict(const std::vector<PickleValue*>& arguments, const std::string& where) {
  require(arguments.empty(), where, ": a dict built from ", arguments.size(),
          " arguments; torch.save fills an empty one");
  return {.kind = Kind::kDict};
}

PickleValue build_path(const std::vector<PickleValue*>& arguments, const std::string& where) {
  std::string path;
  for (const auto* part : arguments) {
    require(part->is(Kind::kText) && path.size() < 4096, where, ": a path of ", part->describe());
    path += (path.empty() || path.back() == '/' ? "" : "/") + part->text;
  }
  return {.kind = Kind::kText, .text = std::move(path)};
}

}  // namespace

PickleValue build_pickle_object(const PickleValue& what, const PickleValue& arguments,
                                const std::string& where) {
  require(what.is(Kind::kClass) && arguments.is(Kind::kTuple), where, ": the pickle calls ",
          what.describe(), " with ", arguments.describe());
  const std::vector<PickleValue*>& given = arguments.items;
  switch (static_cast<PickleClass>(what.integer)) {
    case PickleClass::kDict:
      return build_dict(given, where);
    case PickleClass::kTensorV2:
      return build_tensor(given, /*typed=*/true, where);
    case PickleClass::kTensorV3:
      return build_tensor(given, /*typed=*/false, where);
    case PickleClass::kParameter:
      require(!given.empty() && given[0]->is(Kind::kTensor), where, ": a parameter of ",
              arguments.describe());
      return *given[0];
    case PickleClass::kSize:
      require(given.size() == 1 && (given[0]->is(Kind::kTuple) || given[0]->is(Kind::kList)), where,
              ": a torch.Size of ", arguments.describe());
      return {.kind = Kind::kTuple, .items = given[0]->items};
    case PickleClass::kEncode:
      return encode_latin1(given, where);
    case PickleClass::kFirstArgument:
      require(!given.empty(), where, ": ", what.text, " without an argument");
      return *given[0];
    case PickleClass::kPath:
      return build_path(given, where);
    case PickleClass::kRecord:
      require(given.empty(), where, ": a ", what.text, " built from ", arguments.describe());
      return {.kind = Kind::kRecord, .text = what.text};
    case PickleClass::kStorageType:
      break;
  }
  fail(where, ": the pickle calls ", what.describe());
}

void set_pickle_state(PickleValue& object, PickleValue* state, const std::string& where) {
  if (object.is(Kind::kDict)) return;
  require(object.is(Kind::kRecord) && object.items.empty(), where, ": a state for ",
          object.describe());
  object.items.push_back(state);
}

PickleValue build_pickle_storage(const PickleValue& id, const std::string& where) {
  const auto& parts = id.items;
  require(id.is(Kind::kTuple) && (parts.size() == 5 || parts.size() == 6) &&
              parts[0]->is(Kind::kText) && parts[0]->text == "storage" && parts[2]->is(Kind::kText),
          where, ": the pickle refers to something outside that is no storage");
  require(parts.size() == 5 || parts[5]->is(Kind::kNone), where,
          ": a storage that is a view of another; save the tensors again with a newer PyTorch");
  auto tensor = std::make_shared<PickledTensor>();
  tensor->storage = {.key = parts[2]->text,
                     .dtype = storage_dtype(*parts[1], where),
                     .elements = size_of(*parts[4], where, "a storage's size")};
  return {.kind = Kind::kStorage, .tensor = std::move(tensor)};
}

}  // namespace cosmos::modules
