#pragma once

// Which Linears get an adapter, and how large: PEFT's LoraConfig, same meaning.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "modules/core/fields.h"

namespace cosmos::modules {

struct LoraConfig {
  int64_t rank = 16;
  double alpha = 16;  ///< the update is scaled by alpha / rank
  double dropout = 0;
  bool use_rslora = false;  ///< scale by alpha / sqrt(rank) instead
  bool use_dora = false;    ///< weight-decomposed: also learn each output row's length
  /// A list names modules: "to_q" takes every module whose path is it or ends in ".to_q";
  /// an entry with * or ? is a wildcard over the whole path. A string is "all-linear" or a regular
  /// expression over the whole path.
  Json target_modules = "all-linear";
  Json exclude_modules = nullptr;  ///< the same forms; null: none
  /// Stacked weights of experts to adapt (PEFT: the same), by parameter name, in the forms of the
  /// list above: "mlp.experts.gate_up_proj". Without dropout and DoRA, as in PEFT.
  std::vector<std::string> target_parameters = {};
  /// Other ranks and alphas for modules whose path ends in a key (PEFT: a regular expression).
  std::map<std::string, int64_t> rank_pattern = {};
  std::map<std::string, double> alpha_pattern = {};

  template <typename Visitor>
  void fields(Visitor& v) {
    v("rank", rank, "rank of the update");
    v("alpha", alpha, "the update is scaled by alpha / rank");
    v("dropout", dropout, "dropout on the adapter's input");
    v("use_rslora", use_rslora, "scale by alpha / sqrt(rank)");
    v("use_dora", use_dora, "DoRA: learn each output row's length too");
    v("target_modules", target_modules, "list of names or wildcards, \"all-linear\", or a regex");
    v("exclude_modules", exclude_modules, "list of names or wildcards, or a regex");
    v("target_parameters", target_parameters, "stacked weights of experts, by parameter name");
    v("rank_pattern", rank_pattern, "other ranks, by module name");
    v("alpha_pattern", alpha_pattern, "other alphas, by module name");
  }

  /// Throws Error on a value no adapter can have; `where` names the config.
  void check(const std::string& where) const;
  int64_t rank_of(const std::string& module) const;
  double alpha_of(const std::string& module) const;
  /// alpha / rank, or alpha / sqrt(rank).
  double scaling_of(const std::string& module) const;
};

/// Whether `entry` of a list means `module`: its path, the end of it, or a wildcard over it.
bool matches_name(const std::string& entry, const std::string& module);
/// Throws Error for the first entry of `list` (called `where`) that means none of `modules`, which
/// are `kind`s ("linear layer").
void require_matches(const std::vector<std::string>& list, const std::vector<std::string>& modules,
                     const std::string& where, const std::string& kind);

/// Whether PEFT would take `module` for this `pattern` (a string, a list, or null).
bool matches_modules(const Json& pattern, const std::string& module);

/// Those of `modules` that the config targets. Throws Error when an entry of a list matches nothing
/// (a typo would silently train less), or when none is left and there are no target_parameters; the
/// message names near candidates.
std::vector<std::string> target_modules(const LoraConfig& config,
                                        const std::vector<std::string>& modules);

/// The same for target_parameters; exclude_modules counts for them too.
std::vector<std::string> target_parameters(const LoraConfig& config,
                                           const std::vector<std::string>& parameters);

}  // namespace cosmos::modules
