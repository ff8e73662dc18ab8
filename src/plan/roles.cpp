#include "plan/roles.h"

#include <algorithm>
#include <utility>

#include "model/generation.h"
#include "model/task_head.h"
#include "plan/objective.h"
#include "plan/resolve.h"

namespace steelyard::plan {

namespace {

using facts::Objective;
using facts::Role;
using model::TaskHead;

// A generation's cache grows token by token; it is followed in so many steps.
constexpr std::int64_t kGrowthStages = 4;
// Backward multiplies twice as much as forward.
constexpr double kTrainedPasses = 3.0;

class Builder {
 public:
  Builder(const Request& request, const facts::Job& job) : request_(request), job_(job) {}

  Result<Roles> build();

 private:
  Result<model::Graph> graph_of(const facts::ModelSource& source, std::int64_t rows,
                                std::int64_t sequence, const model::TaskHeadOptions& head) const;
  [[nodiscard]] const facts::ModelSource& source_of(std::size_t role) const {
    return role < request_.roles.size() ? request_.roles[role] : request_.model;
  }
  Result<void> add_role(std::size_t index);
  Result<void> ask(const std::string& label, const facts::ModelSource& source, TaskHead head,
                   step::AskedModel model);
  Result<void> add_policy_passes();
  Result<void> add_generation();
  Result<void> add_engine(step::Generation& generation) const;
  void count(const model::Graph& graph, double passes);
  Result<void> count_whole(const facts::ModelSource& source, const model::Graph& graph,
                           const model::TaskHeadOptions& head, double passes);
  [[nodiscard]] bool keeps_scores() const;
  // Of one rank of those that share a sequence.
  [[nodiscard]] std::int64_t own_tokens() const {
    return *job_.train.sequence_length / job_.parallel.context;
  }
  // Rows that are asked about at once.
  [[nodiscard]] std::int64_t rows() const {
    if (rolls_out(job_)) return *job_.train.rollout.score_batch;
    return checked_multiply(*job_.train.micro_batch, rows_of_sample(job_));
  }

