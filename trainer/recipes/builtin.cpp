#include "trainer/recipes/builtin.h"

#include "trainer/core/recipe.h"
#include "trainer/recipes/action.h"
#include "trainer/recipes/diffusion.h"
#include "trainer/recipes/dpo.h"
#include "trainer/recipes/grpo.h"
#include "trainer/recipes/multiview.h"
#include "trainer/recipes/sft.h"
#include "trainer/recipes/tokenizer.h"
#include "trainer/recipes/transfer.h"

namespace cosmos::trainer {

// One line a recipe.
void register_builtin_recipes() {
  register_recipe("action", make_action_recipe);
  register_recipe("dpo", make_dpo_recipe);
  register_recipe("grpo", make_grpo_recipe);
  register_recipe("multiview", make_multiview_recipe);
  register_recipe("predict", make_diffusion_recipe);
  register_recipe("sft", make_sft_recipe);
  register_recipe("tokenizer", make_tokenizer_recipe);
  register_recipe("transfer", make_transfer_recipe);
}

}  // namespace cosmos::trainer
