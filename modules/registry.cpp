#include "modules/registry.h"

#include <utility>
#include <vector>

#include "modules/clip/aesthetic.h"
#include "modules/clip/vision_model.h"
#include "modules/dit/action_transformer.h"
#include "modules/dit/multiview_transformer.h"
#include "modules/dit/transformer.h"
#include "modules/hub/registry.h"
#include "modules/text/t5/encoder.h"
#include "modules/tokenizer/autoencoder_kl_cosmos.h"
#include "modules/tokenizer/autoencoder_kl_wan.h"
#include "modules/tokenizer/discrete_video.h"
#include "modules/tokenizer/image_tokenizer.h"
#include "modules/transfer/control_net.h"
#include "modules/transfer/multiview_control_net.h"
#include "modules/transfer/transfer1.h"
#include "modules/transnet/transnet.h"
#include "modules/vlm/language_model.h"

namespace cosmos::modules {
namespace {

std::shared_ptr<Model> make_image_tokenizer(const Json& config, const std::string& where) {
  auto model = std::make_shared<CosmosImageTokenizer>(config, where);
  const std::string asked = config.value("_class_name", model->class_name());
  require(asked == model->class_name(), where, ": ", asked, " with ",
          model->code_levels().empty() ? "no levels" : "levels", "; that is a ",
          model->class_name());
  return model;
}

}  // namespace

// One line a model. An explicit table: static registration would be dropped by the linker wherever
// nothing else of the file is used.
void register_builtin_models() {
  using Entry = std::pair<const char*, ModelFactory>;
  const std::vector<Entry> models = {
      {"AestheticPredictor",
       [](const Json& config, const std::string& where) {
         return std::make_shared<AestheticPredictor>(config, where);
       }},
      {"AutoencoderKLCosmos",
       [](const Json& config, const std::string& where) {
         return std::make_shared<AutoencoderKLCosmos>(config, where);
       }},
      {"AutoencoderKLWan",
       [](const Json& config, const std::string& where) {
         return std::make_shared<AutoencoderKLWan>(config, where);
       }},
      {"CosmosActionTransformer3DModel",
       [](const Json& config, const std::string& where) -> std::shared_ptr<Model> {
         return std::make_shared<CosmosActionTransformer3DModel>(
             ActionConfig::from_json(config, where));
       }},
      {"CosmosControlNetModel",
       [](const Json& config, const std::string& where) -> std::shared_ptr<Model> {
         return std::make_shared<CosmosControlNetModel>(ControlNetConfig::from_json(config, where));
       }},
      {"CosmosDiscreteImageTokenizer", make_image_tokenizer},
      {"CosmosDiscreteVideoTokenizer",
       [](const Json& config, const std::string& where) {
         return std::make_shared<CosmosDiscreteVideoTokenizer>(config, where);
       }},
      {"CosmosImageTokenizer", make_image_tokenizer},
      {"CosmosMultiViewControlNetModel",
       [](const Json& config, const std::string& where) -> std::shared_ptr<Model> {
         return std::make_shared<CosmosMultiViewControlNetModel>(
             MultiViewControlConfig::from_json(config, where));
       }},
      {"CosmosMultiViewTransformer3DModel",
       [](const Json& config, const std::string& where) -> std::shared_ptr<Model> {
         return std::make_shared<CosmosMultiViewTransformer3DModel>(
             MultiViewConfig::from_json(config, where));
       }},
      {"CosmosTransfer1ControlNetModel",
       [](const Json& config, const std::string& where) -> std::shared_ptr<Model> {
         return std::make_shared<CosmosTransfer1ControlNetModel>(
             Transfer1Config::from_json(config, where));
       }},
      {"CosmosTransformer3DModel",
       [](const Json& config, const std::string& where) -> std::shared_ptr<Model> {
         return std::make_shared<CosmosTransformer3DModel>(DitConfig::from_json(config, where));
       }},
      {"T5EncoderModel",
       [](const Json& config, const std::string& where) {
         return std::make_shared<T5EncoderModel>(config, where);
       }},
      {"TransNetV2",
       [](const Json& config, const std::string& where) {
         return std::make_shared<TransNetV2>(config, where);
       }},
  };
  for (const auto& [name, factory] : models) register_model(name, factory);
  for (const std::string name : {"CLIPModel", "CLIPVisionModelWithProjection"})
    register_model(name, [](const Json& config, const std::string& where) {
      return std::make_shared<ClipVisionModel>(config, where);
    });
  for (const std::string name :
       {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM",
        "Qwen2_5_VLForConditionalGeneration", "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration"})
    register_model(name, [name](const Json& config, const std::string& where) {
      return std::make_shared<LanguageModel>(LanguageModelConfig::from_json(name, config, where));
    });
}

}  // namespace cosmos::modules
