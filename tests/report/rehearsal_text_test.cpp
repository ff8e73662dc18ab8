#include <gtest/gtest.h>

#include "facts/rehearsal.h"
#include "report/report.h"
#include "support/golden.h"

namespace steelyard::report {
namespace {

facts::Rehearsal sample() {
  facts::Rehearsal r;
  r.setting = {.data = "/data/imagenet",
               .format = "images",
               .records = 1'281'167,
               .bytes = Bytes(146'900'000'000),
               .accelerators = 8,
               .batch = 256,
               .workers = 16,
               .prefetch = 2,
               .step_time = Seconds(0.315),
               .direct = true,
               .reader = "io_uring",
               .read_depth = 24};
  r.elapsed = Seconds(30);
  r.samples = Samples(184'320);
  r.epochs = 0.144;
  r.rate = SamplesPerSecond(6190);
  r.read_rate = BytesPerSecond(709e6);
  r.utilization_mean = Ratio(0.952);
  r.utilization_least = Ratio(0.941);
  r.limited_by = "decode";
  r.stages = {{.name = "read",
               .threads = 1,
               .can = SamplesPerSecond(18'000),
               .busy = Seconds(10.2),
               .waits_for_data = Seconds(0),
               .waits_for_room = Seconds(19.8),
               .cpu = Seconds(4.1),
               .planned = SamplesPerSecond(20'000)},
              {.name = "decode",
               .threads = 16,
               .can = SamplesPerSecond(6195),
               .busy = Seconds(479.5),
               .waits_for_data = Seconds(0.3),
               .waits_for_room = Seconds(0.2),
               .cpu = Seconds(478),
               .planned = SamplesPerSecond(6900)},
              {.name = "accelerator",
               .threads = 8,
               .can = SamplesPerSecond(6502),
               .busy = Seconds(228),
               .waits_for_data = Seconds(11.6),
               .waits_for_room = Seconds(0),
               .cpu = Seconds(0.1)}};
  r.memory = {.index = Bytes(150 << 20),
              .read_buffers = Bytes(9 << 20),
              .batches = Bytes(588 << 20),
              .decoding = Bytes(33 << 20),
              .needed = Bytes(790 << 20),
              .peak = Bytes(774 << 20),
              .page_cache = Bytes(1 << 30),
              .group_peak = Bytes(std::int64_t{2} << 30),
              .limit = Bytes(std::int64_t{64} << 30)};
  r.faults = {{.kind = facts::FaultKind::corrupt,
               .count = 2,
               .first = {"/data/imagenet/a.jpg: JPEG: Not a JPEG file"}}};
  r.notes = {"labels.txt: ignored"};
  return r;
}

TEST(RehearsalText, WithItsPlan) {
  facts::Rehearsal r = sample();
  r.planned = {.samples = SamplesPerSecond(6502),
               .utilization = Ratio(1.0),
               .step = Seconds(0.315),
               .limited_by = "",
               .workers_enough = 2};
  testing::expect_golden(rehearsal_text(r, {.ascii = true}), "report/golden/rehearsal_planned");
}

TEST(RehearsalText, OfSeveralProcessesOnRealGpus) {
  facts::Rehearsal r = sample();
  r.faults.clear();
  r.crew = {.hosts = 2,
            .steps = 90,
            .slowest = 1,
            .ranks = {{.rank = 0,
                       .host = "node17",
                       .accelerators = 4,
                       .alone = Ratio(0.998),
                       .waits_for_data = Seconds(0.06),
                       .waits_for_others = Seconds(1.6),
                       .last = 3,
                       .needed = Bytes(790 << 20),
                       .peak = Bytes(774 << 20)},
                      {.rank = 1,
                       .host = "node18",
                       .accelerators = 4,
                       .alone = Ratio(0.945),
                       .waits_for_data = Seconds(1.65),
                       .waits_for_others = Seconds(0.01),
                       .last = 80,
                       .needed = Bytes(790 << 20),
                       .peak = Bytes(771 << 20)}}};
  r.devices = {{.accelerator = 0,
                .name = "NVIDIA H100 80GB HBM3",
                .pci = "0000:1b:00.0",
                .numa_node = 0,
                .copies = 91,
                .bytes = Bytes(std::int64_t{91} * 256 * 224 * 224 * 3),
                .copying = Seconds(0.07),
                .rate = BytesPerSecond(50e9)}};
  r.nodes = {{.node = 0, .local = Bytes(1 << 30), .remote = Bytes(1 << 20), .missed = Bytes(0)},
             {.node = 1, .local = Bytes(0), .remote = Bytes(0), .missed = Bytes(4096)}};
  testing::expect_golden(rehearsal_text(r, {.ascii = true}), "report/golden/rehearsal_together");
}

TEST(RehearsalText, TunedWithoutAPlan) {
  facts::Rehearsal r = sample();
  for (facts::RehearsalStage& stage : r.stages) stage.planned.reset();
  r.faults.clear();
  r.tuning = {.target = Ratio(0.95),
              .reached = true,
              .tries = {{.workers = 16,
                         .prefetch = 2,
                         .depth = 32,
                         .utilization = Ratio(0.99),
                         .needed = Bytes(790 << 20),
                         .enough = true},
                        {.workers = 8,
                         .prefetch = 2,
                         .depth = 32,
                         .utilization = Ratio(0.62),
                         .needed = Bytes(770 << 20),
                         .enough = false}}};
  testing::expect_golden(rehearsal_text(r, {.ascii = true}), "report/golden/rehearsal_tuned");
}

}  // namespace
}  // namespace steelyard::report
