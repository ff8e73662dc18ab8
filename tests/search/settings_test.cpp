// What a search prints of a layout, given to the job as --set would, plans to the figures shown.
#include <gtest/gtest.h>

#include <random>

#include "codec/codec.h"
#include "search/front.h"
#include "search/own_planner.h"
#include "search/space.h"

namespace steelyard::search {
namespace {

facts::Job read(const std::string& toml, const std::vector<std::string>& settings = {}) {
  const auto value = plan::value_of(codec::parse(toml, codec::Format::toml, "job.toml"));
  return plan::value_of(codec::job_from(value, "job.toml", settings));
}

std::vector<std::string> as_words(const facts::KeySettings& set) {
  std::vector<std::string> words;
  for (const auto& [key, value] : set) words.push_back(key + "=" + value);
  return words;
}

facts::Machine machine_of(const std::string& name) {
  facts::Job job;
  (name == "l40s" || name == "v100-sxm2-16gb" ? job.machine.gpu : job.machine.name) = name;
  return plan::value_of(plan::own_catalog().machine_of(job, {}));
}

facts::SearchResult searched(const std::string& toml, std::vector<Place> places,
                             std::vector<std::string> free = {}, Within within = {}) {
  const facts::Job job = read(toml);
  const facts::Plan planned = plan::value_of(own_planner()(job, Depth::full));
  return search({.job = &job,
                 .planned = &planned,
                 .places = std::move(places),
                 .free = std::move(free),
                 .shardings = own_shardings(job),
                 .within = within,
                 .bounds = own_bounds,
                 .siblings = own_siblings},
                sharing_planner());
}

// How many layouts were found; each is planned again from the text.
std::size_t replanned(const std::string& toml, const facts::SearchResult& result) {
  std::size_t many = 0;
  for (const facts::SearchedPlace& place : result.places) {
    for (const facts::FoundLayout& found : place.found) {
      ++many;
      const std::vector<std::string> words = as_words(found.set);
      SCOPED_TRACE(testing::PrintToString(words));
      const auto again = own_planner()(read(toml, words), Depth::full);
      EXPECT_TRUE(again.has_value());
      if (!again) continue;
      EXPECT_EQ(again->pace.step, found.plan.pace.step);
      EXPECT_EQ(again->vram.fullest.peak_device_used, found.plan.vram.fullest.peak_device_used);
      EXPECT_EQ(again->ram.peak, found.plan.ram.peak);
      EXPECT_EQ(again->job.train.global_batch, found.plan.job.train.global_batch);
      EXPECT_EQ(again->machine.id, found.plan.machine.id);
    }
  }
  return many;
}

const std::string kModel = R"(
model.config = "gpt2"
data.kind = "tokens"
train.sequence_length = 512
parallel.context = 1
data.workers = 2
offload.parameters = "none"
offload.gradients = "none"
)";

TEST(Settings, TheBatchOfAStepIsSaidWhereTheJobDoesNot) {
  const std::string toml = kModel + R"(
train.micro_batch = 4
train.gradient_accumulation = 2
parallel.data = 4
machine.gpu = "l40s"
machine.gpus = 4
machine.ram_gib = 128
)";
  const auto result = searched(toml, {{"l40s", machine_of("l40s"), 1}}, {"train.micro_batch"});
  EXPECT_EQ(result.global_batch, 32);
  EXPECT_GT(replanned(toml, result), 0U);
}

TEST(Settings, OtherPlacesAreSaid) {
  const std::string own = kModel + R"(
train.global_batch = 64
parallel.tensor = 1
parallel.pipeline = 1
machine.name = "dgx-h100"
machine.network_gbps_per_gpu = 100
)";
  const std::vector<Place> places = {{"dgx-h100", machine_of("dgx-h100"), 2},
                                     {"dgx-a100-80gb", machine_of("dgx-a100-80gb"), 1},
                                     {"l40s", machine_of("l40s"), 1}};
  const std::vector<std::string> fixed = {};
  EXPECT_GE(replanned(own, searched(own, places, fixed)), 2U);
  const std::string plain = kModel +
                            "train.global_batch = 64\nparallel.tensor = 1\n"
                            "parallel.pipeline = 1\nmachine.name = \"dgx-h100\"\n";
  EXPECT_GE(replanned(plain, searched(plain, places, fixed)), 2U);
}

TEST(Settings, RandomSpacesPlanToTheFiguresShown) {
  std::mt19937 random(20261130);
  const auto pick = [&](std::initializer_list<const char*> words) {
    return std::string(*(words.begin() + static_cast<std::ptrdiff_t>(random() % words.size())));
  };
  std::size_t many = 0;
  for (int i = 0; i < 12; ++i) {
    std::string toml = kModel;
    toml += pick({"", "train.micro_batch = 2\n", "train.gradient_accumulation = 4\n",
                  "train.global_batch = 16\n",
                  "train.micro_batch = 2\ntrain.gradient_accumulation = 2\n"});
    toml += pick({"", "parallel.schedule = \"gpipe\"\n", "parallel.schedule = \"1f1b\"\n",
                  "parallel.schedule = \"interleaved\"\n"});
    toml += pick({"", "framework = \"megatron\"\n"});
    toml += pick({"", "parallel.sequence_parallel = false\ntrain.recompute = \"none\"\n"});
    toml += "machine.gpu = \"l40s\"\nmachine.gpus = 4\nmachine.ram_gib = 128\n";
    SCOPED_TRACE(toml);
    many += replanned(toml, searched(toml, {{"l40s", machine_of("l40s"), 1}}));
  }
  EXPECT_GE(many, 12U);
}

