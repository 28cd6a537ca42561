#include "ops/core/version.h"

namespace cosmos {

const char* version() {
  return "0.1.0";
}

}  // namespace cosmos
