// A request of the feed room that tests change one figure at a time: ImageNet-like JPEGs on one
// node of eight GPUs with 96 cores.
#pragma once

#include <stdexcept>
#include <string>

#include "feed/feed.h"

namespace steelyard::feed::testing {

struct Example {
  facts::Job job;
  facts::Machine machine;
  facts::HostConstants constants;
  Bytes sample_bytes = Bytes(3 * 224 * 224);
  std::optional<SamplesPerSecond> needed;
  Bytes free_for_page_cache = Bytes(std::int64_t{1} << 40);
  Bytes loaders, batches, pinned;

  Example() {
    job.machine.gpus = 8;
    job.train.micro_batch = 64;
    job.data.kind = facts::DataKind::jpeg;
    job.data.samples = 1'281'167;
    job.data.bytes_per_sample = 110'000;
    job.data.layout = facts::DataLayout::files;
    job.data.location = "nvme";
    job.data.workers = 8;

    machine.gpus = 8;
    machine.host.cores = {96, facts::Provenance::catalogue};
    machine.host.sockets = {2, facts::Provenance::catalogue};
    machine.gpu.host_link = {BytesPerSecond(63e9), facts::Provenance::catalogue};
    add_storage("nvme", 10e9);

    // As catalog/calibration/host.toml.
    constants.loader_worker = Bytes(300 << 20);
    constants.jpeg_seconds_per_byte = 1.195e-8;
    constants.jpeg_seconds_per_pixel = 2.66e-9;
    constants.jpeg_bytes_per_pixel = 0.587;
    constants.image_transform = Ratio(2.0);
    constants.video_seconds_per_frame = 7.1e-3;
    constants.video_frames_between_keys = 250;
    constants.assemble_per_byte = Seconds(0.79e-9);
    constants.file_read = Seconds(10e-6);
    constants.thread_copy = BytesPerSecond(10e9);
    constants.host_memory_bandwidth = BytesPerSecond(204.8e9);
    constants.storage_read = BytesPerSecond(2.9e9);
    constants.pcie_copy = BytesPerSecond(25e9);
    constants.host_link_share = Ratio(0.82);
    constants.decode_seconds = {
        {"tokens", 2e-5}, {"video", 0.6}, {"tabular", 1e-6}, {"synthetic", 0.0}};
    constants.decode_seconds_per_byte = {
        {"text", 3.53e-7}, {"png", 9.2e-9}, {"audio", 2.4e-8}, {"npz", 1e-10}};
  }

  void add_storage(const char* name, double bytes_per_second) {
    facts::Storage storage;
    storage.name = name;
    storage.read = {BytesPerSecond(bytes_per_second), facts::Provenance::catalogue};
    machine.storage.push_back(storage);
  }

  [[nodiscard]] Result<facts::FeedPlan> plan() const {
    return data_path({.job = &job,
                      .machine = &machine,
                      .constants = &constants,
                      .sample_bytes = sample_bytes,
                      .needed_per_node = needed,
                      .free_for_page_cache = free_for_page_cache,
                      .loaders = loaders,
                      .batches = batches,
                      .pinned = pinned});
  }
};

inline const facts::FeedStage& stage(const facts::FeedPlan& plan, const std::string& name) {
  for (const facts::FeedStage& stage : plan.stages) {
    if (stage.name == name) return stage;
  }
  throw std::out_of_range(name);
}

}  // namespace steelyard::feed::testing
