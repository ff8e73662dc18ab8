// Against a library with the CUDA driver's functions (tests/support/fake_cuda.cpp): it copies in
// host memory and keeps a clock of its own.
#include "rehearse/cuda_devices.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "rehearse/batches.h"
#include "rehearse/numa_counters.h"
#include "rehearse/pictures.h"
#include "rehearse/rehearse.h"
#include "rehearse/thread_crew.h"

namespace steelyard::rehearse {
namespace {

using facts::Rehearsal;
using testing::Folder;
using ::testing::HasSubstr;
using testing::jpeg_folder;

class Cuda : public ::testing::Test {
 protected:
  ~Cuda() override { unsetenv("FAKE_CUDA"); }

  static void say(const char* options) { setenv("FAKE_CUDA", options, 1); }
  static Result<std::unique_ptr<CudaDevices>> open(std::optional<std::int64_t> accelerators = {},
                                                   std::int64_t first = 0) {
    return CudaDevices::open({.library = FAKE_CUDA,
                              .accelerators = accelerators,
                              .first = first,
                              .patience = Seconds(0.2)});
  }
  // What the library has given and not got back.
  static long held() {
    void* const library = dlopen(FAKE_CUDA, RTLD_NOW | RTLD_LOCAL);
    const auto count = reinterpret_cast<long (*)()>(dlsym(library, "fake_cuda_held"));
    const long held = count();
    dlclose(library);
    return held;
  }
};

Settings small(std::int64_t accelerators, std::int64_t samples) {
  return {.accelerators = accelerators,
          .batch = 4,
          .workers = 2,
          .step_time = Seconds(0.001),
          .duration = Seconds(60),
          .most_samples = samples,
          .most_depth = 4,
          .shape = {.side = 32}};
}

TEST_F(Cuda, BatchesAreCopiedToEachGpu) {
  say("count=2 to=50");
  const long before = held();
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  {
    const auto devices = open();
    ASSERT_TRUE(devices) << to_text(devices.error());
    EXPECT_EQ((*devices)->count(), 2U);
    for (int again = 0; again < 2; ++again) {
      const auto result = rehearse(dataset, small(2, 80), {}, {}, {.devices = devices->get()});
      ASSERT_TRUE(result) << to_text(result.error());
      ASSERT_EQ(result->devices.size(), 2U);
      std::int64_t copies = 0;
      for (const auto& device : result->devices) {
        EXPECT_EQ(device.name, "Fake GPU " + std::to_string(device.accelerator));
        EXPECT_EQ(device.bytes, Bytes(4 * 32 * 32 * 3) * device.copies);
        copies += device.copies;
        if (device.copies == 0) continue;  // on a busy machine one thread may start too late
        // Both GPUs share the library's clock, so a copy may take the time of both.
        EXPECT_GT(device.rate->value(), 0);
        EXPECT_LE(device.rate->value(), 50e9 * 1.001);
      }
      EXPECT_EQ(copies * 4, result->samples.value());
    }
  }
  EXPECT_EQ(held(), before) << "everything was given back";
}

TEST_F(Cuda, OneGpuCopiesAtItsRate) {
  say("count=1 to=50");
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  const auto devices = open(1);
  ASSERT_TRUE(devices) << to_text(devices.error());
  const auto result = rehearse(dataset, small(1, 40), {}, {}, {.devices = devices->get()});
  ASSERT_TRUE(result) << to_text(result.error());
  // Out of pinned memory: pageable would be a fifth of that.
  EXPECT_NEAR(result->devices[0].rate->value(), 50e9, 50e9 * 1e-3);
}

TEST_F(Cuda, WithACrewStepsAndCopiesGoTogether) {
  say("count=4");
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  testing::Meeting meeting(2);
  std::vector<Result<Rehearsal>> results(2, fail(Error{}));
  std::vector<std::unique_ptr<CudaDevices>> devices;
  for (int rank = 0; rank < 2; ++rank) devices.push_back(std::move(*open(2, rank * 2)));
  std::vector<std::jthread> threads;
  for (std::size_t rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      testing::ThreadCrew crew(meeting, rank, "node0");
      results[rank] =
          rehearse(dataset, small(2, 80), {}, {}, {.crew = &crew, .devices = devices[rank].get()});
    });
  }
  threads.clear();
  for (const auto& result : results) {
    ASSERT_TRUE(result) << to_text(result.error());
    for (const auto& device : result->devices) {
      EXPECT_GE(device.copies, result->crew->steps);
      EXPECT_LE(device.copies, result->crew->steps + 1) << "one ahead";
    }
  }
  EXPECT_EQ(results[1]->devices[0].name, "Fake GPU 2");
}

