#pragma once

namespace cosmos::trainer {

/// Makes the recipes of this folder available to configs. Programs call it once, at start: an
/// explicit table, because a linker may drop objects that only register themselves.
void register_builtin_recipes();

}  // namespace cosmos::trainer
