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
constexpr std::int64_t kMostExpert = 64;
constexpr std::int64_t kMostMicroBatch = 64;
constexpr std::int64_t kLeastTokensPerRank = 512;
constexpr const char* kOfTheHost = "data.workers";

}  // namespace

std::vector<Sharding> shardings_of(std::string_view words) {
  std::vector<Sharding> shardings;
  while (!words.empty()) {
    const std::size_t comma = std::min(words.find(", "), words.size());
    if (const auto one = facts::from_name<Sharding>(words.substr(0, comma))) {
      shardings.push_back(*one);
    }
    words.remove_prefix(std::min(comma + 2, words.size()));
  }
  if (shardings.empty()) shardings.push_back(Sharding::none);
  return shardings;
}

void Space::add(const std::string& key, std::vector<Choice> choices, const Freedom& freedom,
                bool usually) {
  const bool given = job_.origins.contains(key) || !usually;
  const bool freed = std::find(freedom.keys.begin(), freedom.keys.end(), key) != freedom.keys.end();
  if (choices.size() < 2 || (given && !freed)) return;
  dimensions_.push_back({key, std::move(choices)});
}

Space::Space(const Job& job, std::int64_t gpus, std::int64_t per_node, std::int64_t batch,
             const Freedom& freedom)
    : job_(job), gpus_(gpus), per_node_(per_node), batch_(batch) {
  job_.train.global_batch = batch;
  job_.train.gradient_accumulation.reset();
  if (!job_.train.micro_batch) job_.train.micro_batch = 1;
  job_.parallel.data.reset();
  add_ranks(freedom);
  add_virtual_stages(freedom);
  add_training(freedom);
  count();
  chooses_sharding_ = has("parallel.sharding");
  if (chooses_sharding_) job_.parallel.shard_group.reset();  // it was that sharding's
  if (job_.import.megatron) mark_as_own(job_);
}

// What is imported is read again with each layout: what the layout says counts more.
void Space::mark_as_own(Job& job) const {
  const auto own = [&job](const std::string& key) { job.origins[key] = {facts::Origin::job, {}}; };
  for (const Dimension& dimension : dimensions_) own(dimension.key);
  for (const char* key : {"parallel.schedule", "train.micro_batch", "train.global_batch"}) own(key);
}

void Space::add_ranks(const Freedom& freedom) {
  add("parallel.tensor",
      numbers(divisors(gpus_, per_node_),
              [](Job& to, std::int64_t value) { to.parallel.tensor = value; }),
      freedom);
  add("parallel.pipeline",
      numbers(divisors(gpus_, kMostPipeline),
              [](Job& to, std::int64_t value) { to.parallel.pipeline = value; }),
      freedom);
  const std::int64_t tokens = job_.train.sequence_length.value_or(1);
  add("parallel.context",
      numbers(powers_up_to(std::min({gpus_, kMostContext, tokens / kLeastTokensPerRank})),
              [](Job& to, std::int64_t value) { to.parallel.context = value; }),
      freedom);
  add("parallel.expert",
      numbers(powers_up_to(std::min(gpus_, kMostExpert)),
              [](Job& to, std::int64_t value) { to.parallel.expert = value; }),
      freedom, freedom.experts);
  add("parallel.sequence_parallel", flags(&facts::ParallelKeys::sequence_parallel), freedom);
  add("parallel.sharding",
      names<Sharding>(freedom.shardings,
                      [](Job& to, Sharding value) { to.parallel.sharding = value; }),
      freedom);
}

// A schedule that the job gives stays: only the interleaved one has virtual stages. That 1f1b is
// meant is certain only where the virtual stages are not named as free.
void Space::add_virtual_stages(const Freedom& freedom) {
  using facts::Schedule;
  const std::string key = "parallel.virtual_stages";
  const auto said = job_.origins.find("parallel.schedule");
  const bool given = said != job_.origins.end() && said->second.origin == facts::Origin::job;
  const Schedule schedule = job_.parallel.schedule;
  const bool named = std::find(freedom.keys.begin(), freedom.keys.end(), key) != freedom.keys.end();
  const bool changes =
      schedule == Schedule::interleaved || (schedule == Schedule::one_f_one_b && (!given || named));
  if (!changes) return;
  const bool stays = given && schedule == Schedule::interleaved;
  add(key,
      numbers({1, 2, 3, 4, 5, 6, 8, 10, 12},
              [stays](Job& to, std::int64_t value) {
                to.parallel.virtual_stages = value;
                if (stays) return;
                to.parallel.schedule = value > 1 ? Schedule::interleaved : Schedule::one_f_one_b;
              }),
      freedom);
}

