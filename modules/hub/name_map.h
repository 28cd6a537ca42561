#pragma once

// Weight names of one model in two spellings: NVIDIA's own files and the Hugging Face class.

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace cosmos::modules {

/// A table of whole names, mapped exactly, in both directions. `*` stands for a number that both
/// spellings share ("blocks.*.mlp.layer1.weight" <-> "transformer_blocks.*.ff.net.0.proj.weight");
/// "block*" is a component that ends in one.
class NameMap {
 public:
  void add(const std::string& native, const std::string& hf);
  /// Every pair of `part`, below a prefix of each spelling.
  void add(const std::string& native_prefix, const std::string& hf_prefix, const NameMap& part);
  /// NATIVE.weight <-> HF.weight, and the same of the biases.
  void add_layer(const std::string& native, const std::string& hf);

  std::optional<std::string> to_hf(const std::string& native) const {
    return translate(to_hf_, native);
  }
  std::optional<std::string> to_native(const std::string& hf) const {
    return translate(to_native_, hf);
  }

 private:
  using Table = std::unordered_map<std::string, std::string>;
  static std::optional<std::string> translate(const Table& table, const std::string& name);

  std::vector<std::pair<std::string, std::string>> pairs_;
  Table to_hf_, to_native_;
};

}  // namespace cosmos::modules
