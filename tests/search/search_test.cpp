// Search against the plain way: planning every layout in full, on random jobs.
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <random>

#include "search/own_planner.h"
#include "search/space.h"

namespace steelyard::search {
namespace {

// A small model, wide enough to be cut in several ways; some keys are given, the rest is free.
struct RandomJob {
  facts::Job job;
  facts::Machine machine;

  explicit RandomJob(std::mt19937& random) {
    const auto pick = [&](std::initializer_list<std::int64_t> values) {
      return *(values.begin() + static_cast<std::ptrdiff_t>(random() % values.size()));
    };
    const auto give = [&](const char* key) { job.origins[key].origin = facts::Origin::job; };
    job.model.config = facts::Value(facts::Object{{"model_type", "llama"},
                                                  {"hidden_size", pick({256, 512})},
                                                  {"num_hidden_layers", 2},
                                                  {"num_attention_heads", 8},
                                                  {"num_key_value_heads", pick({4, 8})},
                                                  {"intermediate_size", 1024},
                                                  {"vocab_size", pick({1000, 32000})}});
    const std::array frameworks = {facts::Framework::pytorch, facts::Framework::megatron,
                                   facts::Framework::deepspeed};
    job.framework = frameworks[random() % frameworks.size()];
    job.train.sequence_length = 512;
    job.train.global_batch = pick({8, 16});
    job.data.kind = facts::DataKind::tokens;
    job.machine.gpu = "l40s";
    job.machine.gpus = pick({1, 2, 4});
    job.machine.ram_gib = 256.0;
    // Cards so small that some layouts do not fit.
    job.machine.vram_gib = 1.0 + 0.25 * static_cast<double>(random() % 24);
    // Half of the keys are free: spaces of some dozen layouts.
    for (const char* key : {"parallel.context", "parallel.virtual_stages", "parallel.tensor",
                            "parallel.sequence_parallel", "train.recompute", "parallel.pipeline",
                            "parallel.sharding", "train.micro_batch"}) {
      if (random() % 2 == 0) give(key);
    }
    machine = plan::value_of(plan::own_catalog().machine_of(job, {}));
  }
};

std::int64_t ram_gib(const facts::Plan& plan) {
  return ceil_divide(plan.ram.peak.value(), std::int64_t{1} << 30);
}

// All that is on the front of step and RAM, the fastest first.
std::vector<std::pair<double, std::int64_t>> front_of_everything(const RandomJob& random) {
  const Space space(random.job, *random.job.machine.gpus, *random.job.machine.gpus,
                    *random.job.train.global_batch, {});
  std::map<double, std::int64_t> by_step;  // the least RAM of that step
  for (std::int64_t number = 0; number < space.size(); ++number) {
    facts::Job job;
    facts::KeySettings set;
    if (!space.layout(number, job, set)) continue;
    const auto plan = own_planner()(job, Depth::full);
    if (!plan || !plan->fits() || !plan->pace.step) continue;
    auto [entry, fresh] = by_step.try_emplace(plan->pace.step->value(), ram_gib(*plan));
    if (!fresh) entry->second = std::min(entry->second, ram_gib(*plan));
  }
  std::vector<std::pair<double, std::int64_t>> front;
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (const auto& [step, ram] : by_step) {
    if (ram >= least) continue;
    front.emplace_back(step, ram);
    least = ram;
  }
  return front;
}

TEST(Search, FindsWhatPlanningEverythingFinds) {
  std::mt19937 random(20261129);
  int that_fit = 0, that_do_not = 0;
  for (int i = 0; i < 200; ++i) {
    const RandomJob one(random);
    const auto planned = own_planner()(one.job, Depth::full);
    if (!planned) continue;
    SCOPED_TRACE(i);
    const facts::SearchResult result =
        search({.job = &one.job, .planned = &*planned, .places = {{"l40s", one.machine, 1}}},
               own_planner());
    ASSERT_EQ(result.places.size(), 1U);
    std::vector<std::pair<double, std::int64_t>> found;
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (const facts::FoundLayout& layout : result.places[0].found) {
      ASSERT_TRUE(layout.plan.fits());
      const std::int64_t ram = ram_gib(layout.plan);
      if (ram >= least) continue;
      least = ram;
      found.emplace_back(layout.plan.pace.step->value(), ram);
    }
    ASSERT_EQ(found, front_of_everything(one));
    ++(found.empty() ? that_do_not : that_fit);
  }
  EXPECT_GT(that_fit, 100);
  EXPECT_GT(that_do_not, 5);
}

TEST(Search, TheSameAnswerEveryTime) {
  std::mt19937 random(3);
  const RandomJob one(random);
  const facts::Plan planned = plan::value_of(own_planner()(one.job, Depth::full));
  const SearchQuestion question{
      .job = &one.job, .planned = &planned, .places = {{"l40s", one.machine, 1}}};
  const facts::SearchResult first = search(question, own_planner());
  for (int i = 0; i < 3; ++i) {
    const facts::SearchResult again = search(question, own_planner());
    ASSERT_EQ(again.places[0].found.size(), first.places[0].found.size());
    for (std::size_t k = 0; k < first.places[0].found.size(); ++k) {
      EXPECT_EQ(again.places[0].found[k].set, first.places[0].found[k].set);
    }
    ASSERT_EQ(again.places[0].lost.size(), first.places[0].lost.size());
  }
}

TEST(Search, StopsWhenAskedAndSaysSo) {
  std::mt19937 random(3);
  const RandomJob one(random);
  const facts::Plan planned = plan::value_of(own_planner()(one.job, Depth::full));
  const facts::SearchResult result =
      search({.job = &one.job,
              .planned = &planned,
              .places = {{"l40s", one.machine, 1}, {"l40s", one.machine, 1}},
              .progress = [](std::int64_t done, std::int64_t) { return done < 3; }},
             own_planner());
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(result.places.size(), 1U);
}

// Of a node's GPUs as many as the job gives.
TEST(Search, UsesTheGpusThatTheJobGives) {
  facts::Job job;
  job.model.config = std::string("gpt2");
  job.train.sequence_length = 512;
  job.train.global_batch = 8;
  job.data.kind = facts::DataKind::tokens;
  job.machine.name = "dgx-h100";
  job.machine.gpus = 2;
  const facts::Plan planned = plan::value_of(own_planner()(job, Depth::full));
  const facts::Machine machine = plan::value_of(plan::own_catalog().machine_of(job, {}));
  const facts::SearchResult result = search(
      {.job = &job, .planned = &planned, .places = {{"dgx-h100", machine, 1}}}, own_planner());
  ASSERT_FALSE(result.places[0].found.empty());
  EXPECT_EQ(result.places[0].gpus, 2);
  EXPECT_EQ(result.places[0].found[0].plan.job.machine.gpus, 2);
}

// A key that the job gives is fixed, unless it is named as free.
TEST(Search, WhatTheJobGivesIsFixed) {
  facts::Job job;
  job.train.sequence_length = 2048;
  job.origins["parallel.tensor"].origin = facts::Origin::job;
  job.origins["train.micro_batch"].origin = facts::Origin::job;
  job.train.micro_batch = 2;
  const auto has = [](const Space& space, const std::string& key) {
    const std::vector<std::string> keys = space.keys();
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  };
  const Space fixed(job, 8, 8, 64, {});
  EXPECT_FALSE(has(fixed, "parallel.tensor"));
  EXPECT_FALSE(has(fixed, "train.micro_batch"));
  EXPECT_TRUE(has(fixed, "parallel.pipeline"));
  EXPECT_TRUE(has(Space(job, 8, 8, 64, {"train.micro_batch"}), "train.micro_batch"));
}

}  // namespace
}  // namespace steelyard::search
