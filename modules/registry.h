#pragma once

namespace cosmos::modules {

/// Makes every built-in model known to make_model() and load_model() (modules/hub/registry.h).
/// Programs call it first; calling it again changes nothing.
void register_builtin_models();

}  // namespace cosmos::modules
