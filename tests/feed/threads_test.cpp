// A loader of data.loader: threads between buffers, by measured rates where the machine has some.
#include <gtest/gtest.h>

#include "feed/example.h"
#include "feed/picture_cost.h"

namespace steelyard::feed {
namespace {

using testing::Example;
using testing::stage;

Example rehearsal(std::int64_t workers) {
  Example example;
  facts::LoaderProfile loader;
  loader.name = "rehearsal";
  loader.alone = true;
  loader.jpeg_work = "jpeg sample";
  loader.png_work = "png sample";
  loader.jpeg_part_decoded = loader.png_part_decoded = Ratio(0.5);
  loader.read_record = Seconds(2e-6);
  loader.read_file = Seconds(12e-6);
  example.constants.loader = loader;
  example.job.machine.gpus = 1;
  example.job.data.workers = workers;
  example.job.data.samples = 1000;
  example.job.data.bytes_per_sample = 100'000;
  example.job.data.stored_size = {400, 500};
  example.machine.host.threads = {2, facts::Provenance::measured};
  return example;
}

void add_rate(Example& example, std::int64_t width, std::int64_t height, std::int64_t bytes,
              std::int64_t threads, double images) {
  example.machine.host.rates.images.push_back({.work = "jpeg sample",
                                               .width = width,
                                               .height = height,
                                               .compressed = Bytes(bytes),
                                               .threads = threads,
                                               .images = SamplesPerSecond(images)});
}

TEST(ThreadedLoader, TheSlowestStageDecides) {
  Example example = rehearsal(1);
  add_rate(example, 500, 400, 100'000, 1, 500);
  add_rate(example, 500, 400, 100'000, 2, 900);
  const auto plan = example.plan();
  ASSERT_TRUE(plan) << to_text(plan.error());
  EXPECT_NEAR(plan->supply->value(), 500, 1);
  EXPECT_EQ(stage(*plan, "assemble").can, std::nullopt);
  EXPECT_EQ(stage(*plan, "host-to-device").can, std::nullopt) << "accelerators are paced";
}

TEST(ThreadedLoader, ReadingTakesItsShareOfTheHardwareThreads) {
  Example example = rehearsal(2);
  add_rate(example, 500, 400, 100'000, 1, 500);
  add_rate(example, 500, 400, 100'000, 2, 900);
  // 2 / (2 / 900 s + 12 us + 100 kB at 10 GB/s = 22 us): both threads decode, one reads besides.
  EXPECT_NEAR(example.plan()->supply->value(), 2.0 / (2.0 / 900.0 + 22e-6), 1);
}

TEST(ThreadedLoader, APacedConsumerUsesWhatComes) {
  Example example = rehearsal(1);
  add_rate(example, 500, 400, 100'000, 1, 500);
  example.needed = SamplesPerSecond(1000);
  auto plan = example.plan();
  ASSERT_TRUE(plan && plan->accelerator_utilization);
  EXPECT_NEAR(plan->accelerator_utilization->value(), 0.5, 0.005);
  EXPECT_EQ(plan->limited_by, "decode");
  example.needed = SamplesPerSecond(400);
  EXPECT_EQ(example.plan()->accelerator_utilization, Ratio(1.0));
}

TEST(ThreadedLoader, BetweenMeasuredSizesAndBytesTheTimeIsALine) {
  facts::HostRates rates;
  const auto add = [&](std::int64_t side, std::int64_t bytes, double seconds) {
    rates.images.push_back({.work = "w",
                            .width = side,
                            .height = side,
                            .compressed = Bytes(bytes),
                            .threads = 1,
                            .images = SamplesPerSecond(1 / seconds)});
  };
  add(100, 1'000, 1e-3);
  add(100, 3'000, 2e-3);
  add(200, 4'000, 4e-3);
  add(200, 12'000, 8e-3);
  const auto at = [&](double side, double bytes) {
    return measured_seconds(rates, "w", {.height = side, .width = side, .bytes = bytes}, Crew::one)
        ->value();
  };
  EXPECT_NEAR(at(100, 2'000), 1.5e-3, 1e-9);
  EXPECT_NEAR(at(200, 8'000), 6e-3, 1e-9);
  EXPECT_NEAR(at(400, 32'000), 24e-3, 1e-9) << "beyond the largest it grows with the pixels";
  const double middle = at(150, 2'250 * 2);  // 0.2 bytes a pixel
  EXPECT_GT(middle, at(100, 2'000));
  EXPECT_LT(middle, at(200, 8'000));
  EXPECT_FALSE(measured_seconds(rates, "other", {.height = 1, .width = 1, .bytes = 1}, Crew::one));
}

TEST(ThreadedLoader, AmongManySortsOfOneSizeTheNearestTwoCount) {
  facts::HostRates rates;
  for (const auto& [bytes, seconds] :
       {std::pair{1'000, 2e-3}, {2'000, 3e-3}, {2'005, 3.1e-3}, {4'000, 7e-3}}) {
    rates.images.push_back({.work = "w",
                            .width = 100,
                            .height = 100,
                            .compressed = Bytes(bytes),
                            .threads = 1,
                            .images = SamplesPerSecond(1 / seconds)});
  }
  const auto at = [&](double bytes) {
    return measured_seconds(rates, "w", {.height = 100, .width = 100, .bytes = bytes}, Crew::one)
        ->value();
  };
  EXPECT_NEAR(at(1'500), 2.5e-3, 1e-9);
  EXPECT_NEAR(at(3'000), 5e-3, 1e-9);
  EXPECT_NEAR(at(5'000), 9e-3, 1e-9) << "the last line goes on";
  EXPECT_NEAR(at(500), 1.5e-3, 1e-9) << "so does the first";
  EXPECT_GT(at(1), 0);
}

void add_records(Example& example, std::int64_t bytes, std::int64_t workers, double records) {
  example.machine.host.rates.images.push_back({.work = "cached record",
                                               .width = 0,
                                               .height = 0,
                                               .compressed = Bytes(bytes),
                                               .threads = workers,
                                               .images = SamplesPerSecond(records)});
}

TEST(ThreadedLoader, RecordsThatAreCopiedGoAtTheirMeasuredRate) {
  Example example = rehearsal(1);
  example.job.data.kind = facts::DataKind::npz;
  example.job.data.layout = facts::DataLayout::tar;
  add_records(example, 80'000, 1, 20'000);   // 50 us
  add_records(example, 240'000, 1, 10'000);  // 100 us
  add_records(example, 80'000, 3, 10'000);
  add_records(example, 240'000, 3, 5'000);
  const auto supply = [&] { return example.plan()->supply->value(); };
  EXPECT_NEAR(supply(), 1 / (50e-6 + 50e-6 / 8), 1);
  EXPECT_EQ(example.plan()->stages[1].note.find("measured") != std::string::npos, true);
  example.job.data.workers = 3;
  EXPECT_NEAR(supply(), 1 / (100e-6 + 100e-6 / 8), 1);
  const double few = 1 / (50e-6 + 50e-6 / 8);
  example.job.data.workers = 2;
  EXPECT_NEAR(supply(), 0.75 * few, 1) << "half the way between both crews";
  example.job.data.workers = 30;
  EXPECT_NEAR(supply(), 0.5 * few, 1) << "more threads than were measured bring no more";
  example.job.data.layout = facts::DataLayout::files;
  EXPECT_NEAR(supply(), 1 / (2 / few + 10e-6), 1) << "a file each is opened and closed besides";
  example.job.data.decode_seconds = 1e-6;
  EXPECT_GT(supply(), 0.5 * few) << "what is decoded is no copy";
}

TEST(MeasuredRates, GoBeforeTheConstants) {
  Example example;
  example.job.machine.gpus = 1;
  const double before = stage(*example.plan(), "decode").can->value();
  example.machine.host.rates.decode = {
      {.work = "jpeg", .per_pixel = Seconds(1.33e-9), .per_byte = Seconds(5.975e-9)}};
  example.machine.host.memory_bandwidth = {BytesPerSecond(1e9), facts::Provenance::measured};
  const auto plan = example.plan();
  const double after = stage(*plan, "decode").can->value();
  EXPECT_GT(after, 1.8 * before);
  EXPECT_LT(after, 2.0 * before) << "reading and collating stay";
  EXPECT_NE(stage(*plan, "decode").note.find("measured"), std::string::npos);
  EXPECT_NEAR(stage(*plan, "storage").can->value(), 1e9 / 110'000, 1) << "from memory";
}

}  // namespace
}  // namespace steelyard::feed
