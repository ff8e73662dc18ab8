// What earlier versions of the software keep, as variations of the profiles say it: the fullest
// moment of a small BERT, against the same job on the software that the profile describes.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

constexpr std::int64_t kHeads = 4, kHidden = 64, kInner = 256;
constexpr std::int64_t kScoreBytes = kSamples * kHeads * kTokens * kTokens * 4;  // [B,h,S,S] fp32
constexpr std::int64_t kInnerBytes = kSamples * kTokens * kInner * 4;            // [B,S,4H] fp32
constexpr std::int64_t kHeadBytes = kSamples * kTokens * kHidden * 4;            // [B,S,H] fp32

facts::ModelSource small_bert() {
  return {"small bert",
          facts::Object{{"model_type", "bert"},
                        {"hidden_size", kHidden},
                        {"num_attention_heads", kHeads},
                        {"intermediate_size", kInner},
                        {"num_hidden_layers", kLayers},
                        {"max_position_embeddings", kTokens},
                        {"vocab_size", 500}},
          ""};
}

struct Forward {
  std::int64_t peak = 0, left = 0;  // bytes while it runs, and when backward begins
};

Forward forward_of(const facts::Value& versions) {
  facts::Job job = small_job();
  job.train.precision = facts::Precision::fp32;
  job.train.attention = facts::Attention::math;
  const auto catalog =
      catalog::Catalog::at(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog");
  const auto constants = catalog.constants("pytorch", versions);
  EXPECT_TRUE(constants) << (constants ? "" : to_text(constants.error()));
  if (!constants) return {};
  const Program program = program_for(graph_of(small_bert()), job, constants->framework);
  Forward forward;
  std::int64_t& alive = forward.left;
  const auto each = [&](const Event& event, std::int64_t) {
    const bool made = event.kind == EventKind::allocate || event.kind == EventKind::adopt;
    if (!made && event.kind != EventKind::free) return;
    const std::int64_t bytes = program.slots[static_cast<std::size_t>(event.index)].bytes.value();
    if (event.kind != EventKind::adopt) alive += made ? bytes : -bytes;
    forward.peak = std::max(forward.peak, alive);
  };
  play(program, program.setup, each);
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind == PhaseKind::backward) return forward;
      play(program, {Pass{1, {phase}}}, each);
    }
  }
  return forward;
}

std::int64_t more_than_today(const facts::Value& versions) {
  return forward_of(versions).left - forward_of({}).left;
}

TEST(OldSoftware, Torch112KeepsNoMoreButGradientsStay) {
  const std::int64_t gradients = more_than_today(facts::Object{{"torch", "1.12"}});
  EXPECT_GT(gradients, 0);
  EXPECT_EQ(more_than_today(facts::Object{{"torch", "1.13.1"}}), gradients);
  EXPECT_EQ(more_than_today(facts::Object{{"torch", "2.0"}}), 0);
}

TEST(OldSoftware, UntilTorch110SoftmaxKeepsItsInput) {
  const std::int64_t gradients = more_than_today(facts::Object{{"torch", "1.12"}});
  // The scores before the softmax of every layer, and what the loss's log_softmax reads.
  const std::int64_t scores = more_than_today(facts::Object{{"torch", "1.10"}}) - gradients;
  EXPECT_GE(scores, kLayers * kScoreBytes);
  EXPECT_LT(scores, (kLayers + 1) * kScoreBytes + kSamples * kTokens * 500 * 4);
}

TEST(OldSoftware, AScriptedGeluKeepsThreeInstead) {
  const facts::Value new_code = facts::Object{{"torch", "1.9"}};
  const facts::Value old_code =
      facts::Object{{"torch", "1.9"}, {"deep-learning-examples", "2020.01"}};
  // x / 1.41421, x * 0.5 and 1 + erf instead of x: of every layer, and of the head's own layer.
  EXPECT_EQ(forward_of(old_code).left - forward_of(new_code).left,
            2 * (kLayers * kInnerBytes + kHeadBytes));
}

TEST(OldSoftware, UntilTorch16ItKeepsThoseOfTheStepBeforeToo) {
  const facts::Value later = facts::Object{{"torch", "1.7"}, {"deep-learning-examples", "2020.01"}};
  const facts::Value before =
      facts::Object{{"torch", "1.6"}, {"deep-learning-examples", "2020.01"}};
  EXPECT_EQ(forward_of(before).left, forward_of(later).left);
  EXPECT_EQ(forward_of(before).peak - forward_of(later).peak,
            3 * (kLayers * kInnerBytes + kHeadBytes));
}

TEST(OldSoftware, UntilTorch20Fsdp1HasNoRateLimiter) {
  const auto units = [](const char* torch) {
    facts::Job job = small_job(4);
    job.parallel.sharding = facts::Sharding::fsdp1;
    return program_for(graph_of(small_llama()), job,
                       profile_of("pytorch", facts::Object{{"torch", torch}}))
        .units_in_flight;
  };
  EXPECT_EQ(units("2.0.1"), 0);
  EXPECT_EQ(units("2.1"), 2);
}

// torch.nn.MultiheadAttention: the memory-efficient kernel's result is copied token by token in
// every version, the flash kernel's until FlashAttention-2, whose result lies as its queries do.
// Slots of units gathered beside the one whose backward pass runs.
std::int64_t gathered_ahead(const facts::Value& versions) {
  facts::Job job = small_job(2);
  job.parallel.sharding = facts::Sharding::fsdp1;
  const Program program =
      program_for(graph_of(small_llama()), job, profile_of("pytorch", versions));
  std::int64_t count = 0;
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind != PhaseKind::backward) continue;
      for (const Body& body : phase.bodies) {
        count += std::ranges::count_if(body.events, [&](const Event& event) {
          if (event.kind != EventKind::allocate) return false;
          const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
          return program.names[static_cast<std::size_t>(slot.name)] == "all-gather buffer";
        });
      }
    }
  }
  return count;
}

