// Files as torch.save writes them. The zip container is LibTorch's own writer; the pickle is the
// same few opcodes over and over: an OrderedDict of tensors, each on a storage of its own.

#include <caffe2/serialize/inline_container.h>

#include "modules/hub/atomic_file.h"
#include "modules/hub/pytorch_file.h"

namespace cosmos::modules {
namespace {

const char* storage_class(torch::Dtype dtype, const std::string& where) {
  switch (dtype) {
    case torch::kFloat64:
      return "DoubleStorage";
    case torch::kFloat32:
      return "FloatStorage";
    case torch::kFloat16:
      return "HalfStorage";
    case torch::kBFloat16:
      return "BFloat16Storage";
    case torch::kInt64:
      return "LongStorage";
    case torch::kInt32:
      return "IntStorage";
    case torch::kInt16:
      return "ShortStorage";
    case torch::kInt8:
      return "CharStorage";
    case torch::kUInt8:
      return "ByteStorage";
    case torch::kBool:
      return "BoolStorage";
    case torch::kComplexFloat:
      return "ComplexFloatStorage";
    default:
      fail(where, ": a file of torch.save cannot hold ", c10::toString(dtype), " here");
  }
}

class PickleWriter {
 public:
  PickleWriter() : text_("\x80\x02") { global("collections", "OrderedDict").raw(")R("); }

  void add(const std::string& name, const LazyTensor& tensor, std::size_t key,
           const std::string& where) {
    string(name).global("torch._utils", "_rebuild_tensor_v2").raw("((");
    string("storage").global("torch", storage_class(tensor.dtype, where));
    string(std::to_string(key)).string("cpu").integer(tensor.numel()).raw("tQ").integer(0);
    tuple(tensor.shape).tuple(strides(tensor.shape)).raw("\x89");
    global("collections", "OrderedDict").raw(")RtR");
  }
  std::string finish() { return raw("u.").text_; }

 private:
  static std::vector<int64_t> strides(const std::vector<int64_t>& shape) {
    std::vector<int64_t> strides(shape.size(), 1);
    for (std::size_t i = shape.size(); i-- > 1;)
      strides[i - 1] = strides[i] * std::max<int64_t>(shape[i], 1);
    return strides;
  }
  PickleWriter& raw(const char* opcodes) { return text_ += opcodes, *this; }
  PickleWriter& global(const char* module, const char* name) {
    text_ += std::string("c") + module + "\n" + name + "\n";
    return *this;
  }
  PickleWriter& string(const std::string& value) {
    const auto size = static_cast<uint32_t>(value.size());
    text_ += 'X';
    text_.append(reinterpret_cast<const char*>(&size), 4);
    text_ += value;
    return *this;
  }
  PickleWriter& integer(int64_t value) {
    text_ += "\x8a\x08";  // LONG1 of 8 bytes
    text_.append(reinterpret_cast<const char*>(&value), 8);
    return *this;
  }
  PickleWriter& tuple(const std::vector<int64_t>& values) {
    text_ += '(';
    for (const int64_t value : values) integer(value);
    text_ += 't';
    return *this;
  }

  std::string text_;
};

}  // namespace

void save_pytorch_file(const std::filesystem::path& path, const LazyTensors& tensors) {
  PickleWriter pickle;
  std::size_t key = 0;
  for (const auto& [name, tensor] : tensors)
    pickle.add(name, tensor, key++, path.string() + ": " + printable(name));
  const std::string text = pickle.finish();

  AtomicFile file(path);
  caffe2::serialize::PyTorchStreamWriter zip([&file](const void* data, size_t size) {
    file.write(data, size);
    return size;
  });
  zip.writeRecord("data.pkl", text.data(), text.size());
  zip.writeRecord("byteorder", "little", 6);
  key = 0;
  for (const auto& [name, tensor] : tensors) {
    const Tensor plain = tensor.read().detach().to(torch::kCPU).contiguous();  // one at a time
    require(plain.sizes() == tensor.shape && plain.scalar_type() == tensor.dtype, path.string(),
            ": ", printable(name), ": was read as another shape or dtype than announced");
    zip.writeRecord("data/" + std::to_string(key++), plain.const_data_ptr(), plain.nbytes());
  }
  zip.writeEndOfFile();
  file.commit();
}

}  // namespace cosmos::modules
