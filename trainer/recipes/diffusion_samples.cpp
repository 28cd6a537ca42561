// Clips that the "predict" recipe generates while it trains, for report.html.

#include "modules/diffusion/scheduler_config.h"
#include "modules/hub/json_file.h"
#include "modules/pipeline/world.h"
#include "trainer/data/media_writer.h"
#include "trainer/recipes/diffusion.h"

namespace cosmos::trainer {
namespace {

// The sampler of the generation that the formulation belongs to.
Json sampler_config(const modules::DiffusionOptions& options) {
  switch (options.formulation) {
    case modules::Formulation::kEdm:
      return scheduler_json(modules::EdmEulerConfig{.sigma_data = options.sigma_data,
                                                    .final_sigmas_type = "sigma_min"});
    case modules::Formulation::kPredict2:
      return scheduler_json(modules::Res2abConfig{});
    case modules::Formulation::kRectifiedFlow:
      break;
  }
  auto config = modules::predict25_scheduler(/*post_trained_2b=*/false);
  config.flow_shift = options.shift;
  return scheduler_json(config);
}

double mean_change(const Tensor& frames) {
  const Tensor f = frames.to(torch::kFloat32);
  return f.size(0) < 2 ? 0 : (f.slice(0, 1) - f.slice(0, 0, -1)).abs().mean().item<double>();
}

double psnr(const Tensor& a, const Tensor& b) {
  const double error =
      (a.to(torch::kFloat64) - b.to(torch::kFloat64)).square().mean().item<double>();
  return 10 * std::log10(255.0 * 255.0 / std::max(error, 1e-10));
}

}  // namespace

std::vector<std::filesystem::path> DiffusionRecipe::write_samples(const std::filesystem::path& dir,
                                                                  int64_t step) {
  if (!validation_data() || !tokenizer()) return {};
  const torch::NoGradGuard no_grad;
  std::vector<std::filesystem::path> files;
  const int64_t count = std::min(config_.samples.count, validation_->size());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t item = i * validation_->size() / count;
    const Sample sample = validation_->get(item, 0, item);
    const Tensor latents = sample.tensors.at("latents").unsqueeze(0).to(device());
    const auto cameras = sample.tensors.find("view_indices");
    const int64_t views = cameras == sample.tensors.end() ? 1 : cameras->second.size(0);
    const int64_t length = latents.size(2) / views;  // of a view
    const int64_t given = std::min(config_.samples.condition_frames, length - 1);
    const modules::GivenFrames frames{
        .latents = latents,
        .indicator = modules::condition_indicator({given}, length).repeat({1, 1, views, 1, 1})};
    const auto embeds = sample.tensors.find("text_embeds");
    const Tensor no_text = modules::no_text(*transformer(), 1).repeat({1, views, 1});
    const auto sampler = modules::make_sampler(sampler_config(diffusion_), config_.samples.steps);
    modules::Philox random(static_cast<uint64_t>(i), modules::Purpose::kSampler);
    const auto control = sample.tensors.find("control_latents");
    ControlDraw shown_control;
    if (control != sample.tensors.end())
      shown_control.latents = control->second.unsqueeze(0).to(device());
    auto options = network_options(shown_control, {});
    if (const auto action = sample.tensors.find("action"); action != sample.tensors.end())
      options.action = action->second.unsqueeze(0).to(device());
    if (cameras != sample.tensors.end()) options.view_indices = cameras->second.unsqueeze(0);
    const Tensor generated =
        denoise(modules::dit_network(*transformer(), options), *sampler,
                random.normal(latents.sizes()).to(device()), frames,
                embeds == sample.tensors.end() ? no_text : embeds->second.unsqueeze(0), no_text,
                {.diffusion = diffusion_,
                 .guidance = config_.samples.guidance,
                 .condition_time = config_.condition_time});

    // Views below each other.
    const auto pixels = [&](const Tensor& z) {
      Tensors rows;
      for (const Tensor& view : z.chunk(views, 2)) {
        const Tensor raw = tokenizer_->denormalize_latents(view / diffusion_.sigma_data);
        rows.push_back(to_frames(tokenizer_->decode(raw)[0].clamp(-1, 1).cpu()));
      }
      return torch::cat(rows);
    };
    const Tensor clip = pixels(generated), decoded = pixels(latents);
    const Sample source = validation_clips_->get(item, 0, item);
    const auto video = source.tensors.find("video");
    const auto rows_of = [&](const Tensor& given) {  // [3 V, T, H, W]
      return given.unflatten(0, {views, 3}).permute({0, 2, 3, 4, 1}).flatten(0, 1).contiguous();
    };
    const Tensor real = video == source.tensors.end() ? decoded : rows_of(video->second);

    // Rows: the real clip, what the tokenizer makes of it, its control videos where there are any,
    // what the model makes of its start.
    const std::string name = "step-" + std::to_string(step) + "-clip-" + std::to_string(i);
    files.push_back(dir / (name + ".png"));
    Tensors rows = {real, decoded, clip};
    Json names = {"real", "tokenizer", "generated"};
    if (const auto shown = source.tensors.find("control"); shown != source.tensors.end()) {
      for (const Tensor& control : shown->second.split(3 * views)) {
        rows.insert(rows.end() - 1, rows_of(control));
        names.insert(names.end() - 1, "control");
      }
    }
    write_png(files.back(), contact_sheet(torch::cat(rows), real.size(0) / views));
    modules::write_json(dir / (name + ".json"), {{"item", validation_->item_name(item)},
                                                 {"rows", names},
                                                 {"condition_frames", given},
                                                 {"first_frame_psnr", psnr(clip[0], real[0])},
                                                 {"frame_change", mean_change(clip)},
                                                 {"frame_change_real", mean_change(real)}});
  }
  return files;
}

}  // namespace cosmos::trainer
