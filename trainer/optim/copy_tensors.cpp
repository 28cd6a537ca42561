#include "trainer/optim/copy_tensors.h"

#include <sstream>

namespace cosmos::trainer {
namespace {

// The first few names, and how many more there are.
class Names {
 public:
  void add(const std::string& name) {
    if (count_++ < 5) text_ << (count_ > 1 ? ", " : "") << name;
  }
  void append_to(std::ostringstream& out, const char* title) const {
    if (count_ == 0) return;
    out << "; " << count_ << " " << title << ": " << text_.str() << (count_ > 5 ? ", ..." : "");
  }

 private:
  int64_t count_ = 0;
  std::ostringstream text_;
};

}  // namespace

void copy_tensors(const TensorMap& from, const TensorMap& to, const std::string& where,
                  const TakeNamed& take) {
  Names missing, unexpected, reshaped;
  for (const auto& [name, target] : to) {
    auto found = from.find(name);
    if (found == from.end()) {
      missing.add(name);
    } else if (found->second.sizes() != target.sizes()) {
      std::ostringstream shapes;
      shapes << name << " (file " << found->second.sizes() << ", wanted " << target.sizes() << ")";
      reshaped.add(shapes.str());
    }
  }
  for (const auto& [name, tensor] : from)
    if (to.count(name) == 0) unexpected.add(name);
  std::ostringstream problems;
  missing.append_to(problems, "missing");
  unexpected.append_to(problems, "unexpected");
  reshaped.append_to(problems, "of another shape");
  require(problems.str().empty(), where, ": does not fit this run", problems.str());

  torch::NoGradGuard no_grad;
  for (const auto& [name, target] : to)
    take ? take(name, from.at(name)) : void(Tensor(target).copy_(from.at(name)));
}

}  // namespace cosmos::trainer
