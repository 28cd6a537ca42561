#include "modules/lora/config.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <regex>
#include <set>

#include "modules/hub/atomic_file.h"

namespace cosmos::modules {
namespace {

constexpr const char* kAllLinear = "all-linear";

// Patterns come from configs and adapter files; a std::regex of unbounded size can exhaust the
// stack.
std::regex compile(const std::string& pattern) {
  constexpr std::size_t kMaxPattern = 500;
  require(pattern.size() <= kMaxPattern, "lora: pattern of ", pattern.size(),
          " characters is too long");
  try {
    return std::regex(pattern);
  } catch (const std::regex_error&) {
    fail("lora: \"", printable(pattern), "\" is not a regular expression ",
         "(wildcards go into a list: [\"", printable(pattern), "\"])");
  }
}

bool is_wildcard(const std::string& text) {
  return text.find_first_of("*?") != std::string::npos;
}

// * takes any characters, dots too; ? takes one.
bool matches_wildcard(const std::string& pattern, const std::string& text) {
  std::size_t p = 0, t = 0, star = std::string::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p, ++t;
    } else if (star != std::string::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string::npos;
}

bool is_all_linear(const Json& pattern) {
  if (!pattern.is_string()) return false;
  std::string text = pattern.get<std::string>();
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return text == kAllLinear;
}

void check_pattern(const Json& pattern, const std::string& where) {
  const bool texts = pattern.is_array() && std::all_of(pattern.begin(), pattern.end(),
                                                       [](const Json& x) { return x.is_string(); });
  require(pattern.is_string() || texts, where, ": expected a string or a list of strings, got ",
          describe(pattern));
  if (pattern.is_string() && !is_all_linear(pattern)) compile(pattern.get<std::string>());
}

// The value of the first key that PEFT would match: a regular expression for the end of the path.
template <typename T>
T by_pattern(const std::map<std::string, T>& patterns, const std::string& module, T otherwise) {
  const auto exact = patterns.find(module);
  if (exact != patterns.end()) return exact->second;
  for (const auto& [key, value] : patterns)
    if (std::regex_match(module, compile("(?:.*\\.)?(?:" + key + ")"))) return value;
  return otherwise;
}

// "to_q" of "blocks.3.attn1.to_q", "to_out.0" of "blocks.3.attn1.to_out.0"
std::string short_name(const std::string& module) {
  std::size_t dot = module.rfind('.');
  if (dot != std::string::npos && std::isdigit(static_cast<unsigned char>(module[dot + 1])) &&
      dot > 0)
    dot = module.rfind('.', dot - 1);
  return dot == std::string::npos ? module : module.substr(dot + 1);
}

std::string candidates(const std::vector<std::string>& modules, const std::string& word) {
  std::set<std::string> names;
  for (const auto& module : modules) names.insert(short_name(module));
  const std::string near = nearest(word, {names.begin(), names.end()});
  if (!near.empty()) return " (did you mean " + near + "?)";
  std::string all;
  for (const auto& name : names) all += (all.empty() ? "" : ", ") + name;
  return " (there are: " + all + ")";
}

}  // namespace

bool matches_name(const std::string& entry, const std::string& module) {
  if (is_wildcard(entry)) return matches_wildcard(entry, module);
  if (module == entry) return true;
  return module.size() > entry.size() + 1 && module.ends_with("." + entry);
}

void require_matches(const std::vector<std::string>& list, const std::vector<std::string>& modules,
                     const std::string& where, const std::string& kind) {
  for (const std::string& name : list)
    require(std::any_of(modules.begin(), modules.end(),
                        [&](const std::string& module) { return matches_name(name, module); }),
            where, ": no ", kind, " is called ", printable(name), candidates(modules, name));
}

void LoraConfig::check(const std::string& where) const {
  require(rank > 0, where, ".rank: expected a positive number, got ", rank);
  require(std::isfinite(alpha) && alpha > 0, where, ".alpha: expected a positive number, got ",
          alpha);
  require(dropout >= 0 && dropout < 1, where, ".dropout: expected 0 <= dropout < 1, got ", dropout);
  check_pattern(target_modules, where + ".target_modules");
  require(target_parameters.empty() || (dropout == 0 && !use_dora), where,
          ".target_parameters: expected dropout 0 and no DoRA (as PEFT), got ",
          use_dora ? "use_dora" : "dropout ", use_dora ? "" : std::to_string(dropout));
  if (!exclude_modules.is_null()) check_pattern(exclude_modules, where + ".exclude_modules");
  for (const auto& [key, value] : rank_pattern)
    require(value > 0, where, ".rank_pattern.", printable(key),
            ": expected a positive number, got ", value);
  for (const auto& [key, value] : alpha_pattern)
    require(std::isfinite(value) && value > 0, where, ".alpha_pattern.", printable(key),
            ": expected a positive number, got ", value);
}

int64_t LoraConfig::rank_of(const std::string& module) const {
  return by_pattern(rank_pattern, module, rank);
}

double LoraConfig::alpha_of(const std::string& module) const {
  return by_pattern(alpha_pattern, module, alpha);
}

double LoraConfig::scaling_of(const std::string& module) const {
  const auto r = static_cast<double>(rank_of(module));
  return alpha_of(module) / (use_rslora ? std::sqrt(r) : r);
}

bool matches_modules(const Json& pattern, const std::string& module) {
  if (pattern.is_null()) return false;
  if (is_all_linear(pattern)) return true;
  if (pattern.is_string()) return std::regex_match(module, compile(pattern.get<std::string>()));
  return std::any_of(pattern.begin(), pattern.end(), [&](const Json& entry) {
    return matches_name(entry.get_ref<const std::string&>(), module);
  });
}

std::vector<std::string> target_modules(const LoraConfig& config,
                                        const std::vector<std::string>& modules) {
  if (config.target_modules.is_array())
    require_matches(config.target_modules.get<std::vector<std::string>>(), modules,
                    "lora.target_modules", "linear layer");
  std::vector<std::string> chosen;
  for (const auto& module : modules)
    if (matches_modules(config.target_modules, module) &&
        !matches_modules(config.exclude_modules, module))
      chosen.push_back(module);
  require(!chosen.empty() || !config.target_parameters.empty(),
          "lora.target_modules: ", describe(config.target_modules),
          " leaves no linear layer to adapt", candidates(modules, ""));
  return chosen;
}

std::vector<std::string> target_parameters(const LoraConfig& config,
                                           const std::vector<std::string>& parameters) {
  require_matches(config.target_parameters, parameters, "lora.target_parameters",
                  "stacked weight of experts");
  std::vector<std::string> chosen;
  for (const auto& parameter : parameters)
    if (matches_modules(Json(config.target_parameters), parameter) &&
        !matches_modules(config.exclude_modules, parameter))
      chosen.push_back(parameter);
  return chosen;
}

}  // namespace cosmos::modules
