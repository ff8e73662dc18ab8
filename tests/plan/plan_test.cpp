// Whole plans: bytes by hand, verdicts that a job was made to get, advice that is planned anew, and
// sizes that no computer has.
#include "plan/plan.h"

#include <algorithm>
#include <string>
#include <vector>

#include "plan/planning.h"
#include "plan/resolve.h"

namespace steelyard::plan {
namespace {

using facts::BalanceVerdict;
using facts::Job;
using facts::OptimizerName;
using facts::Precision;
using facts::VramCategory;
using namespace literals;

bool says(const facts::Plan& plan, BalanceVerdict verdict) {
  const auto& verdicts = plan.balance.verdicts;
  return std::find(verdicts.begin(), verdicts.end(), verdict) != verdicts.end();
}

Job gpt2_job() {
  Job job = job_on_cards("rtx-3090", 1);
  job.model.config = std::string("gpt2");
  job.train.sequence_length = 128;
  job.machine.ram_gib = 64;
  return job;
}

// GPT-2: 50257 x 768 + 1024 x 768 + 12 x 7,087,872 + 2 x 768 = 124,439,808 parameters, the head
// tied. bf16: 2 bytes each, 248,879,616 bytes of parameters. Blocks are multiples of 512 bytes, and
// every weight of GPT-2 is one but the position-wise biases, which are too: 768 x 2 = 3 x 512, 2304
// x 2 = 9 x 512, 3072 x 2 = 12 x 512; 50257 x 768 x 2 = 150,771 x 512. SGD keeps no state. At the
// end of backward every gradient exists: as many bytes again.
TEST(Plan, Gpt2InBf16WithSgdByHand) {
  Job job = gpt2_job();
  job.train.precision = Precision::bf16;
  job.train.optimizer.name = OptimizerName::sgd;
  const facts::Plan plan = planned(job);
  constexpr Bytes kParameters = 248'879'616_B;
  EXPECT_EQ(plan.model.parameters, Parameters(124'439'808));
  // Between steps: parameters, ids and labels (2 x 128 x 8 = 2048 bytes), and the workspaces of the
  // matrix products, which stay.
  const facts::DeviceMemoryConstants device =
      value_of(own_catalog().constants("pytorch")).device_memory.on(plan.machine.gpu.architecture);
  const Bytes workspaces = device.gemm_workspace * device.gemm_handles;
  // Blocks of 1 to 10 MiB are cut from segments of 20 MiB, and the last one of a segment takes a
  // rest of less than 1 MiB along. 12 layers of 13.5 MiB: 10 segments at the most.
  constexpr Bytes kTails = 10_MiB;
  const Bytes held = plan.vram.fullest.steady_allocated - workspaces - kParameters - 2048_B;
  EXPECT_GE(held, 0_B);
  EXPECT_LT(held, kTails);
  const Bytes at_peak = plan.vram.fullest.by_category[VramCategory::parameters];
  EXPECT_GE(at_peak, kParameters);
  EXPECT_LT(at_peak - kParameters, kTails);
  const Bytes gradients = plan.vram.fullest.by_category[VramCategory::gradients];
  EXPECT_LT(gradients, kParameters + kTails);
  EXPECT_EQ(plan.vram.fullest.by_category[VramCategory::optimizer], 0_B);
}

// The same in fp32, where the step of AdamW is the fullest moment of a short sequence: parameters,
// gradients, two states and foreach's copy are 5 x 497,759,232 bytes.
TEST(Plan, Gpt2InFp32WithAdamWByHand) {
  Job job = gpt2_job();
  job.train.precision = Precision::fp32;
  const facts::Plan plan = planned(job);
  EXPECT_EQ(plan.vram.fullest.peak_at.phase, "optimizer");
  constexpr Bytes kCopy = 497'759'232_B;
  const facts::VramBytes& held = plan.vram.fullest.by_category;
  // 12 layers of 27 MiB in segments of 20 MiB, each with a tail below 1 MiB.
  constexpr Bytes kTails = 20_MiB;
  const auto expect_copies = [&](VramCategory category, std::int64_t copies) {
    EXPECT_GE(held[category], copies * kCopy) << facts::name_of(category);
    EXPECT_LT(held[category], copies * (kCopy + kTails)) << facts::name_of(category);
  };
  expect_copies(VramCategory::parameters, 1);
  expect_copies(VramCategory::gradients, 1);
  expect_copies(VramCategory::optimizer, 2);
  expect_copies(VramCategory::temporaries, 1);
  // `outputs.logits` and `loss` stay until the loop binds them again: 128 x 50257 x 4 and 512.
  EXPECT_GE(held[VramCategory::activations], 25'732'096_B);
  EXPECT_LT(held[VramCategory::activations], 25'732'096_B + 1_MiB);
}

TEST(Plan, ForwardAndBackwardFlopsByHand) {
  Job job = gpt2_job();
  const facts::Plan plan = planned(job);
  // Per token 2 x (12 x 12 x 768^2 + 50257 x 768), and causal attention 12 x 4 x 768 x 128 / 2.
  const double matrices = 2.0 * (12 * 12 * 768.0 * 768.0 + 50257.0 * 768.0);
  const double attention = 12 * 4 * 768.0 * 128.0 / 2.0;
  EXPECT_DOUBLE_EQ(plan.model.forward_flops_per_sample.value(), 128.0 * (matrices + attention));
  EXPECT_DOUBLE_EQ(plan.model.backward_flops_per_sample.value(),
                   2.0 * 128.0 * (matrices + attention));
  EXPECT_DOUBLE_EQ(plan.model.attention_forward_flops_per_sample.value_or(Flops()).value(),
                   128.0 * attention);
}

TEST(Verdicts, VramShort) {
  Job job = job_on_cards("rtx-3090", 1);
  job.model.config = std::string("llama-3.1-8b");  // 16 bytes x 8.03e9: 120 GiB on 24 GiB
  job.train.sequence_length = 512;
  const facts::Plan plan = planned(job);
  EXPECT_EQ(plan.fits_vram, false);
  EXPECT_FALSE(plan.fits());
  EXPECT_TRUE(says(plan, BalanceVerdict::vram_short));
  EXPECT_GT(plan.vram.fullest.peak_allocated, 112_GiB);
}

TEST(Verdicts, RamShort) {
  Job job = gpt2_job();
  job.machine.ram_gib = 2;  // the system, a process and its CUDA side need more
  const facts::Plan plan = planned(job);
  EXPECT_EQ(plan.fits_ram, false);
  EXPECT_EQ(plan.fits_vram, true);
  EXPECT_FALSE(plan.fits());
  EXPECT_TRUE(says(plan, BalanceVerdict::ram_short));
  EXPECT_FALSE(says(plan, BalanceVerdict::ram_idle));
}

TEST(Verdicts, Idle) {
  Job job = gpt2_job();
  job.machine.ram_gib = 512;
  const facts::Plan plan = planned(job);
  EXPECT_TRUE(plan.fits());
  EXPECT_TRUE(says(plan, BalanceVerdict::vram_idle));
  EXPECT_TRUE(says(plan, BalanceVerdict::ram_idle));
  EXPECT_FALSE(says(plan, BalanceVerdict::balanced));
}

TEST(Verdicts, Balanced) {
  Job job = gpt2_job();
  job.train.sequence_length = 1024;
  job.train.micro_batch = 12;
  job.machine.ram_gib = 16;
  const facts::Plan plan = planned(job);
  EXPECT_TRUE(plan.fits());
  EXPECT_TRUE(says(plan, BalanceVerdict::balanced)) << to_text(Error{
      .subject = plan.balance.sentences.empty() ? "no verdict" : plan.balance.sentences.front()});
}

TEST(Verdicts, StarvedByTheCpu) {
  Job job = gpt2_job();
  job.machine.cores = 4;
  job.data.workers = 1;
  job.data.kind = facts::DataKind::jpeg;
  job.data.bytes_per_sample = 110'000;
  job.data.decode_seconds = 1.0;
  job.train.micro_batch = 8;
  const facts::Plan plan = planned(job);
  EXPECT_TRUE(says(plan, BalanceVerdict::starved_by_cpu));
  EXPECT_EQ(plan.feed.limited_by, "decode");
  EXPECT_GT(plan.pace.breakdown.data_stall, Seconds(0.0));
}

TEST(Verdicts, OneSentenceEach) {
  for (const double ram : {2.0, 16.0, 512.0}) {
    Job job = gpt2_job();
    job.machine.ram_gib = ram;
    const facts::BalancePlan balance = planned(job).balance;
    EXPECT_FALSE(balance.verdicts.empty());
    EXPECT_EQ(balance.sentences.size(), balance.verdicts.size());
  }
}

TEST(Verdicts, AnUnknownCapacityIsSaidAndNotJudged) {
  Request request = request_for(gpt2_job());
  request.machine.gpu.memory = {};
  request.machine.host.memory = {};
  const facts::Plan plan = value_of(steelyard::plan::plan(request));
  EXPECT_EQ(plan.fits_vram, std::nullopt);
  EXPECT_EQ(plan.fits_ram, std::nullopt);
  EXPECT_TRUE(plan.balance.verdicts.empty());
  ASSERT_GE(plan.warnings.size(), 2u);
  EXPECT_NE(plan.warnings[0].find("machine.vram_gib"), std::string::npos);
  EXPECT_NE(plan.warnings[1].find("machine.ram_gib"), std::string::npos);
}

// An engine without offload names the key that was set, not another one.
TEST(Plan, RefusesOffloadByTheKeyThatAsksForIt) {
  Job job = gpt2_job();
  job.framework = "megatron";
  job.offload.parameters = facts::OffloadTo::cpu;
  const auto refused = steelyard::plan::plan(request_for(job));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().subject, "offload.parameters");
  EXPECT_EQ(refused.error().found, "cpu");
}

// What the advice says, set in the job and planned as a job of its own.
void apply(Job& job, const std::string& key, const std::string& value) {
  if (key == "parallel.sharding") {
    job.parallel.sharding = *facts::from_name<facts::Sharding>(value);
    job.parallel.shard_group.reset();
  } else if (key == "train.recompute") {
    job.train.recompute = {};
    job.train.recompute.mode = *facts::from_name<facts::RecomputeMode>(value);
  } else if (key == "train.optimizer.fused") {
    job.train.optimizer.fused = value == "true";
    job.train.optimizer.foreach.reset();
  } else if (key == "train.optimizer") {
    job.train.optimizer = {};
    job.train.optimizer.name = *facts::from_name<OptimizerName>(value);
  } else if (key == "train.micro_batch") {
    job.train.micro_batch = std::stoll(value);
  } else if (key == "train.global_batch") {
    job.train.global_batch = std::stoll(value);
    job.train.gradient_accumulation.reset();
  } else if (key == "train.attention") {
    job.train.attention = *facts::from_name<facts::Attention>(value);
  } else if (key == "data.workers") {
    job.data.workers = std::stoll(value);
  } else if (key == "train.precision") {
    job.train.precision = *facts::from_name<Precision>(value);
  } else if (key == "offload.optimizer") {
    job.offload.optimizer = *facts::from_name<facts::OffloadTo>(value);
  } else if (key == "offload.parameters") {
    job.offload.parameters = *facts::from_name<facts::OffloadTo>(value);
  } else if (key == "checkpoint.load") {
    job.checkpoint.load = *facts::from_name<facts::CheckpointLoad>(value);
  } else if (key == "checkpoint.method") {
    job.checkpoint.method = *facts::from_name<facts::CheckpointMethod>(value);
  } else {
    ADD_FAILURE() << "advice sets a key that this test does not know: " << key;
  }
}

std::vector<Job> jobs_with_advice() {
  std::vector<Job> jobs;
  Job large = job_on("dgx-h100", 8);  // 16 bytes x 8e9 on each card
  large.model.config = std::string("llama-3.1-8b");
  large.train.sequence_length = 4096;
  large.train.micro_batch = 2;
  jobs.push_back(large);
  Job long_rows = gpt2_job();  // activations too large
  long_rows.train.sequence_length = 1024;
  long_rows.train.micro_batch = 64;
  long_rows.train.attention = facts::Attention::math;
  jobs.push_back(long_rows);
  Job slow = gpt2_job();  // fits, and could be faster
  slow.train.recompute.mode = facts::RecomputeMode::full;
  slow.train.gradient_accumulation = 4;
  jobs.push_back(slow);
  return jobs;
}

TEST(Advice, EffectsAreThoseOfPlanningTheChange) {
  for (const Job& job : jobs_with_advice()) {
    Request request = request_for(job);
    request.advice = true;
    const facts::Plan plan = value_of(steelyard::plan::plan(request));
    EXPECT_FALSE(plan.balance.advice.empty());
    for (const facts::Advice& advice : plan.balance.advice) {
      SCOPED_TRACE(advice.sentence);
      ASSERT_FALSE(advice.set.empty());
      Job changed = job;
      for (const auto& [key, value] : advice.set) apply(changed, key, value);
      const facts::Plan after = planned(changed);
      EXPECT_EQ(advice.vram_peak, after.vram.fullest.peak_device_used);
      EXPECT_EQ(advice.ram_peak, after.ram.peak);
      EXPECT_EQ(advice.fits, after.fits());
      EXPECT_EQ(advice.step, after.pace.step);
    }
  }
}

TEST(Advice, MakesAJobFitWhereThatIsPossible) {
  Request request = request_for(jobs_with_advice().front());
  request.advice = true;
  const facts::Plan plan = value_of(steelyard::plan::plan(request));
  ASSERT_FALSE(plan.fits());
  ASSERT_FALSE(plan.balance.advice.empty());
  EXPECT_TRUE(plan.balance.advice.front().fits);  // what fits stands first
  EXPECT_LE(plan.balance.advice.size(), 5u);
}

// Each rank reads the whole state by itself; mapping the file instead makes it fit.
TEST(Advice, SavesHostMemoryWhereThatIsShort) {
  Job job = gpt2_job();
  job.model.config = std::string("gpt2-large");
  job.checkpoint.load = facts::CheckpointLoad::per_rank;
  job.machine.ram_gib = 512;
  Job mapped = job;
  mapped.checkpoint.load = facts::CheckpointLoad::mmap;
  mapped.checkpoint.method = facts::CheckpointMethod::sharded_sync;
  job.checkpoint.method = facts::CheckpointMethod::sharded_sync;
  const Bytes needed = planned(job).ram.peak;
  const Bytes less = planned(mapped).ram.peak;
  ASSERT_LT(less, needed);
  job.machine.ram_gib = (needed.real() + less.real()) / 2 / (1_GiB).real();  // between the two
  Request request = request_for(job);
  request.advice = true;
  const facts::Plan plan = value_of(steelyard::plan::plan(request));
  EXPECT_EQ(plan.fits_ram, false);
  const auto helps = [](const facts::Advice& advice) {
    return advice.fits && advice.set.front().first == "checkpoint.load";
  };
  EXPECT_TRUE(std::any_of(plan.balance.advice.begin(), plan.balance.advice.end(), helps));
}

// An absurd size is an answer for the person, not a crash.
Error refusal_of(const Job& job) {
  Request request = request_for(job);
  request.advice = true;
  const auto plan = steelyard::plan::plan(request);
  EXPECT_FALSE(plan);
  return plan ? Error() : plan.error();
}

Job tiny_job() {
  Job job = job_on_cards("rtx-3090", 1);
  job.model.config = config_of({});
  job.train.sequence_length = 128;
  return job;
}

TEST(Overflow, AmountsBeyond64BitsAreTooLarge) {
  Job many_nodes = tiny_job();
  many_nodes.machine.nodes = std::int64_t{1} << 62;
  many_nodes.machine.gpus = 8;
  EXPECT_EQ(refusal_of(many_nodes).code, ErrorCode::too_large);
  Job many_passes = tiny_job();
  many_passes.train.gradient_accumulation = std::int64_t{1} << 62;
  many_passes.train.micro_batch = 8;
  EXPECT_EQ(refusal_of(many_passes).code, ErrorCode::too_large);
  Job scores = tiny_job();  // 10^6 samples x 4 heads x 10^12 scores x 4 bytes: 1.6 x 10^19
  scores.train.attention = facts::Attention::math;
  scores.train.micro_batch = 1'000'000;
  scores.train.sequence_length = 1'000'000;
  EXPECT_EQ(refusal_of(scores).code, ErrorCode::too_large);
}

TEST(Overflow, ASizeBeyondItsLimitNamesTheLimit) {
  Job job = tiny_job();
  job.train.micro_batch = std::int64_t{1} << 62;
  const Error error = refusal_of(job);
  EXPECT_TRUE(error.code == ErrorCode::bad_input || error.code == ErrorCode::too_large);
  EXPECT_NE(error.found.find("4611686018427387904"), std::string::npos);
  EXPECT_NE(error.accepted.find("1000000"), std::string::npos);
}

// Sizes that are legal and absurd are planned, and do not fit.
TEST(Overflow, LargeButCountableIsPlanned) {
  Job job = tiny_job();
  job.train.micro_batch = 1'000'000;
  const facts::Plan plan = planned(job);
  EXPECT_EQ(plan.fits_vram, false);
  EXPECT_GT(plan.vram.fullest.peak_allocated, 1_TiB);
}

}  // namespace
}  // namespace steelyard::plan
