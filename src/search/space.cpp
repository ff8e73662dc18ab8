#include "search/space.h"

#include <algorithm>

#include "base/quantity.h"
#include "search/search.h"

namespace steelyard::search {

namespace {

using facts::Job;
using facts::Sharding;

std::vector<std::int64_t> powers_up_to(std::int64_t most) {
  std::vector<std::int64_t> powers;
  for (std::int64_t power = 1; power <= most; power *= 2) powers.push_back(power);
  return powers;
}

std::vector<std::int64_t> divisors(std::int64_t number, std::int64_t most) {
  std::vector<std::int64_t> found;
  for (std::int64_t divisor = 1; divisor <= std::min(number, most); ++divisor) {
    if (number % divisor == 0) found.push_back(divisor);
  }
  return found;
}

template <class Apply>
std::vector<Choice> numbers(const std::vector<std::int64_t>& values, Apply apply) {
  std::vector<Choice> choices;
  for (const std::int64_t value : values) {
    choices.push_back({std::to_string(value), [apply, value](Job& job) { apply(job, value); }});
  }
  return choices;
}

template <class Enum, class Apply>
std::vector<Choice> names(const std::vector<Enum>& values, Apply apply) {
  std::vector<Choice> choices;
  for (const Enum value : values) {
    choices.push_back(
        {std::string(facts::name_of(value)), [apply, value](Job& job) { apply(job, value); }});
  }
  return choices;
}

std::vector<Choice> flags(bool facts::ParallelKeys::*key) {
  return {{"false", [key](Job& job) { job.parallel.*key = false; }},
          {"true", [key](Job& job) { job.parallel.*key = true; }}};
}

// What the framework's own launcher offers.
std::vector<Sharding> shardings_of(facts::Framework framework) {
  switch (framework) {
    case facts::Framework::megatron: return {Sharding::none, Sharding::zero1};
    case facts::Framework::deepspeed:
      return {Sharding::none, Sharding::zero1, Sharding::zero2, Sharding::zero3};
    default: return {Sharding::none, Sharding::fsdp, Sharding::hsdp, Sharding::shard_grad_op};
  }
}

std::vector<Choice> recompute_choices() {
  using facts::RecomputeMode;
  return names<RecomputeMode>({RecomputeMode::none, RecomputeMode::selective, RecomputeMode::full},
                              [](Job& job, RecomputeMode mode) {
                                job.train.recompute = {};
                                job.train.recompute.mode = mode;
                              });
}

constexpr std::int64_t kMostPipeline = 64;
constexpr std::int64_t kMostContext = 32;
constexpr std::int64_t kMostMicroBatch = 64;
constexpr std::int64_t kLeastTokensPerRank = 512;

}  // namespace

void Space::add(const std::string& key, std::vector<Choice> choices,
                const std::vector<std::string>& free) {
  const bool given = job_.origins.contains(key);
  const bool freed = std::find(free.begin(), free.end(), key) != free.end();
  if (choices.size() < 2 || (given && !freed)) return;
  dimensions_.push_back({key, std::move(choices)});
}

Space::Space(const Job& job, std::int64_t gpus, std::int64_t per_node, std::int64_t batch,
             const std::vector<std::string>& free)
    : job_(job), gpus_(gpus), per_node_(per_node), batch_(batch) {
  job_.train.global_batch = batch;
  job_.train.gradient_accumulation.reset();
  if (!job_.train.micro_batch) job_.train.micro_batch = 1;
  job_.parallel.data.reset();
  job_.parallel.shard_group.reset();
  add("parallel.tensor",
      numbers(divisors(gpus, per_node),
              [](Job& to, std::int64_t value) { to.parallel.tensor = value; }),
      free);
  add("parallel.pipeline",
      numbers(divisors(gpus, kMostPipeline),
              [](Job& to, std::int64_t value) { to.parallel.pipeline = value; }),
      free);
  const std::int64_t tokens = job.train.sequence_length.value_or(1);
  add("parallel.context",
      numbers(powers_up_to(std::min({gpus, kMostContext, tokens / kLeastTokensPerRank})),
              [](Job& to, std::int64_t value) { to.parallel.context = value; }),
      free);
  add("parallel.sequence_parallel", flags(&facts::ParallelKeys::sequence_parallel), free);
  add("parallel.sharding",
      names<Sharding>(shardings_of(job.framework),
                      [](Job& to, Sharding value) { to.parallel.sharding = value; }),
      free);
  add("parallel.virtual_stages",
      numbers({1, 2, 4},
              [](Job& to, std::int64_t value) {
                to.parallel.virtual_stages = value;
                to.parallel.schedule =
                    value > 1 ? facts::Schedule::interleaved : facts::Schedule::one_f_one_b;
              }),
      free);
  add("train.micro_batch",
      numbers(powers_up_to(std::min(kMostMicroBatch, batch)),
              [](Job& to, std::int64_t value) { to.train.micro_batch = value; }),
      free);
  add("train.recompute", recompute_choices(), free);
}

const std::vector<std::string>& searchable_keys() {
  static const std::vector<std::string> keys = {"parallel.tensor",   "parallel.pipeline",
                                                "parallel.context",  "parallel.sequence_parallel",
                                                "parallel.sharding", "parallel.virtual_stages",
                                                "train.micro_batch", "train.recompute"};
  return keys;
}

std::int64_t Space::size() const {
  std::int64_t size = 1;
  for (const Dimension& dimension : dimensions_) {
    size = checked_multiply(size, static_cast<std::int64_t>(dimension.choices.size()));
  }
  return size;
}

// Ranks and batch divide; and of layouts that are the same one only the plain one.
bool Space::can_be_legal(const Job& job) const {
  const facts::ParallelKeys& parallel = job.parallel;
  const std::int64_t replica = parallel.tensor * parallel.pipeline * parallel.context;
  if (gpus_ % replica != 0) return false;
  const std::int64_t data = gpus_ / replica;
  if (batch_ % (data * *job.train.micro_batch) != 0) return false;
  if (parallel.sequence_parallel && parallel.tensor == 1) return false;
  if (parallel.virtual_stages > 1 && parallel.pipeline == 1) return false;
  const std::int64_t sharing = data * parallel.context;
  if (parallel.sharding == Sharding::hsdp) return sharing > per_node_;  // else it is FSDP
  return sharing > 1 || parallel.sharding == Sharding::none;
}

bool Space::layout(std::int64_t number, Job& job, facts::KeySettings& set) const {
  job = job_;
  set.clear();
  for (const Dimension& dimension : dimensions_) {
    const auto many = static_cast<std::int64_t>(dimension.choices.size());
    const Choice& choice = dimension.choices[static_cast<std::size_t>(number % many)];
    choice.apply(job);
    set.emplace_back(dimension.key, choice.value);
    if (dimension.key == "parallel.virtual_stages" && choice.value != "1") {
      set.emplace_back("parallel.schedule", "interleaved");
    }
    number /= many;
  }
  return can_be_legal(job);
}

std::vector<std::string> Space::keys() const {
  std::vector<std::string> keys;
  for (const Dimension& dimension : dimensions_) keys.push_back(dimension.key);
  return keys;
}

}  // namespace steelyard::search
