#pragma once

namespace cosmos {

/// Version of the suite ("0.1.0").
const char* version();

}  // namespace cosmos
