#include "trainer/recipes/builtin.h"

#include "trainer/core/recipe.h"

namespace cosmos::trainer {

// One line a recipe: register_recipe("type", make_it).
void register_builtin_recipes() {}

}  // namespace cosmos::trainer
