#include "modules/hub/name_map.h"

#include <algorithm>
#include <cctype>

#include "ops/core/error.h"

namespace cosmos::modules {
namespace {

struct Number {
  std::size_t begin, size;
};

// The numbers that end a component: "blocks.block12.w" -> "12".
std::vector<Number> numbers_of(const std::string& name) {
  std::vector<Number> numbers;
  for (std::size_t i = 0; i < name.size();) {
    std::size_t end = i;
    while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end]))) ++end;
    if (end > i && (end == name.size() || name[end] == '.')) numbers.push_back({i, end - i});
    i = std::max(end, i + 1);
  }
  return numbers;
}

// `pattern` with its stars replaced by `values`, in order.
std::string fill(const std::string& pattern, const std::vector<std::string>& values) {
  std::string text;
  std::size_t next = 0;
  for (const char c : pattern) {
    if (c == '*' && next < values.size()) {
      text += values[next++];
    } else {
      text += c;
    }
  }
  return text;
}

std::string joined(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

}  // namespace

void NameMap::add(const std::string& native, const std::string& hf) {
  const bool fresh = to_hf_.emplace(native, hf).second && to_native_.emplace(hf, native).second;
  require(fresh, "name map: ", native, " or ", hf, " is mapped twice");
  pairs_.emplace_back(native, hf);
}

void NameMap::add(const std::string& native_prefix, const std::string& hf_prefix,
                  const NameMap& part) {
  for (const auto& [native, hf] : part.pairs_)
    add(joined(native_prefix, native), joined(hf_prefix, hf));
}

void NameMap::add_layer(const std::string& native, const std::string& hf) {
  for (const char* leaf : {".weight", ".bias"}) add(native + leaf, hf + leaf);
}

// A number is either part of the name (net.0.proj) or an index (blocks.12): every choice is looked
// up, fewest stars first. Names have three or four numbers, so that is a handful of look-ups.
std::optional<std::string> NameMap::translate(const Table& table, const std::string& name) {
  const std::vector<Number> numbers = numbers_of(name);
  if (numbers.size() > 8) return std::nullopt;
  const unsigned choices = 1u << numbers.size();
  for (int stars = 0; stars <= static_cast<int>(numbers.size()); ++stars)
    for (unsigned choice = 0; choice < choices; ++choice) {
      if (__builtin_popcount(choice) != stars) continue;
      std::string pattern = name;
      std::vector<std::string> values;
      for (std::size_t i = numbers.size(); i-- > 0;) {
        if (!(choice >> i & 1)) continue;
        values.insert(values.begin(), name.substr(numbers[i].begin, numbers[i].size));
        pattern.replace(numbers[i].begin, numbers[i].size, "*");
      }
      const auto found = table.find(pattern);
      if (found != table.end()) return fill(found->second, values);
    }
  return std::nullopt;
}

}  // namespace cosmos::modules