TEST(Settings, AGivenScheduleStays) {
  const std::string toml = kModel + R"(
train.global_batch = 8
parallel.pipeline = 2
parallel.schedule = "gpipe"
machine.gpu = "l40s"
machine.gpus = 2
machine.ram_gib = 128
)";
  const auto result = searched(toml, {{"l40s", machine_of("l40s"), 1}});
  ASSERT_FALSE(result.places.at(0).found.empty());
  for (const auto& found : result.places[0].found) {
    EXPECT_EQ(found.plan.job.parallel.schedule, facts::Schedule::gpipe);
    EXPECT_EQ(found.plan.job.parallel.virtual_stages, 1);
  }
  EXPECT_GT(replanned(toml, result), 0U);
}

TEST(Settings, AnUnknownStepFitsAllTheSame) {
  const std::string toml = kModel + "machine.name = \"aws:p3.2xlarge\"\n";
  const std::vector<Place> places = {{"aws:p3.2xlarge", machine_of("aws:p3.2xlarge"), 1},
                                     {"dgx-h100", machine_of("dgx-h100"), 1}};
  const auto result = searched(toml, places, {});
  const auto& last = result.places.back();
  EXPECT_EQ(last.machine, "aws:p3.2xlarge");
  ASSERT_EQ(last.found.size(), 1U);
  EXPECT_FALSE(last.found[0].plan.pace.step);
  EXPECT_FALSE(last.found[0].plan.pace.missing.empty());
  EXPECT_GT(replanned(toml, result), 0U);
}

const std::string kFourCards = kModel + R"(
train.global_batch = 16
machine.gpu = "l40s"
machine.gpus = 4
)";

TEST(Settings, WhatIsNotWithinIsToldApart) {
  const std::string toml = kFourCards + "machine.ram_gib = 128\n";
  const std::vector<Place> places = {{"l40s", machine_of("l40s"), 1}};
  Within within;
  within.step = 1e-4;
  const auto slow = searched(toml, places, {}, within);
  EXPECT_TRUE(slow.places.at(0).found.empty());
  EXPECT_NE(slow.places[0].outside.find("the fastest takes"), std::string::npos);
  within = {};
  within.gpus = 2;
  const auto none = searched(toml, places, {}, within);
  EXPECT_TRUE(none.places.empty());
  ASSERT_EQ(none.excluded.size(), 1U);
  EXPECT_EQ(none.excluded[0].why, "4 GPUs, more than gpus=2");
}

// Host memory is what lacks, and is named; the change that is told makes it fit.
TEST(Settings, WhatLacksAndWhatWouldFit) {
  const std::string toml = kFourCards + R"(
checkpoint.load = "per-rank"
machine.ram_gib = 19
parallel.tensor = 1
parallel.pipeline = 1
)";
  const auto result = searched(toml, {{"l40s", machine_of("l40s"), 1}});
  const facts::SearchedPlace& place = result.places.at(0);
  ASSERT_TRUE(place.found.empty());
  ASSERT_FALSE(place.lost.empty());
  EXPECT_NE(place.lost[0].why.find("host memory"), std::string::npos) << place.lost[0].why;
  EXPECT_EQ(place.lost[0].why.find("each GPU"), std::string::npos) << place.lost[0].why;
  ASSERT_FALSE(place.change.empty());
  const auto changed = own_planner()(read(toml, as_words(place.change_set)), Depth::full);
  ASSERT_TRUE(changed.has_value());
  EXPECT_TRUE(changed->fits());
}

// Prices of two currencies: the lower number of the other one wins nothing.
TEST(Settings, PricesOfTwoCurrenciesAreNotCompared) {
  const auto found = [](double step, double price, const char* currency) {
    facts::FoundLayout layout;
    layout.plan.pace.step = Seconds(step);
    layout.plan.cost.emplace();
    layout.plan.cost->per_hour = price;
    layout.plan.cost->currency = currency;
    layout.cost_per_step = price * step;
    facts::SearchedPlace place;
    place.found.push_back(std::move(layout));
    return place;
  };
  facts::SearchResult result;
  result.goal = facts::SearchGoal::cost;
  result.currencies = {"USD", "EUR", "USD"};
  result.places = {found(1.0, 1.0, "USD"), found(2.0, 9.0, "EUR"), found(2.0, 9.0, "USD")};
  rank(result);
  EXPECT_EQ(result.currencies, (std::vector<std::string>{"EUR", "USD"}));
  EXPECT_EQ(result.places[0].found[0].plan.cost->currency, "EUR");
  EXPECT_TRUE(result.places[0].found[0].on_front);
  EXPECT_TRUE(result.places[1].found[0].on_front);
  EXPECT_FALSE(result.places[2].found[0].on_front);  // slower and dearer in the same currency
}

}  // namespace
}  // namespace steelyard::search