TEST_F(Cuda, WhatCannotStartSaysWhy) {
  EXPECT_THAT(to_text(CudaDevices::open({.library = "/nowhere/libcuda.so.1"}).error()),
              HasSubstr("cannot be loaded"));
  EXPECT_THAT(to_text(CudaDevices::open({.library = "libz.so.1"}).error()), HasSubstr("lacks"));
  say("init=100");
  EXPECT_THAT(to_text(open().error()), HasSubstr("CUDA_ERROR_NO_DEVICE"));
  say("count=0");
  EXPECT_EQ(open().error().code, ErrorCode::impossible_combination);
  say("count=2");
  EXPECT_THAT(to_text(open(3).error()), HasSubstr("accepted: 2"));
  EXPECT_FALSE(open(1, 2)) << "both GPUs belong to the processes before";
}

TEST_F(Cuda, MemoryThatIsRefused) {
  const long before = held();
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  for (const char* options : {"count=1 pin=out", "count=1 memory=out"}) {
    say(options);
    const auto devices = open();
    ASSERT_TRUE(devices);
    const auto result = rehearse(dataset, small(1, 40), {}, {}, {.devices = devices->get()});
    ASSERT_FALSE(result) << options;
    EXPECT_EQ(result.error().code, ErrorCode::too_large);
    EXPECT_THAT(to_text(result.error()), HasSubstr("CUDA_ERROR_OUT_OF_MEMORY"));
  }
  EXPECT_EQ(held(), before);
}

TEST_F(Cuda, ALostGpuEndsTheRehearsal) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  const auto error_with = [&](const char* options) {
    say(options);
    const auto devices = open();
    const auto result = rehearse(dataset, small(2, 1'000'000), {}, {}, {.devices = devices->get()});
    return result ? std::string("no error") : to_text(result.error());
  };
  EXPECT_THAT(error_with("count=2 copy=fails"), HasSubstr("copying a batch"));
  EXPECT_THAT(error_with("count=2 lost=0"), HasSubstr("CUDA_ERROR_LAUNCH_FAILED"));
  EXPECT_THAT(error_with("count=2 event=busy"), HasSubstr("no end within"));
}

TEST_F(Cuda, ALostGpuOfOneRankIsTheErrorOfAll) {
  const Folder folder;
  const Dataset dataset = jpeg_folder(folder, 9);
  say("count=1 lost=0");
  const auto devices = open();
  testing::Meeting meeting(2);
  std::vector<Result<Rehearsal>> results(2, fail(Error{}));
  std::vector<std::jthread> threads;
  for (std::size_t rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      testing::ThreadCrew crew(meeting, rank, "node0");
      results[rank] = rehearse(dataset, small(1, 1'000'000), {}, {},
                               {.crew = &crew, .devices = rank == 1 ? devices->get() : nullptr});
    });
  }
  threads.clear();
  for (const auto& result : results) {
    ASSERT_FALSE(result);
    EXPECT_THAT(to_text(result.error()), HasSubstr("rank 1 on node0: GPU 0 (Fake GPU 0)"));
  }
}

TEST(BatchesOfNodes, AreTakenByTheirOwnAccelerator) {
  Ledger ledger;
  // Nodes that this machine hardly has: the kernel refuses or prefers in vain, both serve.
  auto batches = Batches::make(4, 1, 4096, ledger, {0, 1});
  ASSERT_TRUE(batches);
  Nanoseconds waited = 0;
  std::vector<Batches::Place> places;
  for (int i = 0; i < 4; ++i) places.push_back(*(*batches)->claim(waited));
  for (const Batches::Place& place : places) (*batches)->written(place);
  // Batches 0 and 2 lie on node 0, 1 and 3 on node 1.
  EXPECT_EQ((*batches)->take(1)->batch, 1U);
  EXPECT_EQ((*batches)->take(1)->batch, 3U);
  EXPECT_EQ((*batches)->take(1)->batch, 0U) << "rather a far one than none";
  EXPECT_EQ((*batches)->take(0)->batch, 2U);
}

TEST(NumaCounters, SayWhatWasGivenSince) {
  const Folder folder;
  const auto write = [&](int node, long local, long other, long foreign) {
    const auto where = folder.path() / "sys/devices/system/node" / ("node" + std::to_string(node));
    std::filesystem::create_directories(where);
    std::ofstream(where / "numastat")
        << "numa_hit 7\nnuma_miss 0\nnuma_foreign " << foreign << "\ninterleave_hit 0\nlocal_node "
        << local << "\nother_node " << other << "\n";
  };
  write(0, 100, 10, 1);
  write(1, 50, 5, 0);
  const NumaCounters counters{sense::Tree(folder.path())};
  write(0, 300, 10, 4);
  write(1, 50, 6, 0);
  const auto nodes = counters.since();
  ASSERT_EQ(nodes.size(), 2U);
  const Bytes page(sysconf(_SC_PAGESIZE));
  EXPECT_EQ(nodes[0].local, page * 200);
  EXPECT_EQ(nodes[0].remote, Bytes(0));
  EXPECT_EQ(nodes[0].missed, page * 3);
  EXPECT_EQ(nodes[1].remote, page);
  EXPECT_TRUE(NumaCounters(sense::Tree(folder.path() / "nothing")).since().empty());
}

}  // namespace
}  // namespace steelyard::rehearse
