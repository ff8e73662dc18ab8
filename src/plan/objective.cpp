#include "plan/objective.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "model/task_head.h"

namespace steelyard::plan {

namespace {

using facts::Job;
using facts::Objective;
using facts::Origin;
using facts::ReferenceUse;
using facts::Role;

// trl: GRPOConfig (num_generations, max_prompt_length, max_completion_length, num_iterations),
// PPOConfig (num_ppo_epochs, local_rollout_forward_batch_size).
constexpr std::int64_t kGroupSize = 8;
constexpr std::int64_t kPromptLength = 512;
constexpr std::int64_t kResponseLength = 256;
constexpr std::int64_t kPpoEpochs = 4;
constexpr std::int64_t kPpoForwardBatch = 64;

Error impossible(std::string subject, std::string found, std::string accepted, std::string hint) {
  return {.code = ErrorCode::impossible_combination,
          .subject = std::move(subject),
          .found = std::move(found),
          .accepted = std::move(accepted),
          .hint = std::move(hint)};
}

template <class T>
void fill(Job& job, std::optional<T>& field, const char* key, T value,
          Origin origin = Origin::fallback) {
  if (field) return;
  field = std::move(value);
  job.origins[key] = {origin, {}};
}

bool compares(Objective objective) {  // a policy with a reference
  return objective == Objective::dpo || objective == Objective::kto ||
         objective == Objective::ppo || objective == Objective::grpo;
}

bool takes(Objective objective, Role role) {
  switch (role) {
    case Role::policy: return false;
    case Role::reference: return compares(objective);
    case Role::reward: return objective == Objective::ppo || objective == Objective::grpo;
    case Role::critic: return objective == Objective::ppo;
  }
  return false;
}

facts::RoleModel* role_of(Job& job, Role role) {
  const auto found = std::find_if(job.model.roles.begin(), job.model.roles.end(),
                                  [role](const auto& r) { return r.role == role; });
  return found == job.model.roles.end() ? nullptr : &*found;
}

facts::RoleModel& add_role(Job& job, Role role, bool trains) {
  facts::RoleModel& added = job.model.roles.emplace_back();
  added.role = role;
  added.trainable = trains;
  return added;
}

Result<void> check_roles(Job& job) {
  const std::string objective(name_of(job.train.objective));
  for (std::size_t i = 0; i < job.model.roles.size(); ++i) {
    facts::RoleModel& model = job.model.roles[i];
    const std::string key = fmt::format("model.roles[{}]", i);
    const std::string role(name_of(model.role));
    if (!takes(job.train.objective, model.role)) {
      return fail(impossible(key + ".role", role,
                             "the models that train.objective = \"" + objective + "\" asks",
                             "dpo and kto ask a reference; ppo a reference, a reward model and a "
                             "critic; grpo a reference and a reward model"));
    }
    if (role_of(job, model.role) != &model) {
      return fail(impossible(key + ".role", "a second " + role, "one of each role", ""));
    }
    const bool trains = model.role == Role::critic;
    if (model.trainable.value_or(trains) && !trains) {
      return fail(impossible(key + ".trainable", "true", "false: a " + role + " is only asked",
                             "the policy and the critic train"));
    }
    if (!model.trainable) model.trainable = trains;
    if (*model.trainable && model.offload != facts::OffloadTo::none) {
      return fail(impossible(key + ".offload", std::string(name_of(model.offload)),
                             "none where the model trains",
                             "[offload] says where the states of what trains lie"));
    }
  }
  return {};
}

// TRL copies the policy where no reference is given, but for adapters: with those off the base is
// the reference (dpo_trainer.py; grpo_trainer.py, where beta = 0 asks none).
Result<void> resolve_reference(Job& job) {
  facts::TrainKeys& train = job.train;
  facts::RoleModel* given = role_of(job, Role::reference);
  const bool usual =
      compares(train.objective) && (train.objective != Objective::grpo || given != nullptr);
  fill(job, train.reference, "train.reference", usual ? ReferenceUse::live : ReferenceUse::none);
  if (*train.reference != ReferenceUse::none && !compares(train.objective)) {
    return fail(impossible("train.reference", std::string(name_of(*train.reference)),
                           "none: train.objective is " + std::string(name_of(train.objective)),
                           "dpo, kto, ppo and grpo compare with a reference"));
  }
  if (*train.reference == ReferenceUse::precomputed && rolls_out(job)) {
    return fail(impossible("train.reference", "precomputed", "live or none",
                           "samples that the policy writes are new in every step"));
  }
  if (*train.reference == ReferenceUse::none && given != nullptr) {
    return fail(impossible("train.reference", "none", "live or precomputed",
                           "the job has a model with role = \"reference\""));
  }
  if (*train.reference == ReferenceUse::live && given == nullptr) {
    given = &add_role(job, Role::reference, false);
  }
  const bool adapters = train.method != facts::Method::full;
  const bool own = given != nullptr && (!std::holds_alternative<std::monostate>(given->config) ||
                                        !given->set.is_null());
  if (given != nullptr) given->shared = adapters && !own;
  if (train.objective == Objective::ppo && role_of(job, Role::critic) == nullptr) {
    add_role(job, Role::critic, true);
  }
  return {};
}

// A sample is a prompt and an answer.
Result<void> resolve_lengths(Job& job) {
  facts::RolloutKeys& rollout = job.train.rollout;
  std::optional<std::int64_t>& whole = job.train.sequence_length;
  if (whole && *whole < 2) {
    return fail(impossible("train.sequence_length", std::to_string(*whole),
                           "at least 2: a prompt and an answer", ""));
  }
  const std::int64_t answer = whole ? std::min(kResponseLength, *whole / 2) : kResponseLength;
  if (whole && rollout.prompt_length && !rollout.response_length) {
    fill(job, rollout.response_length, "train.rollout.response_length",
         *whole - *rollout.prompt_length);
  }
  fill(job, rollout.response_length, "train.rollout.response_length", answer);
  fill(job, rollout.prompt_length, "train.rollout.prompt_length",
       whole ? *whole - *rollout.response_length : kPromptLength);
  const std::int64_t sum = *rollout.prompt_length + *rollout.response_length;
  fill(job, whole, "train.sequence_length", sum);
  if (*whole == sum && *rollout.prompt_length > 0 && *rollout.response_length > 0) return {};
  return fail(impossible("train.sequence_length", std::to_string(*whole),
                         fmt::format("{} = prompt_length {} + response_length {}", sum,
                                     *rollout.prompt_length, *rollout.response_length),
                         "leave train.sequence_length out, or one of the two"));
}

Result<void> resolve_rollout(Job& job) {
  facts::TrainKeys& train = job.train;
  facts::RolloutKeys& rollout = train.rollout;
  const bool ppo = train.objective == Objective::ppo;
  STEELYARD_CHECK(resolve_lengths(job));
  const std::int64_t learned = checked_multiply(*train.micro_batch, *train.gradient_accumulation);
  fill(job, rollout.samples, "train.rollout.samples", learned);
  const std::int64_t side = ppo ? std::min(kPpoForwardBatch, *rollout.samples) : *rollout.samples;
  fill(job, rollout.generation_batch, "train.rollout.generation_batch", side);
  fill(job, rollout.score_batch, "train.rollout.score_batch",
       ppo ? side : std::min(*train.micro_batch, *rollout.samples));
  fill(job, rollout.epochs, "train.rollout.epochs", ppo ? kPpoEpochs : std::int64_t{1});
  fill(job, rollout.group_size, "train.rollout.group_size", ppo ? std::int64_t{1} : kGroupSize);
  if (*rollout.samples % learned != 0) {
    return fail(
        impossible("train.rollout.samples", std::to_string(*rollout.samples),
                   fmt::format("a multiple of {} = micro_batch {} x gradient_accumulation {}",
                               learned, *train.micro_batch, *train.gradient_accumulation),
                   ""));
  }
  const std::int64_t all = checked_multiply(*rollout.samples, *job.parallel.data);
  if (all % *rollout.group_size != 0) {
    return fail(impossible("train.rollout.group_size", std::to_string(*rollout.group_size),
                           fmt::format("a divisor of {} = samples {} x data-parallel ranks {}", all,
                                       *rollout.samples, *job.parallel.data),
                           "raise train.rollout.samples or train.gradient_accumulation"));
  }
  return {};
}

bool is_given(const Job& job, const std::string& prefix) {
  const auto found = job.origins.lower_bound(prefix);
  return found != job.origins.end() && found->first.starts_with(prefix) &&
         found->second.origin == Origin::job;
}

}  // namespace

bool rolls_out(const Job& job) {
  return job.train.objective == Objective::ppo || job.train.objective == Objective::grpo;
}

namespace {

// Samples of different lengths are padded to the longest, or packed into full rows.
Result<void> check_lengths(const Job& job) {
  const auto& mean = job.train.sequence_length_mean;
  if (!mean) return {};
  if (!job.train.sequence_length) {
    return fail(impossible("train.sequence_length_mean", fmt::format("{}", *mean),
                           "a value beside train.sequence_length, the longest sample or the row",
                           "set train.sequence_length"));
  }
  if (*mean <= static_cast<double>(*job.train.sequence_length)) return {};
  return fail(
      impossible("train.sequence_length_mean", fmt::format("{}", *mean),
                 fmt::format("at most train.sequence_length = {}", *job.train.sequence_length),
                 "a mean is no more than the longest"));
}

}  // namespace

Result<void> resolve_objective(Job& job) {
  STEELYARD_CHECK(check_lengths(job));
  const std::string objective(name_of(job.train.objective));
  if (!rolls_out(job) && is_given(job, "train.rollout")) {
    return fail(impossible("train.rollout", "a value", "no value: train.objective is " + objective,
                           "ppo and grpo learn from samples of their own"));
  }
  STEELYARD_CHECK(check_roles(job));
  STEELYARD_CHECK(resolve_reference(job));
  if (job.train.objective != Objective::sft && job.train.loss != facts::Loss::full) {
    Error error = impossible("train.loss", std::string(name_of(job.train.loss)),
                             "full: train.objective is " + objective, "");
    error.code = ErrorCode::not_supported;
    return fail(std::move(error));
  }
  if (!rolls_out(job)) return {};
  return resolve_rollout(job);
}

std::int64_t rows_of_sample(const Job& job) {
  switch (job.train.objective) {
    case Objective::dpo:
    case Objective::orpo:
    case Objective::reward: return 2;
    default: return 1;
  }
}

double tokens_of_sample(const Job& job) {
  const facts::TrainKeys& train = job.train;
  double tokens = static_cast<double>(train.sequence_length.value_or(0));  // 0: pictures
  if (!train.packed) tokens = train.sequence_length_mean.value_or(tokens);
  return tokens * static_cast<double>(rows_of_sample(job));
}

double tokens_on_storage(const Job& job, std::int64_t sequence) {
  if (rolls_out(job)) {
    return static_cast<double>(*job.train.rollout.prompt_length) /
           static_cast<double>(*job.train.rollout.group_size);
  }
  if (job.train.sequence_length) return tokens_of_sample(job);
  return static_cast<double>(checked_multiply(sequence, rows_of_sample(job)));
}

std::int64_t kept_logits(const Job& job) {
  if (!rolls_out(job) || job.megatron || job.parallel.context > 1) return 0;
  return *job.train.rollout.response_length + 1;
}

std::int64_t updates_of(const Job& job) {
  if (!rolls_out(job)) return 1;
  const std::int64_t learned =
      checked_multiply(*job.train.micro_batch, *job.train.gradient_accumulation);
  return checked_multiply(*job.train.rollout.samples / learned, *job.train.rollout.epochs);
}

std::int64_t samples_of_step(const Job& job) {
  if (!rolls_out(job)) return *job.train.global_batch;
  return checked_multiply(*job.train.rollout.samples, *job.parallel.data);
}

namespace {

// Samples packed into a row read themselves alone (position ids that start anew, varlen kernels),
// where the job says how long they are.
model::Graph with_packing(model::Graph graph, const Job& job) {
  const facts::TrainKeys& train = job.train;
  if (!train.packed || !train.sequence_length_mean) return graph;
  const double fits = static_cast<double>(graph.sequence) / *train.sequence_length_mean;
  const auto samples = static_cast<std::int64_t>(std::llround(fits));
  if (samples < 2) return graph;
  for (model::Segment& segment : graph.segments) {
    for (model::Block& block : segment.blocks) {
      for (model::Operator& op : block.operators) {
        if (op.attention.causal && op.attention.heads > 0) op.attention.packed = samples;
      }
    }
  }
  return graph;
}

}  // namespace

Result<model::Graph> trained_graph(const facts::ModelSource& named, const Job& job,
                                   const model::SampleShape& sample) {
  model::SampleShape rows = sample;
  rows.batch = checked_multiply(sample.batch, rows_of_sample(job));
  facts::ModelSource source = named;
  // Vocabularies that are padded for the ranks they are spread over follow the layout.
  constexpr const char* kRanks = "tensor-model-parallel-size";
  if (source.config.find(kRanks) != nullptr) source.config.set(kRanks, job.parallel.tensor);
  STEELYARD_TRY(graph, model::build(source, rows));
  using model::TaskHead;
  model::TaskHeadOptions options;
  switch (job.train.objective) {
    case Objective::sft: return with_packing(std::move(graph), job);
    case Objective::reward: options.head = TaskHead::scores_loss; break;
    case Objective::orpo: options.also_likelihood = true; break;
    case Objective::dpo:
    case Objective::kto: options.logits_outlive_forward = true; break;
    case Objective::ppo:
    case Objective::grpo: options.keeps = kept_logits(job); break;
  }
  return model::with_task_head(std::move(graph), options);
}

}  // namespace steelyard::plan
