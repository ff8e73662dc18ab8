// `steelyard share` and `steelyard ratio` as they are printed, from facts made by hand.
#include <gtest/gtest.h>

#include "report/share_report.h"
#include "support/golden.h"

namespace steelyard::report {
namespace {

using namespace literals;
using facts::Seat;
using facts::SharedResource;

facts::PlacedJob placed(const std::string& name, std::vector<std::int64_t> on, double together) {
  facts::PlacedJob job{.name = name, .file = name + ".toml"};
  job.gpus = static_cast<std::int64_t>(on.size());
  job.on = std::move(on);
  facts::Plan plan;
  plan.vram.capacity = {80_GiB, facts::Provenance::given};
  plan.vram.fullest.peak_device_used = 60_GiB;
  plan.ram.peak = 100_GiB;
  job.alone = plan;
  job.step_alone = 1.0_s;
  job.step_together = Seconds(together);
  return job;
}

facts::SharePlan two_and_one() {
  facts::SharePlan plan;
  plan.machine = "server";
  plan.gpus = 4;
  plan.socket_of_gpu = {0, 0, 1, 1};
  plan.jobs = {placed("readers", {0, 1}, 1.25), placed("turns", {2}, 2.0), placed("cut", {3}, 1.0)};
  plan.jobs[0].parts = {{SharedResource::storage, 6e9, 5e9, Ratio(1.2)},
                        {SharedResource::cores, 40.0, 32.0, Ratio(1.25)}};
  plan.jobs[1].seat = Seat::time_slice;
  plan.jobs[1].parts = {{SharedResource::gpu, 1.0, 0.5, Ratio(2.0)}};
  plan.jobs[2].seat = Seat::mig;
  plan.jobs[2].profile_memory = 80_GiB;
  plan.jobs[2].profile = "3g.40gb";
  plan.ram.capacity = {512_GiB, facts::Provenance::given};
  plan.ram.phases = {20_GiB, 290_GiB, 200_GiB, 230_GiB};
  plan.ram.worst = 300_GiB;
  plan.ram.page_cache_wanted = 400_GiB;
  plan.ram.page_cache_left = 212_GiB;
  plan.sums = {{SharedResource::storage, "nvme", 10e9, 12e9},
               {SharedResource::cores, "", 64.0, 80.0}};
  return plan;
}

TEST(ShareText, SaysWhoSitsWhereAndWhy) {
  testing::expect_golden(share_text(two_and_one(), {.columns = 120}), "report/golden/share");
}

TEST(ShareText, SaysWhatToMove) {
  facts::SharePlan plan = two_and_one();
  plan.verdict = facts::ShareVerdict::gpus_short;
  plan.sentences = {"the jobs ask for 9 GPUs, the machine has 8"};
  plan.move = {1};
  const std::string text = share_text(plan, {.ascii = true});
  EXPECT_NE(text.find("3 jobs on server: DO NOT FIT TOGETHER: GPUs short"), std::string::npos);
  EXPECT_NE(text.find("move B turns: the rest fits"), std::string::npos);
}

facts::MixRatio two_jobs() {
  const facts::RuleOfThumb rule{Ratio(2.0), Ratio(3.0), false};
  facts::MixRatio mix{.mix = "tier entry", .about = "small & cheap", .rule = rule};
  mix.jobs = {{"first", 3.0, 1, 1}, {"second, \"large\"", 1.0, 8, 2}};
  facts::GpuRatio little{.gpu = "little", .vram = 16_GiB, .rule = rule};
  little.cells = {{"", true, 10_GiB, 8_GiB, 1_GiB, Bytes(), rule},
                  {"", false, 30_GiB, 20_GiB, 4_GiB, Bytes(), rule}};
  little.fitting = 0.75;
  little.ram_most = little.ram_mean = 8_GiB;
  little.with_page_cache = 9_GiB;
  little.ratio_most = little.ratio_mean = Ratio(0.5);
  facts::GpuRatio tiny{.gpu = "tiny", .vram = 4_GiB, .rule = rule};
  tiny.cells = {{"", false, 10_GiB, 8_GiB, 1_GiB, Bytes(), rule}, {"not here"}};
  mix.gpus = {tiny, little};
  facts::MachineRatio machine{.machine = "box", .gpu = "little", .gpus = 8};
  machine.verdict = facts::MachineForMix::enough;
  machine.ram_per_gpu = 32_GiB;
  machine.needed = 8_GiB;
  machine.with_page_cache = 9_GiB;
  machine.ratio_installed = Ratio(2.0);
  machine.ratio_needed = Ratio(0.5);
  machine.price_per_gpu_hour = 1.5;
  machine.currency = "USD";
  machine.why = "first";
  mix.machines = {machine};
  return mix;
}

TEST(RatioText, SaysTheNeedBesideTheRule) {
  testing::expect_golden(ratio_text(two_jobs(), {.columns = 120}), "report/golden/ratio");
}

TEST(RatioText, TheTableIsCsv) {
  testing::expect_golden(ratio_csv(two_jobs()), "report/golden/ratio_csv");
}

// Names are escaped, and nothing is fetched or run.
TEST(RatioText, ThePageNeedsNothingBesideIt) {
  const std::string page = ratio_page(two_jobs());
  EXPECT_TRUE(page.starts_with("<!doctype html>"));
  EXPECT_NE(page.find("small &amp; cheap"), std::string::npos);
  EXPECT_NE(page.find("second, &quot;large&quot;"), std::string::npos);
  EXPECT_NE(page.find("<svg"), std::string::npos);
  for (const char* outside : {"<script", "http:", "https:", "<link", "<img", "url("}) {
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  }
}

}  // namespace
}  // namespace steelyard::report
