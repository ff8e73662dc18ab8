// MLPerf Storage's workloads as figures: what one accelerator reads and how long it computes, and
// what a checkpoint of its models weighs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/quantity.h"

namespace steelyard::facts {

enum class StorageFormat { npz, tfrecord, jpeg, parquet };

struct StorageWorkload {
  std::string id;  // "unet3d/h100": model and accelerator
  StorageFormat format = StorageFormat::npz;
  bool images = false;  // records hold JPEG images, else bytes that nothing compresses
  Samples samples_per_file;
  Bytes record;        // mean
  Bytes record_stdev;  // of a normal distribution; 0: all are equal
  Samples batch;       // of one accelerator's step
  std::int64_t readers = 1;
  Seconds computation;  // of one step
  std::optional<Ratio> least_utilization{};
  std::string source;
};

// A data set counts when it is this large (Submission_guidelines.md).
struct StorageRules {
  double memory_times = 0;       // of the memory of all hosts
  std::int64_t epoch_steps = 0;  // at least, of one epoch
  double checkpoint_memory = 0;  // below this many times the memory caches are dropped
  std::string source;
};

// A dense decoder and how its training is split.
struct CheckpointWorkload {
  std::string id;  // "llama3-8b"
  std::int64_t hidden = 0, feed_forward = 0, layers = 0, heads = 0, kv_heads = 0, vocabulary = 0;
  std::int64_t tensor_parallel = 1, pipeline_parallel = 1, data_parallel = 1;
  std::int64_t zero_stage = 0;
  std::string source;
};

}  // namespace steelyard::facts
