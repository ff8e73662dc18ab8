// Search against the plain way: planning every layout in full, on random jobs.
#include <gtest/gtest.h>

#include <array>
#include <barrier>
#include <limits>
#include <map>
#include <random>
#include <thread>

#include "search/own_planner.h"
#include "search/random_jobs.h"
#include "search/space.h"

namespace steelyard::search {
namespace {

std::int64_t ram_gib(const facts::Plan& plan) {
  return ceil_divide(plan.ram.peak.value(), std::int64_t{1} << 30);
}

// All that is on the front of step and RAM, the fastest first.
std::vector<std::pair<double, std::int64_t>> front_of_everything(const RandomJob& random,
                                                                 const facts::Plan& planned) {
  const Space space = space_of(random, planned);
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

std::vector<std::pair<double, std::int64_t>> front_of(const facts::SearchResult& result) {
  std::vector<std::pair<double, std::int64_t>> found;
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (const facts::FoundLayout& layout : result.places.at(0).found) {
    EXPECT_TRUE(layout.plan.fits());
    const std::int64_t ram = ram_gib(layout.plan);
    if (ram >= least) continue;
    least = ram;
    found.emplace_back(layout.plan.pace.step->value(), ram);
  }
  return found;
}

TEST(Search, FindsWhatPlanningEverythingFinds) {
  std::mt19937 random(20261129);
  int that_fit = 0, that_do_not = 0;
  std::int64_t ruled_out = 0;
  for (int i = 0; i < 200; ++i) {
    const RandomJob one(random);
    const auto planned = own_planner()(one.job, Depth::full);
    if (!planned) continue;
    SCOPED_TRACE(i);
    Counts counts;
    SearchQuestion question = question_of(one, *planned, true);
    question.counts = &counts;
    const facts::SearchResult result = search(question, sharing_planner());
    ASSERT_EQ(result.places.size(), 1U);
    const auto found = front_of(result);
    ASSERT_EQ(found, front_of_everything(one, *planned));
    ruled_out += counts.ruled_out;
    ++(found.empty() ? that_do_not : that_fit);
  }
  EXPECT_GT(that_fit, 100);
  EXPECT_GT(that_do_not, 5);
  EXPECT_GT(ruled_out, 100);
}

// What differs in the loader's workers alone is planned together as it is alone.
TEST(Search, SiblingsArePlannedAsEachAlone) {
  std::mt19937 random(17);
  int compared = 0, stalled = 0, other_ram = 0;
  for (int i = 0; i < 40; ++i) {
    RandomJob one(random);
    if (random() % 2 == 0) one.job.data.kind = facts::DataKind::text;
    if (random() % 2 == 0) one.job.machine.storage_gb_per_s = 1e-4;
    std::vector<facts::Job> jobs(4, one.job);
    for (std::size_t k = 1; k < jobs.size(); ++k) {
      jobs[k].data.workers = std::int64_t{1} << (2 * k);
    }
    jobs[0].data.workers = 0;
    const auto together = own_siblings(jobs);
    ASSERT_EQ(together.size(), jobs.size());
    for (std::size_t k = 0; k < jobs.size(); ++k) {
      const auto alone = own_planner()(jobs[k], Depth::without_vram);
      ASSERT_EQ(alone.has_value(), together[k].has_value());
      if (!alone) continue;
      ++compared;
      stalled += alone->pace.breakdown.data_stall > Seconds() ? 1 : 0;
      other_ram += k > 0 && together[0] && alone->ram.peak != together[0]->ram.peak ? 1 : 0;
      EXPECT_EQ(alone->pace.step, together[k]->pace.step);
      EXPECT_EQ(alone->ram.peak, together[k]->ram.peak);
    }
  }
  EXPECT_GT(compared, 60);
  EXPECT_GT(stalled, 10);
  EXPECT_GT(other_ram, 10);
}

// As many processes as wanted, one after the other: each knows of the others what they would do.
class ManyCrew : public Crew {
 public:
  struct Board {
    explicit Board(std::size_t size) : barrier(static_cast<std::ptrdiff_t>(size)), given(size) {}
    std::barrier<> barrier;
    std::vector<std::string> given;
  };
  ManyCrew(Board& board, std::size_t rank) : board_(board), rank_(rank) {}
  [[nodiscard]] std::size_t size() const override { return board_.given.size(); }
  [[nodiscard]] std::size_t rank() const override { return rank_; }
  [[nodiscard]] std::vector<std::string> gathered(const std::string& own) override {
    board_.given[rank_] = own;
    board_.barrier.arrive_and_wait();
    const std::vector<std::string> all = board_.given;
    board_.barrier.arrive_and_wait();
    return all;
  }

 private:
  Board& board_;
  std::size_t rank_;
};

TEST(Search, AnyNumberOfProcessesGiveTheSameAnswer) {
  std::mt19937 random(11);
  for (int i = 0; i < 5; ++i) {
    const RandomJob one(random);
    const auto planned = own_planner()(one.job, Depth::full);
    if (!planned) continue;
    const facts::SearchResult alone = search(question_of(one, *planned, true), own_planner());
    constexpr std::size_t kProcesses = 3;
    ManyCrew::Board board(kProcesses);
    std::vector<facts::SearchResult> answers(kProcesses);
    {
      std::vector<std::jthread> processes;
      for (std::size_t rank = 0; rank < kProcesses; ++rank) {
        processes.emplace_back([&, rank] {
          ManyCrew crew(board, rank);
          SearchQuestion question = question_of(one, *planned, true);
          question.crew = &crew;
          answers[rank] = search(question, own_planner());
        });
      }
    }
    for (const facts::SearchResult& answer : answers) {
      EXPECT_EQ(front_of(answer), front_of(alone));
      EXPECT_EQ(answer.places[0].layouts, alone.places[0].layouts);
      EXPECT_EQ(answer.places[0].lost.size(), alone.places[0].lost.size());
    }
  }
}

// Where a plan goes below its bound, bounds rule nothing out.
TEST(Search, BoundsThatAreWrongAreDropped) {
  std::mt19937 random(3);
  const RandomJob one(random);
  const facts::Plan planned = plan::value_of(own_planner()(one.job, Depth::full));
  SearchQuestion question = question_of(one, planned, false);
  const auto right = front_of(search(question, own_planner()));
  question.bounds = [](const facts::Job&) -> Bounds {
    return [](const facts::Job&, const Bound*) -> std::optional<Bound> {
      return Bound{Seconds(1e9), Bytes(1), Bytes(1)};
    };
  };
  EXPECT_EQ(front_of(search(question, own_planner())), right);
}

TEST(Search, KeepsToWhatIsAskedFor) {
  std::mt19937 random(3);
  const RandomJob one(random);
  const facts::Plan planned = plan::value_of(own_planner()(one.job, Depth::full));
  SearchQuestion question = question_of(one, planned, true);
  const auto front = front_of(search(question, own_planner()));
  ASSERT_FALSE(front.empty());
  question.within.step = front[0].first * 0.5;
  EXPECT_TRUE(front_of(search(question, own_planner())).empty());
  question.within = {};
  question.within.ram_gib = static_cast<double>(front.back().second);
  const auto less = front_of(search(question, own_planner()));
  ASSERT_EQ(less.size(), 1U);
  EXPECT_EQ(less[0], front.back());
  question.within = {};
  question.within.gpus = *one.job.machine.gpus - 1;
  EXPECT_TRUE(search(question, own_planner()).places.empty());
}

TEST(Search, TheSameAnswerEveryTime) {
  std::mt19937 random(3);
  const RandomJob one(random);
  const facts::Plan planned = plan::value_of(own_planner()(one.job, Depth::full));
  const SearchQuestion question = question_of(one, planned, true);
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
  SearchQuestion question = question_of(one, planned, true);
  question.places.push_back(question.places.front());
  question.progress = [](std::int64_t done, std::int64_t) { return done < 3; };
  const facts::SearchResult result = search(question, own_planner());
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
  const facts::SearchResult result = search({.job = &job,
                                             .planned = &planned,
                                             .places = {{"dgx-h100", machine, 1}},
                                             .bounds = own_bounds},
                                            sharing_planner());
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
  const Space fixed(job, 8, 8, 64, Freedom{});
  EXPECT_FALSE(has(fixed, "parallel.tensor"));
  EXPECT_FALSE(has(fixed, "train.micro_batch"));
  for (const char* key : {"parallel.pipeline", "offload.optimizer", "data.workers"}) {
    EXPECT_TRUE(has(fixed, key)) << key;
  }
  EXPECT_FALSE(has(fixed, "train.precision"));
  EXPECT_TRUE(has(Space(job, 8, 8, 64, {.keys = {"train.micro_batch"}}), "train.micro_batch"));
}

TEST(Search, WordsNameKeysAndTables) {
  EXPECT_EQ(keys_named("expert"), std::vector<std::string>{"parallel.expert"});
  EXPECT_EQ(keys_named("offload").size(), 4U);
  EXPECT_EQ(keys_named("train.micro_batch"), std::vector<std::string>{"train.micro_batch"});
  EXPECT_TRUE(keys_named("nothing").empty());
  EXPECT_EQ(shardings_of("none, zero1"),
            (std::vector<facts::Sharding>{facts::Sharding::none, facts::Sharding::zero1}));
  EXPECT_EQ(shardings_of(""), std::vector<facts::Sharding>{facts::Sharding::none});
}

}  // namespace
}  // namespace steelyard::search
