#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <thread>

#include "rehearse/merge.h"
#include "rehearse/order.h"
#include "rehearse/pictures.h"
#include "rehearse/rehearse.h"
#include "rehearse/thread_crew.h"

namespace steelyard::rehearse {
namespace {

using facts::Rehearsal;
using facts::RehearsalEnd;
using testing::Folder;
using ::testing::HasSubstr;
using testing::jpeg_folder;
using testing::Meeting;
using testing::ThreadCrew;

Settings small(std::int64_t samples) {
  return {.accelerators = 2,
          .batch = 2,
          .workers = 1,
          .step_time = Seconds(0.002),
          .duration = Seconds(60),
          .most_samples = samples,
          .most_depth = 2,
          .shape = {.side = 32},
          .patience = Seconds(30)};
}

// What one rank does otherwise than `small`.
struct Special {
  std::function<void(Settings&)> settings = [](Settings&) {};
  Injection injection{};
  Watcher watcher{};
};

std::vector<Result<Rehearsal>> run_together(const Dataset& dataset, const Settings& settings,
                                            std::size_t ranks, std::size_t special_rank = 99,
                                            const Special& special = {}) {
  Meeting meeting(ranks);
  std::vector<Result<Rehearsal>> results(ranks, fail(Error{}));
  std::vector<std::jthread> threads;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadCrew crew(meeting, rank, rank < 2 ? "node0" : "node1");
      Settings own = settings;
      if (rank == special_rank) special.settings(own);
      results[rank] = rank == special_rank ? rehearse(dataset, own, special.watcher,
                                                      special.injection, {.crew = &crew})
                                           : rehearse(dataset, own, {}, {}, {.crew = &crew});
    });
  }
  threads.clear();
  return results;
}

TEST(Crew, ShardsAreThoseOfADistributedSampler) {
  for (const std::uint64_t records : {1U, 7U, 10U, 64U}) {
    for (const std::uint64_t of : {1U, 3U, 4U}) {
      std::map<std::uint64_t, int> seen;
      for (std::uint64_t rank = 0; rank < of; ++rank) {
        const Order whole(records, 5, true), part(records, 5, true, {.rank = rank, .of = of});
        EXPECT_EQ(part.length(), (records + of - 1) / of);
        for (std::uint64_t i = 0; i < part.length(); ++i) {
          // torch: indices += indices[:padding]; indices[rank:total:of]
          EXPECT_EQ(part.at(i), whole.at((i * of + rank) % records));
          ++seen[part.at(i)];
        }
      }
      EXPECT_EQ(seen.size(), records) << "every record is read by some rank";
    }
  }
}

TEST(Crew, AgreesOnTheLatestAndOnTheWorstEnd) {
  const std::vector<Turn> turns{{.ready = true, .wait = 5},
                                {.ready = true, .wait = 9, .end = RehearsalEnd::time},
                                {.ready = false, .wait = 7, .end = RehearsalEnd::signal}};
  const Agreed all = agreed(turns);
  EXPECT_FALSE(all.ready);
  EXPECT_EQ(all.wait, 9);
  EXPECT_EQ(all.slowest, 1U);
  EXPECT_EQ(all.end, RehearsalEnd::signal);
  EXPECT_TRUE(agreed(std::span(turns).first(2)).ready);
}

TEST(Crew, PackedTextsComeBack) {
  const std::vector<std::string> texts{"", "a:b", std::string("\0x", 2), "12:"};
  EXPECT_EQ(unpacked(packed(texts)), texts);
  EXPECT_TRUE(unpacked("").empty());
  EXPECT_EQ(unpacked("99:short"), std::vector<std::string>{"short"});
}

TEST(Crew, AllTakeTheSameSteps) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 21);
  const auto results = run_together(dataset, small(80), 3);
  std::vector<Rehearsal> parts;
  for (const auto& result : results) {
    ASSERT_TRUE(result) << to_text(result.error());
    parts.push_back(*result);
    EXPECT_EQ(result->end, RehearsalEnd::samples);
    EXPECT_EQ(result->crew->steps, parts[0].crew->steps);
    EXPECT_EQ(result->utilization_least, parts[0].utilization_least);
    EXPECT_EQ(result->utilization_mean, parts[0].utilization_mean);
  }
  for (Rehearsal& part : parts) part.devices.resize(2);
  parts[2].devices[1].accelerator = 1;
  const Rehearsal all = merged(parts);
  EXPECT_EQ(all.devices.at(5).accelerator, 5) << "counted through all";
  EXPECT_EQ(all.crew->hosts, 2);
  ASSERT_EQ(all.crew->ranks.size(), 3U);
  EXPECT_EQ(all.setting.accelerators, 6);
  EXPECT_EQ(all.samples, parts[0].samples + parts[1].samples + parts[2].samples);
  EXPECT_NEAR(all.rate.value(), 3 * parts[0].rate.value(), all.rate.value() * 1e-9);
  EXPECT_NEAR(all.utilization_mean->value(), parts[0].utilization_mean->value(), 1e-9);
  EXPECT_GE(all.epochs, 80.0 / 7);  // of 7 records each
}

