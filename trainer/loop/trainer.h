#pragma once

// The training loop. It knows steps, gradients, weights and files; what is learned is the recipe's.
//
//   Trainer(config, make_recipe(...), {.console = &console}).run();

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "modules/fp8/fp8.h"
#include "trainer/checkpoint/checkpoints.h"
#include "trainer/checkpoint/state.h"
#include "trainer/config/config.h"
#include "trainer/core/recipe.h"
#include "trainer/data/loader.h"
#include "trainer/loop/data_parallel.h"
#include "trainer/offload/activation_offload.h"
#include "trainer/optim/adamw.h"
#include "trainer/optim/ema.h"
#include "trainer/report/metrics_endpoint.h"
#include "trainer/report/report.h"
#include "trainer/report/run_folder.h"
#include "trainer/report/step_profile.h"
#include "trainer/resilience/flight_record.h"
#include "trainer/resilience/loss_guard.h"
#include "trainer/resilience/watchdog.h"

namespace cosmos::trainer {

struct TrainerOptions {
  /// auto: continue the run folder's newest complete checkpoint, if any. never: refuse a folder
  /// that has some. Anything else: the path of a checkpoint.
  std::string resume = "auto";
  Console* console = nullptr;
  /// Asked after every step; true = save and return.
  std::function<bool()> should_stop;
  /// The ranks that train together; null: this process alone. They share run.dir.
  std::shared_ptr<Group> world;
  /// Gets the last words when ranks hang (trainer.hang_timeout_s), from another thread.
  std::function<void(const std::string&)> last_words;
  int64_t local_rank = 0;  ///< among the ranks of this machine: which of its GPUs
};

struct RunResult {
  int64_t step = 0;                  ///< steps done
  bool finished = false;             ///< all of them
  bool stopped = false;              ///< should_stop said so
  bool saved = true;                 ///< the last save worked
  double loss = 0;                   ///< of the last step
  std::filesystem::path checkpoint;  ///< newest
};

class Trainer {
 public:
  /// Builds the model. Throws Error when the config is impossible.
  Trainer(Config config, std::shared_ptr<Recipe> recipe, TrainerOptions options = {});

  /// Trains until trainer.steps or should_stop. Throws Error when the loss is not finite and
  /// trainer.on_nonfinite says stop (the weights are then those of the step before, and the newest
  /// checkpoint stays).
  RunResult run();

  modules::Model& model() { return *model_; }

 private:
  struct StepResult {
    double loss = 0;
    double grad_norm = 0;
    double lr = 0;
    double data_seconds = 0;
    double seconds = 0;
    bool abandoned = false;  ///< between two micro-batches: state and step are those before it
    std::string fault;       ///< "": none, "nonfinite", "spike"; the update is left out
    Json row;                ///< further entries of the metrics line
    std::map<std::string, double> start;  ///< Recipe::start_metrics, at the first step
  };

  void build_model();
  std::shared_ptr<modules::BlockRunner> block_runner();
  std::shared_ptr<AwayMemory> away_memory(const std::string& place) const;
  void start();
  void train_and_record(RunResult& outcome);
  std::filesystem::path checkpoint_to_resume();
  void go_on_from(const std::filesystem::path& checkpoint, const Json& config);
  StepResult train_step();
  std::vector<double> loss_shares(const std::vector<Batch>& batches) const;
  Tensor accumulate(const std::vector<Batch>& batches, StepResult& result);
  void backward(const Tensor& loss, bool last);
  void count_bytes(Json& row);
  void add_times(Json& row);
  void end_profile();
  Tensor optimizer_step(double lr, const Tensor& loss);
  void answer_fault(const StepResult& result, const std::vector<Batch>& batches);
  std::string describe_fault(const StepResult& result, const std::vector<Batch>& batches) const;
  void roll_back();
  void start_watchdog();
  bool stop_cannot_wait();
  void phase(const char* name) { record_->enter(name, step_); }
  void log(const StepResult& result);
  void save();
  Json validate();
  Json sample();
  void describe_run();
  void finish_report();
  void report_failures();

  bool due(int64_t every) const;
  TrainState state();
  Json full_config() const;
  int64_t samples_per_step() const;

  Config config_;
  std::shared_ptr<Recipe> recipe_;
  TrainerOptions options_;
  torch::Device device_;
  std::shared_ptr<FlightRecord> record_ = std::make_shared<FlightRecord>();
  DataParallel parallel_;
  RunFolder folder_;
  Checkpoints checkpoints_;
  std::shared_ptr<AwayMemory> away_;                ///< of the state; null: on the device
  std::shared_ptr<ActivationOffload> activations_;  ///< null: they stay
  std::shared_ptr<modules::Model> model_;
  std::unique_ptr<modules::Fp8Layers> fp8_;  ///< null: trainer.precision is another
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<Ema> ema_;
  std::unique_ptr<DataLoader> loader_;
  std::shared_ptr<Dataset> validation_;
  LossGuard guard_;
  std::unique_ptr<Watchdog> watchdog_;
  StepProfile profile_;
  std::unique_ptr<MetricsEndpoint> endpoint_;

  int64_t step_ = 0;        ///< steps done
  int64_t first_step_ = 0;  ///< where this process began
  /// Steps of data ahead of step_: with another global batch than before, the data goes on where it
  /// was.
  int64_t data_offset_ = 0;
  double smooth_seconds_ = 0;
  std::optional<std::chrono::steady_clock::time_point>
      stop_asked_;                   ///< when should_stop first said so
  Json validated_ = Json::object();  ///< val_loss of this very step, for the manifest
  ShardTraffic traffic_;             ///< up to the last step
  int64_t moved_ = 0;                ///< bytes of activations that tensor ranks exchanged, the same
  int64_t context_bytes_ = 0, pipeline_bytes_ = 0, offloaded_bytes_ = 0;  ///< the same
  std::size_t failures_reported_ = 0;
  Facts facts_;  ///< for report.html
};

}  // namespace cosmos::trainer
