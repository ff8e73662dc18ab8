// Cross entropy over a vocabulary that tensor-parallel ranks share, and gradients that a pipeline
// sums whole before FSDP reduces them: worked by hand.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "step/player.h"
#include "step/primitives_fused.h"

namespace steelyard::step {
namespace {

using facts::Job;

Bytes most_live(const Program& program, const std::vector<Event>& events, std::size_t from) {
  Bytes sum, most;
  for (std::size_t i = 0; i < events.size(); ++i) {
    if (events[i].kind != EventKind::allocate && events[i].kind != EventKind::free) continue;
    const Bytes bytes = program.slots[static_cast<std::size_t>(events[i].index)].bytes;
    events[i].kind == EventKind::allocate ? sum += bytes : sum -= bytes;
    if (i >= from) most = std::max(most, sum);
  }
  return most;
}

// Four rows of 16 logits of this rank, fp32: 256 bytes. Forward, beside the logits: maximum 16,
// shifted 256, its exponential 256, sum 16; the exponential goes, the result 256 comes. Backward,
// beside the result: zeros 256, exponential 256, their sum 256; the exponential goes, the gradient
// 256 comes. Scalars: 4 arriving, 4 the loss itself.
TEST(SpreadLoss, RunsAsSingleOperators) {
  Program program;
  std::vector<Event> events;
  TapeOptions options;
  options.tensor = {2, 2};
  Tape tape(program, options);
  tape.record_to(events);
  Tensor logits = tape.allocate(64, DType::fp32, "logits");
  logits.requires_grad = true;
  Tensor loss = sharded_cross_entropy(tape, std::move(logits), 4);
  logits = Tensor();
  EXPECT_EQ(most_live(program, events, 0), Bytes(256 + 16 + 256 + 256 + 16));
  EXPECT_EQ(program.communication.size(), 3u);  // maximum, sum, the targets' likelihoods
  EXPECT_EQ(program.communication[0].payload, Bytes(16));
  const std::size_t from = events.size();
  Tensor gradient = tape.allocate(1, DType::fp32, "gradient");
  tape.leaf_gradient = [](std::int32_t, Tensor) {};
  Tensor root = loss;
  root.storage.reset();
  tape.run_backward(root, std::move(gradient));
  EXPECT_EQ(most_live(program, events, from), Bytes(256 + 3 * 256 + 4 + 4));
}

// The same with bf16 logits (128 bytes) in a compiled end. Forward only rows are made: maximum, sum
// and the targets' likelihoods, 16 bytes each. Backward, beside the rows, what is computed again
// comes from the logits: zeros 256, to write the targets into, and the gradient 128.
TEST(SpreadLoss, CompiledMakesRowsTheTargetsAndTheGradient) {
  Program program;
  std::vector<Event> events;
  TapeOptions options;
  options.tensor = {2, 2};
  options.compiled = true;
  Tape tape(program, options);
  tape.record_to(events);
  tape.begin_operation(OperationKind::other);
  Tensor logits = tape.allocate(64, DType::bf16, "logits");
  tape.end_operation();
  logits.requires_grad = true;
  Tensor loss = sharded_cross_entropy(tape, std::move(logits), 4);
  logits = Tensor();
  tape.end_operation();
  EXPECT_LE(most_live(program, events, 0), Bytes(128 + 3 * 16 + 4));
  const std::size_t from = events.size();
  Tensor gradient = tape.allocate(1, DType::fp32, "gradient");
  tape.leaf_gradient = [](std::int32_t, Tensor) {};
  Tensor root = loss;
  root.storage.reset();
  tape.run_backward(root, std::move(gradient));
  const Bytes most = most_live(program, events, from);
  EXPECT_GE(most, Bytes(128 + 256));
  EXPECT_LE(most, Bytes(128 + 3 * 16 + 256 + 128 + 8));
}

TEST(SpreadLoss, TorchtitanRunsItOverSeveralRanks) {
  const auto runs = [](std::int64_t ranks) {
    Job job = small_job(4);
    job.parallel.tensor = ranks;
    job.parallel.data = 4 / ranks;
    const Program program = program_for(graph_of(small_llama()), job, profile_of("torchtitan"));
    return std::any_of(program.names.begin(), program.names.end(), [](const std::string& name) {
      return name.find("loss_parallel") != std::string::npos;
    });
  };
  EXPECT_FALSE(runs(1));
  EXPECT_TRUE(runs(2));
}

// The whole gradients that ranks of FSDP hold until the last micro-batch is reduced.
std::vector<Bytes> whole_gradients(std::int64_t stages, std::int64_t micro_batches,
                                   const std::string& accumulation) {
  Job job = small_job(6);
  job.parallel.pipeline = stages;
  job.parallel.data = 6 / stages;
  job.parallel.sharding = facts::Sharding::fsdp;
  job.parallel.reduce_precision = facts::ShortPrecision::fp32;
  job.train.gradient_accumulation = micro_batches;
  facts::FrameworkProfile profile = profile_of("torchtitan");
  profile.operators["tensor_accumulation"] = accumulation;
  Result<std::vector<RankProgram>> made =
      programs_of(graph_of(small_llama()), job, std::move(profile));
  EXPECT_TRUE(made) << (made ? "" : to_text(made.error()));
  std::vector<Bytes> sizes;
  if (!made) return sizes;
  for (const RankProgram& rank : *made) {
    expect_balanced(rank.program, std::to_string(micro_batches) + " micro-batches");
    for (const Slot& slot : rank.program.slots) {
      const std::string& name = rank.program.names[static_cast<std::size_t>(slot.name)];
      if (name == "unsharded gradients") sizes.push_back(slot.bytes);
    }
  }
  return sizes;
}

bool holds(const std::vector<Bytes>& sizes, Bytes wanted) {
  return std::find(sizes.begin(), sizes.end(), wanted) != sizes.end();
}

// The small llama's layer: 43,008 elements of matrices and two norms of 64, fp32: the reduction's
// type. A stage holds them until its last micro-batch is reduced; without stages none are held,
// unless the loop turns the reduction off before the last (set_requires_gradient_sync).
TEST(WholeGradients, AreSummedUntilTheStagesLastMicroBatch) {
  const Bytes layer(4 * (43'008 + 128));
  EXPECT_TRUE(holds(whole_gradients(3, 4, "reduced"), layer));
  EXPECT_TRUE(whole_gradients(3, 1, "reduced").empty());
  EXPECT_TRUE(whole_gradients(1, 4, "reduced").empty());
  EXPECT_TRUE(holds(whole_gradients(1, 4, "whole"), layer));
  EXPECT_TRUE(whole_gradients(1, 1, "whole").empty());
  const auto word = [](std::string_view version) {
    return profile_of("transformers", facts::Object{{"accelerate", std::string(version)}})
        .operators["tensor_accumulation"];
  };
  EXPECT_EQ(word("1.10"), "");
  EXPECT_EQ(word("1.11"), "whole");
}

// Two ranks of tensor parallelism: the loss of all logits is twice that of a rank's part.
TEST(SpreadLoss, OfGatheredLogitsIsThatOfTheWholeVocabulary) {
  const auto largest = [](const std::string& word, const std::string& name) {
    Job job = small_job(4);
    job.parallel.tensor = 2;
    job.parallel.data = 2;
    facts::FrameworkProfile profile = profile_of("torchtitan");
    profile.operators["parallel_loss"] = word;
    const Program program = program_for(graph_of(small_llama()), job, profile);
    Bytes most;
    for (const Slot& slot : program.slots) {
      const std::string& called = program.names[static_cast<std::size_t>(slot.name)];
      if (called.find(name) != std::string::npos) most = std::max(most, slot.bytes);
    }
    return most;
  };
  EXPECT_EQ(largest("as_it_is", "all_gather_features"), Bytes(0));
  EXPECT_GT(largest("as_it_is", "log_softmax"), Bytes(0));
  EXPECT_EQ(largest("gathered", "log_softmax"), 2 * largest("as_it_is", "log_softmax"));
  EXPECT_GT(largest("gathered", "all_gather_features"), Bytes(0));
}

}  // namespace
}  // namespace steelyard::step
