#pragma once

// Results of chosen operators, kept from a block's first run for its second, where the operators
// are not run again (what torch.utils.checkpoint calls selective activation checkpointing).
//
// Below autograd the dispatcher hands these operators to us, on this thread, while a scope lives:
// so every attention is met, whoever calls it (models, packed sequences, exchanged heads), and
// autograd, above, builds the same graph around a kept result as around a new one.

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::trainer {

/// ATen's fused attention forwards; their results are small (the output and its log-sum-exp) for
/// the time that they take. Attention by the formula (odd dtypes on a GPU) runs again.
class KeptResults {
 public:
  enum class Run { kFirst, kAgain };

  /// While it lives: keeps (kFirst), or answers with what was kept, in the same order (kAgain).
  class Scope {
   public:
    Scope(KeptResults& results, Run run);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    friend struct KeptResultsKernel;
    struct State;
    std::unique_ptr<State> state_;
  };

  /// Of what is kept now.
  int64_t bytes() const;

 private:
  friend struct KeptResultsKernel;
  /// One call's results. A result that was changed in place since is no longer its result: the
  /// operator then runs again.
  struct Call {
    std::vector<c10::IValue> results;
    std::vector<uint32_t> versions;
  };
  static bool unchanged(const Call& call);

  std::map<std::string, std::vector<Call>> calls_;  ///< by operator
  std::map<std::string, std::size_t> next_;         ///< in the second run
};

}  // namespace cosmos::trainer