TEST(OldSoftware, UntilTorch113Fsdp1GathersNothingAheadInBackward) {
  EXPECT_GT(gathered_ahead({}), 0);
  EXPECT_GT(gathered_ahead(facts::Object{{"torch", "2.0"}}), 0);
  EXPECT_EQ(gathered_ahead(facts::Object{{"torch", "1.13"}}), 0);
  EXPECT_EQ(gathered_ahead(facts::Object{{"fairscale", "0.3"}}), 0);
}

TEST(OldSoftware, UntilTorch22AFlashResultIsTurnedToo) {
  const auto kept = [](const char* torch, facts::Precision precision) {
    facts::Job job = small_job();
    job.train.precision = precision;
    const auto catalog =
        catalog::Catalog::at(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog");
    const auto constants = catalog.constants("pytorch", facts::Object{{"torch", torch}});
    EXPECT_TRUE(constants);
    const facts::ModelSource vit{"small vit",
                                 facts::Object{{"model_type", "timm_vision_transformer"},
                                               {"img_size", 32},
                                               {"embed_dim", 64},
                                               {"depth", kLayers},
                                               {"num_heads", 4},
                                               {"batch_second", true}},
                                 ""};
    const Program program = program_for(graph_of(vit), job, constants->framework);
    return std::ranges::count_if(program.slots, [&](const Slot& slot) {
      return program.names[static_cast<std::size_t>(slot.name)].ends_with("clone");
    });
  };
  const auto flash = kept("2.2", facts::Precision::bf16);
  EXPECT_GT(kept("2.1", facts::Precision::bf16), flash);
  EXPECT_EQ(kept("2.2", facts::Precision::fp32), kept("2.1", facts::Precision::fp32));
  EXPECT_GT(kept("2.2", facts::Precision::fp32), flash);
}

struct Stepped {
  std::int64_t kept = 0, left = 0, peak = 0;  // moves, bytes more than before it, bytes at most
};

// The optimizer's phase of BERT.
Stepped stepped_with(const facts::Value& versions, facts::Precision precision,
                     facts::OptimizerName name = facts::OptimizerName::lamb) {
  facts::Job job = small_job();
  job.train.precision = precision;
  job.train.optimizer.name = name;
  job.train.optimizer.master_weights = precision != facts::Precision::fp32;
  const auto catalog =
      catalog::Catalog::at(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog");
  const auto constants = catalog.constants("pytorch", versions);
  EXPECT_TRUE(constants) << (constants ? "" : to_text(constants.error()));
  if (!constants) return {};
  const Program program = program_for(graph_of(small_bert()), job, constants->framework);
  Stepped stepped;
  const auto each = [&](const Event& event, std::int64_t) {
    if (event.kind != EventKind::allocate && event.kind != EventKind::free) return;
    const std::int64_t bytes = program.slots[static_cast<std::size_t>(event.index)].bytes.value();
    stepped.left += event.kind == EventKind::allocate ? bytes : -bytes;
    stepped.peak = std::max(stepped.peak, stepped.left);
  };
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind != PhaseKind::optimizer) continue;
      play(program, {Pass{1, {phase}}}, each);
      for (const Body& body : phase.bodies) {
        for (const Event& event : body.events) {
          if (event.kind == EventKind::keep_gradient) ++stepped.kept;
        }
      }
    }
  }
  return stepped;
}

// torch/optim/adam.py of 2.0: the root of the second moment and the denominator are both held.
TEST(OldSoftware, UntilTorch21ForeachAdamHoldsTheDenominatorToo) {
  for (const facts::OptimizerName name :
       {facts::OptimizerName::adam, facts::OptimizerName::adamw}) {
    const auto peak = [&](const char* torch) {
      return stepped_with(facts::Object{{"torch", torch}}, facts::Precision::fp32, name).peak;
    };
    EXPECT_GT(peak("2.1"), 0);
    EXPECT_EQ(peak("2.0"), 2 * peak("2.1"));
  }
}

// JITLamb: parameter and averages are new tensors in each step, with the update beside them.
TEST(OldSoftware, AFunctionalLambReplacesWhatItSteps) {
  const facts::Value versions = facts::Object{{"torch", "1.4"}, {"transformer-xl", "2020.02"}};
  const Stepped wide = stepped_with(versions, facts::Precision::fp32);
  EXPECT_EQ(wide.left, 0);
  EXPECT_EQ(wide.kept % 3, 0);
  EXPECT_GT(wide.kept, 0);
  const std::int64_t largest = std::int64_t{500} * kHidden * 4;  // the embedding's bytes in fp32
  EXPECT_EQ(wide.peak, 4 * largest);
  // In fp16 the copies in fp32 are stepped, and their gradients are all there meanwhile.
  const Stepped narrow = stepped_with(versions, facts::Precision::fp16);
  EXPECT_EQ(narrow.left, 0);
  EXPECT_EQ(narrow.kept, wide.kept);
  EXPECT_GT(narrow.peak, wide.peak + 2 * largest);
  EXPECT_EQ(stepped_with(facts::Object{{"torch", "1.4"}}, facts::Precision::fp32).kept, 0);
}

}  // namespace
}  // namespace steelyard::step
