// The phases of a run, by hand and by properties.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "facts/process_memory.h"
#include "ram/example.h"

namespace steelyard::ram {
namespace {

using facts::RamCategory;
using facts::RamPhase;
using ::testing::Contains;
using testing::Example;
using ::testing::HasSubstr;
using testing::phase;
using namespace literals;

facts::RamPlan planned(const Example& example) {
  auto plan = example.plan();
  EXPECT_TRUE(plan.has_value()) << to_text(plan.error());
  return std::move(plan).value_or(facts::RamPlan{});
}

// The worked example of docs/model/host-memory.md: Llama-3.1-8B, FSDP over eight GPUs, fp32
// parameters under bf16 autocast, 2 workers per rank, with the constants of the catalogue.
Example llama_8b() {
  Example example;
  example.job.parallel.sharding = facts::Sharding::fsdp;
  example.job.parallel.shard_group = 8;
  example.job.train.micro_batch = 2;
  example.job.data.kind = facts::DataKind::tokens;
  example.job.data.layout = facts::DataLayout::memmap;
  example.job.data.workers = 2;
  example.sample_bytes = Bytes(8192 * 8);  // 8192 tokens of 8 B
  example.set_parameters(8'030'261'248, 4, false);
  example.states.largest_block_bytes = Bytes(128'257LL * 4'096 * 4);
  example.constants.system = 4_GiB;
  example.constants.process = 3_GiB;
  example.constants.loader_worker = 300_MiB;
  return example;
}

// Companions on the CPU: weights in every rank from loading on, what they compute with while steps
// run.
TEST(HostMemory, companionsOnTheCpuAreInEveryRank) {
  Example example;
  const facts::RamPlan without = planned(example);
  example.states.companion_host_bytes = Bytes(10'000'000'000);
  example.states.companion_host_work = Bytes(200'000'000);
  const facts::RamPlan with = planned(example);
  const auto more = [&](RamPhase which, RamCategory category) {
    return phase(with, which)[category] - phase(without, which)[category];
  };
  EXPECT_EQ(more(RamPhase::startup, RamCategory::parameters), Bytes());
  EXPECT_EQ(more(RamPhase::load, RamCategory::parameters), Bytes(80'000'000'000));
  EXPECT_EQ(more(RamPhase::steady, RamCategory::parameters), Bytes(80'000'000'000));
  EXPECT_EQ(more(RamPhase::steady, RamCategory::activations), Bytes(1'600'000'000));
  EXPECT_EQ(more(RamPhase::checkpoint, RamCategory::activations), Bytes());
}

TEST(HostMemory, workedExampleOfTheDocumentation) {
  const facts::RamPlan plan = planned(llama_8b());
  // 4 GiB + 8 * 3 GiB
  EXPECT_EQ(phase(plan, RamPhase::startup).total(), Bytes(30'064'771'072));
  // + 8 ranks convert the largest block, the head and its norm: 8 * 128,257 * 4,096 * 4
  EXPECT_EQ(phase(plan, RamPhase::load).total(), Bytes(46'875'672'576));
  // startup + workers 8 * 2 * (314,572,800 + samples 131,072) + in flight 8 * (2 * 2) * 131,072 +
  // pinned 8 * 2 * 131,072
  EXPECT_EQ(phase(plan, RamPhase::steady)[RamCategory::loader_workers], Bytes(5'035'261'952));
  EXPECT_EQ(phase(plan, RamPhase::steady)[RamCategory::prefetch], Bytes(4'194'304));
  EXPECT_EQ(phase(plan, RamPhase::steady)[RamCategory::pinned], Bytes(2'097'152));
  EXPECT_EQ(phase(plan, RamPhase::steady).total(), Bytes(35'106'324'480));
  // + parameters 32,121,044,992 and two Adam moments 64,242,089,984 gathered on rank 0
  EXPECT_EQ(phase(plan, RamPhase::checkpoint).total(), Bytes(131'469'459'456));
  EXPECT_EQ(plan.peak, Bytes(131'469'459'456));
  EXPECT_EQ(plan.peak_phase, RamPhase::checkpoint);
  EXPECT_EQ(plan.page_cache_wanted, Bytes(16'060'522'496));  // the bf16 file
  EXPECT_THAT(plan.rules, Contains(Field(&facts::RamRule::sentence, HasSubstr("data.samples"))));
}

// ResNet, batch of 256 fp32 images (147 MiB), 8 workers, 2 batches ahead: 2352 MiB per rank.
TEST(HostMemory, batchesInFlightOfResnet) {
  Example example;
  example.sample_bytes = Bytes(3 * 224 * 224 * 4);
  example.job.train.micro_batch = 256;
  example.job.data.workers = 8;
  const facts::RamPlan plan = planned(example);
  EXPECT_EQ(phase(plan, RamPhase::steady)[RamCategory::prefetch], 2352_MiB * 8);
  EXPECT_EQ(phase(plan, RamPhase::steady)[RamCategory::pinned], 256_MiB * 2 * 8);
}

// MLPerf Storage unet3d: 4 readers x 2 x 7 records of 146,600,628 B = 8.2 GB per accelerator.
TEST(HostMemory, readersOfUnet3d) {
  Example example;
  example.job.data.kind = facts::DataKind::npz;
  example.sample_bytes = Bytes(146'600'628);
  example.job.train.micro_batch = 7;
  const Bytes in_flight = phase(planned(example), RamPhase::steady)[RamCategory::prefetch];
  EXPECT_EQ(in_flight, Bytes(8 * 8'209'635'168));
}

// 1,281,167 files of 174 B each in 8 * (4 + 1) processes; the order of an epoch, 40 B per sample,
// in the 8 that draw it.
TEST(HostMemory, everyProcessEndsUpWithItsCopyOfTheFileList) {
  Example example;
  example.job.data.layout = facts::DataLayout::files;
  const facts::RamBytes without = phase(planned(example), RamPhase::steady);
  example.job.data.samples = 1'281'167;
  const facts::RamBytes with = phase(planned(example), RamPhase::steady);
  const auto more = [&](RamCategory category) { return with[category] - without[category]; };
  EXPECT_EQ(more(RamCategory::loader_workers), Bytes(1'281'167LL * 174 * 32));
  EXPECT_EQ(more(RamCategory::framework), Bytes(1'281'167LL * (174 + 40) * 8));
  example.job.data.shuffle = facts::Shuffle::none;
  EXPECT_EQ(phase(planned(example), RamPhase::steady)[RamCategory::framework] -
                without[RamCategory::framework],
            Bytes(1'281'167LL * 174 * 8));
}

TEST(HostMemory, datasetCachesHoldTheDatasetDecodedOrAsStored) {
  Example example;
  example.job.data.samples = 1'000'000;
  example.job.data.bytes_per_sample = 110'000;
  example.job.data.cache = facts::DataCache::ram_encoded;
  const std::int64_t ranks = *example.job.machine.gpus;
  const auto held = [&] {
    return phase(planned(example), RamPhase::steady)[RamCategory::dataset_cache];
  };
  EXPECT_EQ(held(), 110_GB * ranks);  // each process makes its own
  example.job.data.cache_shared = true;
  EXPECT_EQ(held(), 110_GB);
  example.job.data.cache = facts::DataCache::ram;
  EXPECT_EQ(held(), 1_MiB * 1'000'000);
  example.job.data.cache_shared = false;
  EXPECT_EQ(held(), 1_MiB * 1'000'000 * ranks);
}

// 10,000 records of 110 kB and 300 B beside each, in each of the workers of each rank.
TEST(HostMemory, AShuffleBufferHoldsSamplesAsStored) {
  Example example;
  example.job.data.samples = 1'000'000;
  example.job.data.bytes_per_sample = 110'000;
  example.job.data.workers = 4;
  const auto held = [&] {
    return phase(planned(example), RamPhase::steady)[RamCategory::loader_workers];
  };
  const Bytes without = held();
  example.job.data.shuffle_buffer = 10'000;
  EXPECT_EQ(held() - without, Bytes(110'300) * (10'000 * 4 * *example.job.machine.gpus));
  example.job.data.samples = 100;
  EXPECT_LT(held() - without, Bytes(110'300) * (101 * 4 * *example.job.machine.gpus));
}

TEST(HostMemory, aCacheOfUnknownSizeIsAnErrorThatNamesTheKey) {
  Example example;
  example.job.data.cache = facts::DataCache::ram;
  const auto plan = example.plan();
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, ErrorCode::missing_value);
  EXPECT_EQ(plan.error().subject, "data.samples");
}

TEST(HostMemory, thePageCacheWantsTheDatasetAndTheModelFile) {
  Example example;
  example.job.data.samples = 1'281'167;
  example.job.data.bytes_per_sample = 110'000;
  EXPECT_EQ(planned(example).page_cache_wanted, Bytes(1'281'167LL * 110'000) + 2_GB);
  example.job.data.cache = facts::DataCache::none;
  example.job.checkpoint.load = facts::CheckpointLoad::meta;
  EXPECT_EQ(planned(example).page_cache_wanted, Bytes());
}

TEST(HostMemory, syntheticDataNeedsNoLoaders) {
  Example example;
  example.job.data.kind = facts::DataKind::synthetic;
  const facts::RamPlan plan = planned(example);
  EXPECT_EQ(phase(plan, RamPhase::steady).total(), phase(plan, RamPhase::startup).total());
}

// Eight GPUs without a link: 8 ranks x 2 neighbours x 2 channels x 9,637,888 B.
TEST(HostMemory, sharedMemorySegmentsOnlyWithoutALink) {
  Example example;
  EXPECT_EQ(phase(planned(example), RamPhase::steady)[RamCategory::shared_memory], Bytes());
  example.machine.gpu.link = {};
  EXPECT_EQ(phase(planned(example), RamPhase::steady)[RamCategory::shared_memory],
            Bytes(32 * 9'637'888));
  example.machine.gpu.link = {BytesPerSecond(), facts::Provenance::catalogue};  // known: none
  EXPECT_EQ(phase(planned(example), RamPhase::steady)[RamCategory::shared_memory],
            Bytes(32 * 9'637'888));
  example.job.machine.gpus = 1;
  EXPECT_EQ(phase(planned(example), RamPhase::steady)[RamCategory::shared_memory], Bytes());
}

// Without workers a rank has the samples and the batch they become; with cache = "ram" workers
// hand over views.
TEST(HostMemory, samplesBesideTheBatchThatTheyBecome) {
  Example example;
  example.job.data.workers = 0;
  EXPECT_EQ(phase(planned(example), RamPhase::steady)[RamCategory::prefetch], 16_MiB * 2 * 8);
  example.job.data.workers = 4;
  EXPECT_EQ(phase(planned(example), RamPhase::steady)[RamCategory::loader_workers],
            (300_MB + 16_MiB) * 32);
  example.job.data.cache = facts::DataCache::ram;
  example.job.data.samples = 1'000;
  EXPECT_EQ(phase(planned(example), RamPhase::steady)[RamCategory::loader_workers], 300_MB * 32);
}

// A spawned worker imports everything anew, and unpickles a cache of encoded samples.
TEST(HostMemory, spawnedWorkersShareNothing) {
  Example example;
  example.words = {{"loader_worker_mib", "8"}, {"loader_worker_spawned_mib", "195"}};
  const auto workers = [&] {
    return phase(planned(example), RamPhase::steady)[RamCategory::loader_workers];
  };
  EXPECT_EQ(workers(), (8_MiB + 16_MiB) * 32);
  example.job.data.worker_start = facts::WorkerStart::spawn;
  EXPECT_EQ(workers(), (195_MiB + 16_MiB) * 32);
  example.job.data.cache = facts::DataCache::ram_encoded;
  example.job.data.samples = 1000;
  example.job.data.bytes_per_sample = 1e6;
  EXPECT_EQ(workers(), (195_MiB + 16_MiB) * 32 + 1_GB * 32);
}

// tf.data: no processes; W samples, the batch that they become and f batches behind it.
TEST(HostMemory, threadsHoldOneSampleEach) {
  Example example;
  example.words = {{"loaders", "threads"}};
  example.job.data.workers = 4;
  example.job.data.prefetch = 2;
  const facts::RamPlan plan = planned(example);
  const facts::RamBytes& steady = phase(plan, RamPhase::steady);
  EXPECT_EQ(steady[RamCategory::loader_workers], Bytes());
  EXPECT_EQ(steady[RamCategory::prefetch], (16_MiB * 3 + 1_MiB * 4) * 8);
}

// What is taken over from PyTorch is an assumption, and its allocator's rounding is not taken over.
TEST(HostMemory, rulesOfOtherSoftwareAreAssumed) {
  Example example;
  example.sample_bytes = Bytes(3 * 224 * 224 * 4);
  example.job.train.micro_batch = 256;  // 147 MiB
  const auto of_loading = [](const facts::RamPlan& plan) {
    const auto found = std::find_if(
        plan.rules.begin(), plan.rules.end(),
        [](const facts::RamRule& rule) { return rule.sentence.starts_with("model_load"); });
    return found == plan.rules.end() ? facts::RamRule{} : *found;
  };
  const facts::RamPlan own = planned(example);
  example.words = {{"host_rules", "pytorch"}};
  const facts::RamPlan borrowed = planned(example);
  EXPECT_EQ(of_loading(own).from, facts::Provenance::derived);
  EXPECT_EQ(of_loading(borrowed).from, facts::Provenance::assumed);
  EXPECT_THAT(of_loading(borrowed).source, HasSubstr("as PyTorch: "));
  EXPECT_EQ(phase(own, RamPhase::steady)[RamCategory::pinned], 256_MiB * 2 * 8);
  EXPECT_EQ(phase(borrowed, RamPhase::steady)[RamCategory::pinned], 147_MiB * 2 * 8);
}

// tf.data shuffles samples in its buffer, not a list of their numbers.
TEST(HostMemory, onlyPythonLoadersDrawAnOrder) {
  Example example;
  example.job.data.samples = 1'000'000;
  const Bytes drawn = phase(planned(example), RamPhase::steady)[RamCategory::framework];
  example.words = {{"loaders", "threads"}};
  const Bytes mapped = phase(planned(example), RamPhase::steady)[RamCategory::framework];
  EXPECT_EQ(drawn - mapped, Bytes(40) * 1'000'000 * 8);
}

// A machine without accelerators: tensors lie in the ranks, the process is the framework's words.
TEST(HostMemory, tensorsLieInHostMemoryWithoutACard) {
  Example example;
  example.job.machine.gpus = 2;
  example.job.data.kind = facts::DataKind::synthetic;
  example.job.checkpoint.load = facts::CheckpointLoad::per_rank;
  example.words = {
      {"host_process_mib", "300"}, {"host_libraries_mib", "200"}, {"host_steps_mib", "50"}};
  example.tensors.emplace();
  (*example.tensors)[facts::VramCategory::parameters] = 4_GB;
  (*example.tensors)[facts::VramCategory::activations] = 1_GB;
  (*example.tensors)[facts::VramCategory::temporaries] = 2_GB;
  (*example.tensors)[facts::VramCategory::runtime] = 9_GB;  // of a card
  const facts::RamPlan plan = planned(example);
  EXPECT_EQ(phase(plan, RamPhase::startup)[RamCategory::framework], 300_MiB * 2 + 200_MiB);
  EXPECT_EQ(phase(plan, RamPhase::load)[RamCategory::parameters], 4_GB * 2);
  EXPECT_EQ(phase(plan, RamPhase::load)[RamCategory::model_load], 4_GB * 2);
  const facts::RamBytes& steady = phase(plan, RamPhase::steady);
  EXPECT_EQ(steady[RamCategory::framework], 350_MiB * 2 + 200_MiB);
  EXPECT_EQ(steady[RamCategory::parameters], 4_GB * 2);
  EXPECT_EQ(steady[RamCategory::activations], 3_GB * 2);
  // torch.save writes tensors from where they are.
  EXPECT_EQ(phase(plan, RamPhase::checkpoint)[RamCategory::checkpoint_staging], Bytes());
}

// Plain loops and from_pretrained build the whole model on the CPU; ranks that split it do not.
TEST(HostMemory, theWholeModelPassesThroughEveryRankUnlessItIsSplit) {
  Example example;
  example.words = {{"loading", "whole"}};
  const auto loads = [&] {
    return phase(planned(example), RamPhase::load)[RamCategory::model_load];
  };
  EXPECT_EQ(loads(), 4_GB * 8);
  example.job.train.base_quantization = facts::BaseQuantization::nf4;
  EXPECT_EQ(loads(), 100_MB * 8);
  example.job.train.base_quantization = facts::BaseQuantization::none;
  example.job.parallel.sharding = facts::Sharding::fsdp;
  EXPECT_EQ(loads(), 100_MB * 8);
}

// One rank of two: its share of what is alike, all of what rank 0 alone holds, nothing of loaders.
TEST(HostMemory, theFullestProcess) {
  facts::Plan plan;
  plan.job.machine.gpus = 2;
  plan.job.data.workers = 3;
  plan.job.data.prefetch = 2;
  plan.job.checkpoint.load = facts::CheckpointLoad::rank0;
  facts::RamBytes& load = plan.ram.phases[static_cast<std::size_t>(RamPhase::load)];
  load[RamCategory::system] = 4_GB;
  load[RamCategory::framework] = 2_GB;
  load[RamCategory::model_load] = 10_GB;
  facts::RamBytes& steady = plan.ram.phases[static_cast<std::size_t>(RamPhase::steady)];
  steady[RamCategory::framework] = 2_GB;
  steady[RamCategory::loader_workers] = 50_GB;
  steady[RamCategory::prefetch] = 14_GB;
  const facts::ProcessMemory process = facts::fullest_process(plan);
  EXPECT_EQ(process.peak, 11_GB);
  EXPECT_EQ(process.peak_phase, RamPhase::load);
  EXPECT_EQ(process.phases[static_cast<std::size_t>(RamPhase::steady)].total(), 2_GB);
}

TEST(HostMemory, absentResolvedKeysAreNamed) {
  Example example;
  example.job.train.micro_batch.reset();
  ASSERT_FALSE(example.plan());
  EXPECT_EQ(example.plan().error().subject, "train.micro_batch");
  EXPECT_EQ(host_memory({}).error().code, ErrorCode::internal);
}

TEST(HostMemory, absurdAmountsOverflowLoudly) {
  Example example;
  example.job.data.prefetch = std::int64_t{1} << 60;
  EXPECT_THROW((void)example.plan(), QuantityOverflow);
}

TEST(HostMemory, anUnknownCapacityStaysUnknown) {
  Example example;
  example.machine.host.memory = {};
  EXPECT_FALSE(planned(example).capacity);
}

// --- properties over random jobs ---------------------------------------------------------------

Example random_example(std::mt19937_64& random) {
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  Example example;
  example.set_parameters(pick(1'000, 500'000'000'000), pick(0, 1) == 0 ? 2 : 4, pick(0, 1) == 0);
  example.states.largest_block_bytes = Bytes(pick(0, 10'000'000'000));
  example.sample_bytes = Bytes(pick(0, 200'000'000));
  facts::Job& job = example.job;
  job.machine.gpus = pick(1, 16);
  job.machine.nodes = pick(1, 64);
  job.train.micro_batch = pick(1, 64);
  job.train.gradient_accumulation = pick(1, 8);
  job.data.workers = pick(0, 16);
  job.data.prefetch = pick(1, 8);
  job.data.pin_memory = pick(0, 1) == 0;
  job.data.samples = pick(1, 100'000'000);
  job.data.bytes_per_sample = static_cast<double>(pick(1, 1'000'000));
  job.data.kind = static_cast<facts::DataKind>(pick(0, 8));
  job.data.cache = static_cast<facts::DataCache>(pick(0, 3));
  job.data.layout = static_cast<facts::DataLayout>(pick(0, 4));
  job.parallel.sharding = static_cast<facts::Sharding>(pick(0, 7));
  job.parallel.data = *job.machine.gpus * job.machine.nodes;
  job.offload.optimizer = pick(0, 1) == 0 ? facts::OffloadTo::none : facts::OffloadTo::cpu;
  job.offload.parameters = pick(0, 1) == 0 ? facts::OffloadTo::none : facts::OffloadTo::cpu;
  job.offload.pin_memory = pick(0, 1) == 0;
  job.checkpoint.method = static_cast<facts::CheckpointMethod>(pick(0, 3));
  job.checkpoint.load = static_cast<facts::CheckpointLoad>(pick(0, 3));
  return example;
}

TEST(HostMemoryProperties, phasesAreSumsNeverNegativeAndThePeakIsTheLargest) {
  std::mt19937_64 random(20'262);
  for (int i = 0; i < 2'000; ++i) {
    const facts::RamPlan plan = planned(random_example(random));
    Bytes largest;
    for (const facts::RamBytes& bytes : plan.phases) {
      for (const Bytes part : bytes.bytes) ASSERT_GE(part, Bytes());
      largest = std::max(largest, bytes.total());
    }
    ASSERT_EQ(plan.peak, largest);
    ASSERT_EQ(phase(plan, plan.peak_phase).total(), plan.peak);
    ASSERT_GE(plan.page_cache_wanted, Bytes());
    // What training holds stays while a checkpoint is written.
    ASSERT_GE(phase(plan, RamPhase::checkpoint).total(), phase(plan, RamPhase::steady).total());
    ASSERT_GE(phase(plan, RamPhase::load).total(), phase(plan, RamPhase::startup).total());
  }
}

TEST(HostMemoryProperties, moreWorkersPrefetchOrBatchNeverNeedLess) {
  std::mt19937_64 random(20'263);
  for (int i = 0; i < 1'000; ++i) {
    Example less = random_example(random);
    const Bytes before = planned(less).peak;
    Example workers = less, prefetch = less, batch = less;
    workers.job.data.workers = *workers.job.data.workers + 1;
    prefetch.job.data.prefetch += 1;
    batch.job.train.micro_batch = *batch.job.train.micro_batch + 1;
    ASSERT_GE(planned(workers).peak, before);
    ASSERT_GE(planned(prefetch).peak, before);
    ASSERT_GE(planned(batch).peak, before);
  }
}

// At a fixed sharding group, more ranks on a node hold more; checkpoints written in parts are not
// compared, because the parts get smaller.
TEST(HostMemoryProperties, moreRanksOnANodeNeverNeedLess) {
  std::mt19937_64 random(20'264);
  for (int i = 0; i < 1'000; ++i) {
    Example less = random_example(random);
    less.job.parallel.shard_group = 8;
    const facts::RamPlan before = planned(less);
    less.job.machine.gpus = *less.job.machine.gpus + 1;
    const facts::RamPlan after = planned(less);
    for (const RamPhase which : {RamPhase::startup, RamPhase::load, RamPhase::steady}) {
      ASSERT_GE(phase(after, which).total(), phase(before, which).total());
    }
  }
}

}  // namespace
}  // namespace steelyard::ram