TEST(Crew, TheSlowestIsNamed) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 8);
  const auto results =
      run_together(dataset, small(24), 3, 1,
                   {.injection = {.read_delay = [](std::uint64_t) { return Seconds(0.02); }}});
  std::vector<Rehearsal> parts;
  for (const auto& result : results) {
    ASSERT_TRUE(result) << to_text(result.error());
    parts.push_back(*result);
  }
  const Rehearsal all = merged(parts);
  EXPECT_EQ(all.crew->slowest, 1);
  EXPECT_FALSE(all.limited_by.empty());
  const auto& slow = all.crew->ranks[1];
  const auto& fast = all.crew->ranks[0];
  EXPECT_GT(slow.waits_for_data, fast.waits_for_data);
  EXPECT_GT(fast.waits_for_others, slow.waits_for_others);
  EXPECT_GT(slow.last, 0);
  EXPECT_LT(slow.alone->value(), fast.alone->value());
  EXPECT_LT(all.utilization_least->value(), 0.5);
}

TEST(Crew, AFaultOfOneEndsAll) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  const auto results = run_together(
      dataset, small(1'000'000), 3, 2,
      {.injection = {.read_error = [](std::uint64_t record) { return record > 4 ? 5 : 0; }}});
  std::vector<Rehearsal> parts;
  for (const auto& result : results) {
    ASSERT_TRUE(result) << to_text(result.error());
    EXPECT_EQ(result->end, RehearsalEnd::fault);
    parts.push_back(*result);
  }
  const Rehearsal all = merged(parts);
  EXPECT_EQ(all.end, RehearsalEnd::fault);
  ASSERT_EQ(all.faults.size(), 1U);
  EXPECT_THAT(all.faults[0].first[0], HasSubstr("Input/output error"));
}

TEST(Crew, ASignalToOneEndsAll) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  const auto results = run_together(dataset, small(1'000'000), 2, 1,
                                    {.watcher = [](const Progress&) { return false; }});
  for (const auto& result : results) {
    ASSERT_TRUE(result) << to_text(result.error());
    EXPECT_EQ(result->end, RehearsalEnd::signal);
  }
}

TEST(Crew, ARefusalOfOneIsTheErrorOfAll) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  const auto results =
      run_together(dataset, small(10), 3, 2,
                   {.settings = [](Settings& own) { own.memory_limit = Bytes(1 << 20); }});
  for (const auto& result : results) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::too_large);
    EXPECT_THAT(to_text(result.error()), HasSubstr("rank 2 on node1: the memory"));
    EXPECT_THAT(to_text(result.error()), HasSubstr("--memory-limit"));
  }
}

TEST(Crew, AnErrorOfAllAlikeNeedsNoRank) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  Settings settings = small(10);
  settings.batch = 0;
  for (const auto& result : run_together(dataset, settings, 3)) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().subject, "--batch");
  }
}

TEST(Crew, ALostRankIsAnErrorAndNoHang) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  Settings settings = small(1'000'000);
  settings.patience = Seconds(1);
  // As a frozen process: it neither answers nor ends.
  Meeting meeting(2);
  std::jthread other([&] {
    ThreadCrew crew(meeting, 1, "node1");
    // Comes to the agreements before the start, then to no step.
    for (int i = 0; i < 3; ++i) {
      const std::vector<std::string> host{"node1", "the machine", "0"};
      const auto ignored = crew.gathered(i == 1 ? packed(host) : std::string(), Seconds(30));
    }
  });
  ThreadCrew crew(meeting, 0, "node0");
  const auto result = rehearse(dataset, settings, {}, {}, {.crew = &crew});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::unreadable);
}

}  // namespace
}  // namespace steelyard::rehearse
