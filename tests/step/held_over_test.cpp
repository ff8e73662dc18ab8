// What outlives its own backward pass: inputs that nodes of bitsandbytes' products hold, and frozen
// units that FSDP1 of old did not reshard.
#include <gtest/gtest.h>

#include <algorithm>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

constexpr std::int64_t kHidden = 64, kInner = 160;  // of small_llama

struct Alive {
  std::int64_t peak = 0, left = 0;  // at most, and when two steps are over
  std::int64_t gathered = 0, most_gathered = 0;
};

Alive bytes_of_two_steps(const facts::Job& job, std::string_view framework,
                         const facts::Value& versions) {
  const Program program =
      program_for(graph_of(small_llama()), job, profile_of(framework, versions));
  Alive bytes;
  const auto each = [&](const Event& event, std::int64_t) {
    const bool made = event.kind == EventKind::allocate || event.kind == EventKind::ensure;
    if (!made && event.kind != EventKind::free) return;
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    const std::int64_t size = made ? slot.bytes.value() : -slot.bytes.value();
    bytes.left += size;
    bytes.peak = std::max(bytes.peak, bytes.left);
    if (slot.stream != Stream::all_gather) return;
    bytes.gathered += size;
    bytes.most_gathered = std::max(bytes.most_gathered, bytes.gathered);
  };
  play(program, program.setup, each);
  play(program, program.step, each);
  play(program, program.step, each);
  return bytes;
}

facts::Job adapters(facts::Method method) {
  facts::Job job = small_job();
  job.train.method = method;
  job.train.precision = facts::Precision::bf16;
  job.train.lora.targets = {"q_proj", "v_proj"};
  return job;
}

// Two norms' results, attention's and the gated product of each layer, and what the head reads.
constexpr std::int64_t kInputs =
    kSamples * kTokens * 2 * (kLayers * (3 * kHidden + kInner) + kHidden);

TEST(HeldOver, InputsOfFourBitProductsLiveUntilTheNextLoss) {
  facts::Job job = adapters(facts::Method::qlora);
  job.train.base_quantization = facts::BaseQuantization::nf4;
  const auto more = [&] {
    const facts::Value old_code(facts::Object{{"bitsandbytes", "0.43.1"}});
    const facts::Value new_code(facts::Object{{"bitsandbytes", "0.43.2"}});
    const Alive before = bytes_of_two_steps(job, "litgpt", old_code);
    const Alive after = bytes_of_two_steps(job, "litgpt", new_code);
    EXPECT_GT(before.peak, after.peak);
    return before.left - after.left;
  };
  EXPECT_EQ(more(), kInputs);
  job.train.gradient_accumulation = 3;
  EXPECT_EQ(more(), kInputs);
  job.train.sequence_length_mean = static_cast<double>(kTokens) / 4.0;
  EXPECT_EQ(more(), kInputs / 4);
}

TEST(HeldOver, NothingOfProductsThatAreNotFourBit) {
  const facts::Job job = adapters(facts::Method::lora);
  const facts::Value old_code(facts::Object{{"bitsandbytes", "0.42"}});
  EXPECT_EQ(bytes_of_two_steps(job, "litgpt", old_code).left,
            bytes_of_two_steps(job, "litgpt", {}).left);
}

TEST(HeldOver, FrozenUnitsStayGatheredUntilPyTorch21) {
  const facts::Value before(facts::Object{{"torch", "2.0"}});
  const facts::Value after(facts::Object{{"torch", "2.1"}});
  const auto more = [&](facts::Job job) {
    job.machine.gpus = job.parallel.data = 4;
    job.parallel.sharding = facts::Sharding::fsdp1;
    const Alive old_way = bytes_of_two_steps(job, "pytorch", before);
    const Alive new_way = bytes_of_two_steps(job, "pytorch", after);
    EXPECT_EQ(old_way.gathered, 0);
    return old_way.most_gathered - new_way.most_gathered;
  };
  // q, k, v, o and the feed-forward's three matrices of a layer.
  const std::int64_t layer = 2 * (2 * kHidden * kHidden + 2 * kHidden * 32 + 3 * kHidden * kInner);
  EXPECT_GE(more(adapters(facts::Method::lora)), (kLayers - 1) * layer);
  facts::Job whole = small_job();
  whole.train.precision = facts::Precision::bf16;
  EXPECT_EQ(more(whole), 0);
}

}  // namespace
}  // namespace steelyard::step
