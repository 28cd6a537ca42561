#pragma once

// What a pickle's calls amount to; used by the interpreter in pickle.cpp only.

#include "modules/hub/pickle.h"

namespace cosmos::modules {

/// The value of calling the class or function `what` (a kClass) with the tuple `arguments`.
PickleValue build_pickle_object(const PickleValue& what, const PickleValue& arguments,
                                const std::string& where);

/// Gives a record its state. A dict's further attributes (a state dict's versions) are not kept.
void set_pickle_state(PickleValue& object, PickleValue* state, const std::string& where);

/// The storage that a persistent id names: ("storage", type, key, location, elements[, view]).
PickleValue build_pickle_storage(const PickleValue& id, const std::string& where);

}  // namespace cosmos::modules
