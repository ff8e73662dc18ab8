// The workloads of MLPerf Storage (mlcommons/storage@caa90c9, DLIO's configurations): the bytes per
// second that one accelerator takes, and accelerator utilization as the benchmark defines it.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "feed/example.h"

namespace steelyard::feed {
namespace {

using testing::Example;
using testing::stage;

struct Workload {
  std::string name;
  double record_bytes;
  std::int64_t batch;
  double compute_seconds;
  double megabytes_per_second;  // as published, per accelerator
};

class MlperfStorage : public ::testing::TestWithParam<Workload> {};

// One accelerator; the records come from storage only.
Example of(const Workload& workload) {
  Example example;
  example.job.machine.gpus = 1;
  example.job.train.micro_batch = workload.batch;
  example.job.data.kind = facts::DataKind::npz;
  example.job.data.layout = facts::DataLayout::tfrecord;
  example.job.data.cache = facts::DataCache::none;
  example.job.data.bytes_per_sample = workload.record_bytes;
  example.sample_bytes = Bytes(static_cast<std::int64_t>(workload.record_bytes));
  // The benchmark ends in host memory and does nothing there.
  example.constants.assemble_per_byte = Seconds(1e-15);
  example.constants.thread_copy = BytesPerSecond(1e15);
  example.constants.decode_seconds_per_byte["npz"] = 1e-18;
  example.needed = SamplesPerSecond(static_cast<double>(workload.batch) / workload.compute_seconds);
  return example;
}

void set_rate(Example& example, double bytes_per_second) {
  example.machine.storage.front().read = {BytesPerSecond(bytes_per_second),
                                          facts::Provenance::given};
}

// The published rate is where the storage stage can just do what is needed. A100 unet3d:
// 7 * 146,600,628 B / 0.636 s = 1613.5 MB/s.
TEST_P(MlperfStorage, takesThePublishedRate) {
  Example example = of(GetParam());
  const double rate = 1e9;
  set_rate(example, rate);
  const facts::FeedPlan plan = *example.plan();
  const facts::FeedStage& from_storage = stage(plan, "storage");
  const double needed = rate * (*from_storage.needed / *from_storage.can).value();
  EXPECT_NEAR(needed / 1e6, GetParam().megabytes_per_second, 0.5);
}

TEST_P(MlperfStorage, storageOfThatRateKeepsItBusyAndHalfOfItHalfBusy) {
  Example example = of(GetParam());
  const double needed = static_cast<double>(GetParam().batch) *
                        std::round(GetParam().record_bytes) / GetParam().compute_seconds;
  set_rate(example, needed * 1.0001);
  EXPECT_NEAR(example.plan()->accelerator_utilization->value(), 1.0, 1e-9);
  EXPECT_EQ(example.plan()->limited_by, "");
  set_rate(example, needed / 2);
  EXPECT_NEAR(example.plan()->accelerator_utilization->value(), 0.5, 1e-4);
  EXPECT_NEAR(example.plan()->gpu_wait_fraction->value(), 0.5, 1e-4);
  EXPECT_EQ(example.plan()->limited_by, "storage");
}

INSTANTIATE_TEST_SUITE_P(Workloads, MlperfStorage,
                         ::testing::Values(Workload{"unet3d_v100", 146'600'628, 4, 1.3604, 431},
                                           Workload{"unet3d_a100", 146'600'628, 7, 0.636, 1613.5},
                                           Workload{"unet3d_h100", 146'600'628, 7, 0.323, 3177},
                                           Workload{"unet3d_b200", 146'600'628, 7, 0.162, 6334.6},
                                           Workload{"resnet50_v100", 114'660.07, 64, 0.195, 37.6},
                                           Workload{"resnet50_a100", 114'660.07, 400, 0.435, 105.4},
                                           Workload{"resnet50_h100", 114'660.07, 400, 0.224, 204.7},
                                           Workload{"cosmoflow_a100", 2'828'486, 1, 0.00551, 513.3},
                                           Workload{"cosmoflow_h100", 2'828'486, 1, 0.00350,
                                                    808.1}),
                         [](const auto& which) { return which.param.name; });

// Eight H100 on unet3d need 25 GB/s, on resnet50 1.6 GB/s but 14,300 decoded images per second.
TEST(MlperfStorageNodes, eightH100) {
  const double unet3d = 8 * 7 * 146'600'628.0 / 0.323;
  Example example = of({"unet3d_h100", 146'600'628, 7, 0.323, 3177});
  example.job.machine.gpus = 8;
  example.needed = SamplesPerSecond(8 * 7 / 0.323);
  set_rate(example, 12.7e9);
  EXPECT_NEAR(unet3d, 25.4e9, 0.05e9);
  EXPECT_NEAR(example.plan()->accelerator_utilization->value(), 0.5, 0.01);

  Example resnet;
  resnet.job.train.micro_batch = 400;
  resnet.job.data.bytes_per_sample = 114'660.07;
  resnet.needed = SamplesPerSecond(8 * 400 / 0.224);
  EXPECT_NEAR(resnet.needed->value(), 14'286, 1);
  EXPECT_EQ(resnet.plan()->limited_by, "");  // 64 workers decode 16,400
  resnet.job.data.workers = 6;
  EXPECT_EQ(resnet.plan()->limited_by, "decode");
}

// A consumer of c seconds and a supply of one sample each s seconds: c / max(c, s).
TEST(MlperfStorageNodes, pacedConsumer) {
  for (const double c : {0.5, 1.0, 2.0}) {
    for (const double s : {0.25, 1.0, 4.0}) {
      Example example = of({"paced", 1e6, 1, c, 0});
      set_rate(example, 1e6 / s);
      EXPECT_NEAR(example.plan()->accelerator_utilization->value(), c / std::max(c, s), 1e-6);
    }
  }
}

}  // namespace
}  // namespace steelyard::feed
