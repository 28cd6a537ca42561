#include "ops/core/check.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/ScalarType.h>
#include <sstream>

namespace cosmos::ops {
namespace {

const char* dtype_name(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    default:
      return c10::toString(type);
  }
}

}  // namespace

std::string describe(const at::Tensor& x) {
  if (!x.defined()) return "an undefined tensor";
  std::ostringstream out;
  out << dtype_name(x.scalar_type()) << " " << x.sym_sizes() << " on " << x.device();
  return out.str();
}

DType dtype_of(const char* op, const char* name, const at::Tensor& x) {
  require(x.defined(), op, ": ", name, " is an undefined tensor");
  switch (x.scalar_type()) {
    case at::kFloat:
      return DType::kFloat32;
    case at::kDouble:
      return DType::kFloat64;
    case at::kBFloat16:
      return DType::kBFloat16;
    case at::kHalf:
      return DType::kFloat16;
    default:
      fail(op, ": ", name, ": expected float32, bfloat16, float16 or float64, got ", describe(x));
  }
}

at::ScalarType accumulate_dtype(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

void check_alike(const char* op, const char* x_name, const at::Tensor& x, const char* y_name,
                 const at::Tensor& y) {
  require(y.defined() && y.scalar_type() == x.scalar_type() && y.device() == x.device(), op, ": ",
          y_name, ": expected ", dtype_name(x.scalar_type()), " on ", x.device(), " as ", x_name,
          ", got ", describe(y));
}

void check_same(const char* op, const char* x_name, const at::Tensor& x, const char* y_name,
                const at::Tensor& y) {
  check_alike(op, x_name, x, y_name, y);
  require(y.sym_sizes() == x.sym_sizes(), op, ": ", y_name, ": expected shape ", x.sym_sizes(),
          " as ", x_name, ", got ", y.sym_sizes());
}

void refuse_double_backward(const char* op) {
  require(!at::GradMode::is_enabled(), op,
          ": no second derivative (create_graph is on); COSMOS_OPS=reference has one");
}

}  // namespace cosmos::ops
