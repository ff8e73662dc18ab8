// How far each size of a job can go.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/format.h"
#include "base/parallel.h"
#include "search/bisection.h"
#include "search/search.h"
#include "search/spread.h"
#include "search/words.h"

namespace steelyard::search {

namespace {

using facts::Job;
using facts::Limit;
using facts::Plan;

// One key to move: the values are those that `at` gives for 1, 2, 3 ...
struct Axis {
  Limit limit;
  std::int64_t most = 1;                                 // the last number that is tried
  std::int64_t first = 1;                                // a guess at the end
  std::function<std::int64_t(std::int64_t)> value = {};  // of a number
  std::function<void(Job&, std::int64_t)> set = {};      // a value
};

// The batch of a step grows with what one GPU takes; how often it accumulates stays.
void keep_accumulation(Job& job, const Plan& planned) {
  job.train.gradient_accumulation = planned.job.train.gradient_accumulation;
  job.train.global_batch.reset();
}

// "each GPU needs 82.1 GiB of 79.1 GiB"; where both would read alike, how much is missing.
std::string needs(const char* who, Bytes needed, const facts::Known<Bytes>& there) {
  const std::string wanted = to_text(needed), all = to_text(*there);
  if (wanted != all) return fmt::format("{} needs {} of {}", who, wanted, all);
  return fmt::format("{} needs {} more than its {}", who, to_text(needed - *there), all);
}

// Why the job does not go with that value.
std::string breaks_with(const Job& job, const Planner& planner) {
  const Result<Plan> plan = planner(job, Depth::full);
  if (!plan) return one_line(plan.error());
  if (!plan->fits_vram.value_or(true)) {
    return needs("each GPU", plan->vram.fullest.peak_device_used, plan->vram.capacity);
  }
  if (const facts::NodeLoad* node = plan->short_node()) {
    return needs(fmt::format("NUMA node {}", node->node).c_str(), node->need, node->memory);
  }
  if (!plan->fits_ram.value_or(true)) return needs("each node", plan->ram.peak, plan->ram.capacity);
  return {};
}

Job with(const LimitsQuestion& question, const Axis& axis, std::int64_t number) {
  Job job = *question.job;
  axis.set(job, axis.value(number));
  if (job.import.megatron) {  // read again with each job: what is changed counts more
    job.origins[axis.limit.key] = {facts::Origin::job, {}};
    if (job.train.gradient_accumulation) {
      job.origins["train.gradient_accumulation"] = {facts::Origin::job, {}};
    }
  }
  return job;
}

void find_largest(const LimitsQuestion& question, const Planner& planner, Axis& axis) {
  const End end = last_that_holds(axis.first, axis.most, [&](std::int64_t number) {
    const Result<Plan> plan = planner(with(question, axis, number), Depth::only_if_fits);
    return plan && plan->fits();
  });
  if (end.last > 0) axis.limit.limit = axis.value(end.last);
  axis.limit.beyond = end.open;
  if (!end.open) axis.limit.breaks = breaks_with(with(question, axis, end.last + 1), planner);
}

// Counts down from the most, which comes first.
void find_least(const LimitsQuestion& question, const Planner& planner, Axis& axis) {
  find_largest(question, planner, axis);
  if (axis.limit.beyond) axis.limit.breaks = "nothing less can be asked for";
  axis.limit.beyond = false;
}

Axis axis(std::string key, std::string what, std::int64_t now, std::int64_t step,
          std::int64_t largest) {
  Axis made;
  made.limit.key = std::move(key);
  made.limit.what = std::move(what);
  made.limit.now = now;
  made.limit.step = step;
  made.most = std::max<std::int64_t>(1, largest / step);
  made.first = std::clamp<std::int64_t>(now / step, 1, made.most);
  made.value = [step](std::int64_t number) { return number * step; };
  return made;
}

constexpr std::int64_t kMostSamples = 1'000'000;  // that a job file can say
constexpr std::int64_t kMostTokens = std::int64_t{1} << 24;
constexpr std::int64_t kMostRank = std::int64_t{1} << 14;
constexpr std::int64_t kMostLayers = 4096;
constexpr std::int64_t kMostPixels = std::int64_t{1} << 15;

Axis micro_batch_axis(const Plan& planned) {
  Axis made = axis("train.micro_batch", "samples per GPU and pass", *planned.job.train.micro_batch,
                   1, kMostSamples);
  made.set = [&planned](Job& job, std::int64_t value) {
    keep_accumulation(job, planned);
    job.train.tokens_per_batch.reset();
    job.train.micro_batch = value;
  };
  return made;
}

// What context and tensor ranks divide; in steps of 128 where the sequence has some of them.
Axis sequence_axis(const Plan& planned) {
  constexpr std::int64_t kRound = 128;
  const facts::ParallelKeys& parallel = planned.job.parallel;
  const std::int64_t ranks = parallel.context * parallel.tensor;
  const std::int64_t now = *planned.job.train.sequence_length;
  const std::int64_t step = now >= kRound * ranks ? kRound * ranks : ranks;
  Axis made = axis("train.sequence_length", "tokens per sample", now, step, kMostTokens);
  const facts::RolloutKeys& rollout = planned.job.train.rollout;
  const bool answers = rollout.prompt_length && rollout.response_length;
  if (answers) made.limit.what += ", longer answers";
  made.set = [answers, prompt = rollout.prompt_length.value_or(0)](Job& job, std::int64_t value) {
    job.train.sequence_length = value;
    if (!answers) return;
    job.train.rollout.prompt_length = prompt;
    job.train.rollout.response_length = value - prompt;
  };
  return made;
}

Axis rank_axis(const Plan& planned) {
  const std::int64_t now = planned.job.train.lora.rank;
  Axis made = axis("train.lora.rank", "rank of the adapters", now, now % 8 == 0 ? 8 : 1, kMostRank);
  made.set = [](Job& job, std::int64_t value) { job.train.lora.rank = value; };
  return made;
}

// Height in steps of 64 pixels where it is a multiple of them (autoencoders take an eighth, U-Nets
// halve that three times), else of 32; the width keeps its proportion.
Axis image_axis(const Plan& planned) {
  const std::vector<std::int64_t> now = planned.job.train.image_size;
  const std::int64_t step = now[0] % 64 == 0 && now[1] % 64 == 0 ? 64 : 32;
  Axis made =
      axis("train.image_size", "pixels of height, width in proportion", now[0], step, kMostPixels);
  made.set = [now, step](Job& job, std::int64_t value) {
    const std::int64_t width = (value * now[1] / now[0] + step / 2) / step * step;
    job.train.image_size = {value, width > step ? width : step};
  };
  return made;
}

Axis layers_axis(const LimitsQuestion& question) {
  const auto& [key, now] = *question.layers;
  const facts::ParallelKeys& parallel = question.planned->job.parallel;
  Axis made = axis("model.set." + key, "layers", now, parallel.pipeline * parallel.virtual_stages,
                   kMostLayers);
  made.set = [name = key](Job& job, std::int64_t value) {
    if (job.model.set.is_null()) job.model.set = facts::Value(facts::Object{});
    job.model.set.set(name, value);
    job.parallel.stage_layers.clear();
  };
  return made;
}

// Data-parallel replicas go, all else stays: their numbers from the job's down, as far as nodes
// are filled evenly.
// GPUs that whole replicas fill, the most first.
std::vector<std::int64_t> counts_up_to(const Plan& planned, std::int64_t most) {
  const facts::ParallelKeys& parallel = planned.job.parallel;
  const std::int64_t replica = parallel.tensor * parallel.pipeline * parallel.context;
  const std::int64_t now = planned.job.machine.nodes * planned.job.machine.gpus.value_or(1);
  const std::int64_t per_node =
      std::max(planned.job.machine.gpus.value_or(1), planned.machine.gpus);
  std::vector<std::int64_t> counts;
  for (std::int64_t gpus = most - most % replica; gpus >= replica; gpus -= replica) {
    const bool whole = gpus / replica % std::max<std::int64_t>(1, parallel.expert) == 0;
    if (spread_over(gpus, per_node) && (whole || gpus == now)) counts.push_back(gpus);
  }
  return counts;
}

Axis gpus_axis_from(const Plan& planned, std::vector<std::int64_t> counts) {
  const facts::ParallelKeys& parallel = planned.job.parallel;
  const std::int64_t per_node =
      std::max(planned.job.machine.gpus.value_or(1), planned.machine.gpus);
  Axis made;
  made.limit.key = "machine.gpus x machine.nodes";
  const std::int64_t now = planned.job.machine.nodes * planned.job.machine.gpus.value_or(1);
  made.limit.what =
      fmt::format("GPUs, with {} data-parallel replicas", counts.front() > now ? "more" : "fewer");
  made.limit.sense = facts::LimitSense::least;
  made.limit.now = now;
  made.limit.step = parallel.tensor * parallel.pipeline * parallel.context;
  made.most = static_cast<std::int64_t>(counts.size());
  made.value = [counts = std::move(counts)](std::int64_t number) {
    const auto at = static_cast<std::size_t>(number) - 1;
    return at < counts.size() ? counts[at] : 0;
  };
  made.set = [per_node, &planned](Job& job, std::int64_t gpus) {
    const Spread spread = spread_over(gpus, per_node).value_or(Spread{1, gpus});
    keep_accumulation(job, planned);
    job.parallel.data.reset();
    job.parallel.shard_group.reset();
    job.machine.nodes = spread.nodes;
    job.machine.gpus = spread.gpus;
  };
  return made;
}

// Where the job does not fit as it is: halves of its GPUs, which ask less of each host, then
// doublings, which split what is sharded; the first that holds is where counting down begins.
std::int64_t some_that_hold(const LimitsQuestion& question, const Planner& planner,
                            std::int64_t now) {
  const Plan& planned = *question.planned;
  if (planned.fits()) return now;
  constexpr std::int64_t kFurthest = 64;
  std::vector<std::int64_t> tries;
  for (std::int64_t gpus = now / 2; gpus >= 1; gpus /= 2) tries.push_back(gpus);
  for (std::int64_t times = 2; times <= kFurthest; times *= 2) tries.push_back(now * times);
  for (const std::int64_t gpus : tries) {
    const std::vector<std::int64_t> counts = counts_up_to(planned, gpus);
    if (counts.empty() || counts.front() != gpus) continue;
    const Axis axis = gpus_axis_from(planned, {gpus});
    const Result<Plan> plan = planner(with(question, axis, 1), Depth::only_if_fits);
    if (plan && plan->fits()) return gpus;
  }
  return now;
}

std::optional<Axis> gpus_axis(const LimitsQuestion& question, const Planner& planner) {
  const Plan& planned = *question.planned;
  const std::int64_t now = planned.job.machine.nodes * planned.job.machine.gpus.value_or(1);
  std::vector<std::int64_t> counts = counts_up_to(planned, some_that_hold(question, planner, now));
  if (counts.empty()) return std::nullopt;
  return gpus_axis_from(planned, std::move(counts));
}

std::optional<Axis> ram_axis(const Plan& planned) {
  if (!planned.ram.capacity) return std::nullopt;
  constexpr std::int64_t kGibibyte = std::int64_t{1} << 30;
  const std::int64_t now = ceil_divide(planned.ram.capacity->value(), kGibibyte);
  // Where it is short, what a node needs at its fullest and an eighth, for NUMA nodes fill
  // unevenly.
  const std::int64_t needed = ceil_divide(planned.ram.peak.value(), kGibibyte);
  const std::int64_t most = std::max(now, needed + ceil_divide(needed, std::int64_t{8}));
  Axis made;
  made.limit.key = "machine.ram_gib";
  made.limit.what = "GiB of host memory per node";
  made.limit.sense = facts::LimitSense::least;
  made.limit.now = now;
  made.most = most;
  made.value = [most](std::int64_t number) { return most + 1 - number; };
  made.set = [](Job& job, std::int64_t value) { job.machine.ram_gib = static_cast<double>(value); };
  return made;
}

std::vector<Axis> axes_of(const LimitsQuestion& question, const Planner& planner) {
  const Plan& planned = *question.planned;
  const facts::TrainKeys& train = planned.job.train;
  std::vector<Axis> axes = {micro_batch_axis(planned)};
  // Jobs that sample say prompt and answer instead.
  if (train.sequence_length && !train.rollout.response_length)
    axes.push_back(sequence_axis(planned));
  if (train.image_size.size() == 2) axes.push_back(image_axis(planned));
  if (train.method != facts::Method::full) axes.push_back(rank_axis(planned));
  if (question.layers) axes.push_back(layers_axis(question));
  if (auto gpus = gpus_axis(question, planner)) axes.push_back(std::move(*gpus));
  if (auto ram = ram_axis(planned)) axes.push_back(std::move(*ram));
  return axes;
}

}  // namespace

facts::Limits limits(const LimitsQuestion& question, const Planner& planner) {
  facts::Limits found;
  found.job = question.planned->job.name;
  found.fits = question.planned->fits();
  std::vector<Axis> axes = axes_of(question, planner);
  for_each_side_by_side(axes.size(), [&](std::size_t i) {
    const bool largest = axes[i].limit.sense == facts::LimitSense::largest;
    (largest ? find_largest : find_least)(question, planner, axes[i]);
  });
  for (Axis& axis : axes) found.limits.push_back(std::move(axis.limit));
  return found;
}

std::optional<std::pair<std::string, std::int64_t>> layers_of(const facts::Value& config) {
  constexpr std::array kKeys = {"num_hidden_layers", "n_layer", "num_layers", "n_layers",
                                "encoder_layers",    "depth",   "num-layers"};
  for (const char* key : kKeys) {
    const facts::Value* value = config.find(key);
    if (value == nullptr) continue;
    const std::int64_t* count = value->as_whole();
    if (count != nullptr && *count > 0) return std::pair{std::string(key), *count};
  }
  return std::nullopt;
}

}  // namespace steelyard::search