bool Space::has(const std::string& key) const {
  return std::any_of(dimensions_.begin(), dimensions_.end(),
                     [&](const Dimension& dimension) { return dimension.key == key; });
}

void Space::add_training(const Freedom& freedom) {
  using facts::OffloadKeys;
  add("train.micro_batch",
      numbers(powers_up_to(std::min(kMostMicroBatch, batch_)),
              [](Job& to, std::int64_t value) { to.train.micro_batch = value; }),
      freedom);
  add("train.recompute", recompute_choices(), freedom);
  const auto& precisions = facts::EnumNames<facts::Precision>::values;
  std::vector<facts::Precision> all;
  for (std::size_t i = 0; i < precisions.size(); ++i) {
    all.push_back(static_cast<facts::Precision>(i));
  }
  add("train.precision",
      names<facts::Precision>(all,
                              [](Job& to, facts::Precision value) { to.train.precision = value; }),
      freedom, false);
  const std::pair<const char*, facts::OffloadTo OffloadKeys::*> offloads[] = {
      {"offload.parameters", &OffloadKeys::parameters},
      {"offload.gradients", &OffloadKeys::gradients},
      {"offload.optimizer", &OffloadKeys::optimizer},
      {"offload.activations", &OffloadKeys::activations}};
  for (const auto& [key, member] : offloads) {
    add(key,
        names<facts::OffloadTo>(
            {facts::OffloadTo::none, facts::OffloadTo::cpu},
            [member](Job& to, facts::OffloadTo value) { to.offload.*member = value; }),
        freedom);
  }
  add(kOfTheHost,
      numbers({0, 1, 2, 4, 8, 16}, [](Job& to, std::int64_t value) { to.data.workers = value; }),
      freedom);
}

const std::vector<std::string>& searchable_keys() {
  static const std::vector<std::string> keys = {
      "parallel.tensor",         "parallel.pipeline",          "parallel.context",
      "parallel.expert",         "parallel.sequence_parallel", "parallel.sharding",
      "parallel.virtual_stages", "train.micro_batch",          "train.recompute",
      "train.precision",         "offload.parameters",         "offload.gradients",
      "offload.optimizer",       "offload.activations",        "data.workers"};
  return keys;
}

std::vector<std::string> keys_named(const std::string& word) {
  std::vector<std::string> named;
  for (const std::string& key : searchable_keys()) {
    const std::size_t dot = key.find('.');
    if (key == word || key.substr(0, dot) == word || key.substr(dot + 1) == word) {
      named.push_back(key);
    }
  }
  return named;
}

void Space::count() {
  for (const Dimension& dimension : dimensions_) {
    on_gpus_ = size_;
    size_ = checked_multiply(size_, static_cast<std::int64_t>(dimension.choices.size()));
  }
  if (dimensions_.empty() || dimensions_.back().key != kOfTheHost) on_gpus_ = size_;
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
  if (!chooses_sharding_) return true;  // what the job says stays as it is
  const std::int64_t sharing = data * parallel.context;
  if (parallel.sharding == Sharding::hsdp) return sharing > per_node_;  // else it is FSDP
  return sharing > 1 || parallel.sharding == Sharding::none;
}

bool Space::apply(std::int64_t number, Job& job) const {
  for (const Dimension& dimension : dimensions_) {
    const auto many = static_cast<std::int64_t>(dimension.choices.size());
    dimension.choices[static_cast<std::size_t>(number % many)].apply(job);
    number /= many;
  }
  return can_be_legal(job);
}

void Space::apply_on_the_host(std::int64_t number, Job& job) const {
  const std::int64_t part = on_gpus();
  if (part == size()) return;
  dimensions_.back().choices[static_cast<std::size_t>(number / part)].apply(job);
}

facts::KeySettings Space::settings(std::int64_t number) const {
  facts::KeySettings set;
  for (const Dimension& dimension : dimensions_) {
    const auto many = static_cast<std::int64_t>(dimension.choices.size());
    const Choice& choice = dimension.choices[static_cast<std::size_t>(number % many)];
    set.emplace_back(dimension.key, choice.value);
    number /= many;
  }
  return set;
}

bool Space::layout(std::int64_t number, Job& job, facts::KeySettings& set) const {
  job = job_;
  set = settings(number);
  return apply(number, job);
}

std::vector<std::string> Space::keys() const {
  std::vector<std::string> keys;
  for (const Dimension& dimension : dimensions_) keys.push_back(dimension.key);
  return keys;
}

}  // namespace steelyard::search