  const Request& request_;
  const facts::Job& job_;
  Roles roles_;
};

Result<model::Graph> Builder::graph_of(const facts::ModelSource& source, std::int64_t rows,
                                       std::int64_t sequence,
                                       const model::TaskHeadOptions& head) const {
  model::SampleShape shape = sample_shape(job_, rows);
  shape.sequence = sequence;
  STEELYARD_TRY(graph, model::build(source, shape));
  return model::with_task_head(std::move(graph), head);
}

// `passes` forward passes' worth of arithmetic for each row.
void Builder::count(const model::Graph& graph, double passes) {
  const double rows = static_cast<double>(graph.batch / rows_of_sample(job_));
  roles_.flops_per_sample += model::forward_flops(graph) * passes / rows;
}

// The same where ranks share each sequence: of all its tokens.
Result<void> Builder::count_whole(const facts::ModelSource& source, const model::Graph& graph,
                                  const model::TaskHeadOptions& head, double passes) {
  if (job_.parallel.context == 1) {
    count(graph, passes);
    return {};
  }
  STEELYARD_TRY(whole, graph_of(source, graph.batch, *job_.train.sequence_length, head));
  count(whole, passes);
  return {};
}

Result<void> Builder::ask(const std::string& label, const facts::ModelSource& source, TaskHead head,
                          step::AskedModel model) {
  const bool scores = head == TaskHead::scores;
  const model::TaskHeadOptions end{.head = head, .keeps = scores ? 0 : kept_logits(job_)};
  STEELYARD_TRY(graph, graph_of(source, rows(), own_tokens(), end));
  STEELYARD_CHECK(count_whole(source, graph, end, 1.0));
  model.label = label;
  model.graph = std::move(graph);
  roles_.alignment.asked.push_back(std::move(model));
  return {};
}

Result<void> Builder::add_role(std::size_t index) {
  const facts::RoleModel& role = job_.model.roles[index];
  const facts::ModelSource& source = source_of(index);
  const bool waits = role.offload == facts::OffloadTo::cpu;
  if (role.role == Role::reference) {
    if (*job_.train.reference != facts::ReferenceUse::live) return {};
    step::AskedModel model{.own_weights = !role.shared,
                           .adapters_off = role.shared,
                           .as_policy = role.shared,
                           .waits = waits};
    return ask("reference", source, TaskHead::log_probabilities, std::move(model));
  }
  if (role.role == Role::reward) {
    return ask("reward", source, TaskHead::scores, {.waits = waits});
  }
  if (*role.trainable) {
    const model::TaskHeadOptions end{.head = TaskHead::scores_loss};
    STEELYARD_TRY(critic, graph_of(source, *job_.train.micro_batch, own_tokens(), end));
    STEELYARD_CHECK(count_whole(source, critic, end,
                                kTrainedPasses * static_cast<double>(*job_.train.rollout.epochs)));
    roles_.alignment.critic.push_back(std::move(critic));
  }
  return ask("critic", source, TaskHead::scores, {.own_weights = !*role.trainable, .waits = waits});
}

// TRL's PPOTrainer takes the log-probabilities of its samples from the scores of generate().
bool Builder::keeps_scores() const {
  const auto& words = request_.constants.framework.operators;
  const auto word = words.find("generation_scores");
  return job_.train.objective == Objective::ppo && word != words.end() && word->second == "kept" &&
         job_.train.rollout.engine == facts::RolloutEngine::model;
}

// The policy itself, asked without gradients: for the log-probabilities that its samples had when
// they were written, where it has been updated since (grpo_trainer.py: old_per_token_logps), and
// for KTO's mismatched pairs (kto_trainer.py: KL_logits).
Result<void> Builder::add_policy_passes() {
  const step::AskedModel policy{.own_weights = false, .as_policy = true};
  if (job_.train.objective == Objective::kto) {
    const auto reference = roles_.alignment.asked;
    roles_.alignment.asked.clear();
    STEELYARD_CHECK(ask("policy", request_.model, TaskHead::log_probabilities, policy));
    for (int pass = 0; pass < 2; ++pass) {  // the reference reads both too, its weights once
      for (step::AskedModel model : reference) {
        model.own_weights = model.own_weights && pass == 0;
        if (pass > 0) {
          STEELYARD_CHECK(
              count_whole(request_.model, model.graph, {.head = TaskHead::log_probabilities}, 1.0));
        }
        roles_.alignment.asked.push_back(std::move(model));
      }
    }
    return {};
  }
  if (!rolls_out(job_) || keeps_scores()) return {};
  if (job_.train.objective == Objective::grpo && updates_of(job_) == 1) return {};
  return ask("policy", request_.model, TaskHead::log_probabilities, policy);
}

Result<void> Builder::add_engine(step::Generation& generation) const {
  const facts::RolloutKeys& rollout = job_.train.rollout;
  if (rollout.engine != facts::RolloutEngine::colocated) return {};
  const auto& card = request_.machine.gpu.memory;
  if (!card) {
    return fail({.code = ErrorCode::missing_value,
                 .subject = "machine.vram_gib",
                 .found = "nothing",
                 .accepted = "the memory of " + request_.machine.gpu.id,
                 .hint = "train.rollout.memory_fraction is a share of it"});
  }
  generation.engine = *card * Ratio(rollout.memory_fraction);
  generation.engine_sleeps = rollout.sleeps;
  return {};
}

Result<void> Builder::add_generation() {
  const facts::RolloutKeys& rollout = job_.train.rollout;
  if (rollout.engine == facts::RolloutEngine::separate) return {};
  // Ranks that share sequences when they learn write different ones.
  const std::int64_t samples = ceil_divide(*rollout.samples, job_.parallel.context);
  const std::int64_t rows = std::min(*rollout.generation_batch, samples);
  const std::int64_t prompt = *rollout.prompt_length, answer = *rollout.response_length;
  const model::TaskHeadOptions last{.head = TaskHead::logits, .keeps = 1};
  step::Generation generation;
  generation.batches = ceil_divide(samples, rows);
  STEELYARD_TRY(read, graph_of(request_.model, rows, prompt, last));
  count(read, 1.0);
  generation.prompt = std::move(read);
  std::int64_t written = 0;
  for (std::int64_t stage = 0; stage < kGrowthStages && written < answer; ++stage) {
    const std::int64_t tokens = ceil_divide(answer - written, kGrowthStages - stage);
    written += tokens;
    STEELYARD_TRY(one, graph_of(request_.model, rows, 1, last));
    model::Graph token = model::with_past(std::move(one), prompt + written);
    count(token, static_cast<double>(tokens));
    generation.stages.push_back({std::move(token), tokens, prompt + written});
  }
  if (keeps_scores()) {
    const std::int64_t tokens = checked_multiply(samples, answer);
    generation.kept_scores = checked_multiply(tokens, generation.prompt.vocabulary);
  }
  STEELYARD_CHECK(add_engine(generation));
  roles_.alignment.generation.push_back(std::move(generation));
  return {};
}

// Ids and their mask as int64; of each token of an answer fp32 numbers: log-probabilities of the
// policy and the reference, advantages, and for a critic its values and their targets.
Bytes rollout_bytes(const facts::Job& job) {
  constexpr std::int64_t kIds = 2 * 8;
  const std::int64_t numbers = job.train.objective == Objective::ppo ? 5 : 3;
  const facts::RolloutKeys& rollout = job.train.rollout;
  const std::int64_t of_sample = checked_multiply(*job.train.sequence_length, kIds) +
                                 checked_multiply(*rollout.response_length, numbers * 4);
  return Bytes(checked_multiply(*rollout.samples, of_sample));
}

Result<Roles> Builder::build() {
  step::Alignment& alignment = roles_.alignment;
  for (std::size_t i = 0; i < job_.model.roles.size(); ++i) STEELYARD_CHECK(add_role(i));
  STEELYARD_CHECK(add_policy_passes());
  if (rolls_out(job_)) {
    STEELYARD_CHECK(add_generation());
    const facts::RolloutKeys& rollout = job_.train.rollout;
    alignment.asks = ceil_divide(*rollout.samples, *rollout.score_batch);
    alignment.updates = updates_of(job_);
    alignment.rollout = rollout_bytes(job_);
    const auto& words = request_.constants.framework.operators;
    const auto word = words.find("actor_critic");
    alignment.joint_critic = word != words.end() && word->second == "joint";
  }
  return std::move(roles_);
}

}  // namespace

Result<Roles> roles_of(const Request& request, const facts::Job& job) {
  return Builder(request, job).build();
}

}  // namespace steelyard::plan
