// Companions that run in front of each micro-batch: their arithmetic by hand, what they need on the
// card, and that nothing of them stays.
#include "step/companion_passes.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "step/player.h"

namespace steelyard::step {
namespace {

using facts::CompanionHeld;

model::Graph built(const facts::Value& config, const model::SampleShape& shape) {
  const auto graph = model::build({"companion", config, ""}, shape);
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph.value_or(model::Graph());
}

facts::Value small_vae() {
  return facts::Object{{"_class_name", "AutoencoderKL"},
                       {"block_out_channels", facts::Array{32, 64}},
                       {"layers_per_block", 1}};
}

// 2 pictures of 16 x 16. At full size: 3 -> 32, a block of two windows of 32; at half the size the
// step down, 32 -> 64 -> 64 with a shortcut of one pixel, two blocks of 64 with an attention of 64
// pixels and four matrices between them, 64 -> 8, and 8 -> 8 of one pixel.
constexpr double kFull = 2.0 * 16 * 16, kHalf = 2.0 * 8 * 8;
constexpr double kProducts = kFull * 9 * (3 * 32 + 2 * 32 * 32) +
                             kHalf * 9 * (32 * 32 + 32 * 64 + 64 * 64) + kHalf * 32 * 64 +
                             kHalf * 9 * 4 * 64 * 64 + kHalf * 4 * 64 * 64 + kHalf * 9 * 64 * 8;
constexpr double kScores = 2.0 * 2 * 64 * 64 * 64;  // two products of 64 x 64 pairs, 2 pictures

TEST(CompanionPasses, EncodersMultiplyWhatTheirLayersDo) {
  const model::Graph vae = built(small_vae(), {.batch = 2, .height = 16, .width = 16});
  EXPECT_DOUBLE_EQ(model::forward_flops(vae).value(), 2.0 * (kProducts + kScores));
  EXPECT_EQ(model::forward_flops(built(small_vae(), {.batch = 2})).value(), 0.0);
}

facts::Value small_t5() {
  return facts::Object{{"architectures", facts::Array{"T5EncoderModel"}},
                       {"model_type", "t5"},
                       {"d_model", 16},
                       {"d_ff", 40},
                       {"num_layers", 3},
                       {"num_heads", 2},
                       {"d_kv", 8},
                       {"vocab_size", 99}};
}

// 3 layers: four matrices of 16 x 16 and two of 16 x 40 for each of 2 x 10 tokens, and scores.
TEST(CompanionPasses, TextEncodersReadAsManyTokensAsTheDenoiser) {
  const model::Graph text = built(small_t5(), {.batch = 2, .sequence = 10});
  const double matrices = 2.0 * 20 * (4 * 16 * 16 + 2 * 16 * 40);
  const double scores = 2.0 * 2 * (2 * 10 * 10 * 16);
  EXPECT_DOUBLE_EQ(model::forward_flops(text).value(), 3.0 * (matrices + scores));
}

Program with_vae(CompanionHeld held, std::int64_t micro_batches) {
  facts::Job job = small_job();
  job.train.gradient_accumulation = micro_batches;
  const model::Graph vae = built(small_vae(), {.batch = kSamples, .height = 16, .width = 16});
  auto programs =
      programs_of(graph_of(small_llama()), job, profile_of("pytorch"), {}, {{vae, held, false}});
  EXPECT_TRUE(programs) << (programs ? "" : to_text(programs.error()));
  return programs ? std::move(programs->front().program) : Program();
}

// Front of the micro-batch, before the model's forward pass.
TEST(CompanionPasses, RunInFrontOfEachMicroBatch) {
  const Program program = with_vae(CompanionHeld::always, 3);
  std::vector<PhaseKind> kinds;
  for (const Pass& pass : program.step) {
    for (std::int64_t i = 0; i < pass.repeat; ++i) {
      for_each_phase(pass, [&](const Phase& phase) { kinds.push_back(phase.kind); });
    }
  }
  EXPECT_EQ(std::count(kinds.begin(), kinds.end(), PhaseKind::scoring), 3);
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    if (kinds[i] == PhaseKind::scoring) {
      EXPECT_EQ(kinds.at(i + 1), PhaseKind::forward);
    }
  }
  expect_balanced(program, "an autoencoder in front");
}

TEST(CompanionPasses, ThoseHeldForLoadingDoNotRun) {
  const Program program = with_vae(CompanionHeld::load, 1);
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) EXPECT_NE(phase.kind, PhaseKind::scoring);
  }
}

// Its widest product: a window of 32 channels at full size, four tensors of 2 x 32 x 16 x 16, bf16.
TEST(CompanionPasses, NeedTheTensorsOfOneProduct) {
  const Program program = with_vae(CompanionHeld::always, 1);
  const auto peak_of = [&](const Phase& phase) {
    Bytes now, most;
    for (const Body& body : phase.bodies) {
      for (const Event& event : body.events) {
        const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
        if (event.kind == EventKind::allocate) now += slot.bytes;
        if (event.kind == EventKind::free) now -= slot.bytes;
        if (event.kind == EventKind::allocate) most = std::max(most, now);
      }
    }
    EXPECT_EQ(now, Bytes());
    return most;
  };
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind != PhaseKind::scoring) continue;
      EXPECT_EQ(peak_of(phase), Bytes(4 * 2 * 32 * 16 * 16 * 2));
    }
  }
}

// On the CPU: the same arithmetic by the host's processors, no tensor on the card, and the copy of
// what comes out, here of 100 numbers in bf16. What a product needs lies in host memory.
TEST(CompanionPasses, OnTheCpuAreTimeAndACopy) {
  const model::Graph vae = built(small_vae(), {.batch = kSamples, .height = 16, .width = 16});
  const Companion companion{.graph = vae, .held = CompanionHeld::cpu, .puts_out = 100};
  auto programs =
      programs_of(graph_of(small_llama()), small_job(), profile_of("pytorch"), {}, {companion});
  ASSERT_TRUE(programs) << to_text(programs.error());
  const Program& program = programs->front().program;
  Flops multiplied;
  Bytes copied;
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind != PhaseKind::scoring) continue;
      for (const Body& body : phase.bodies) {
        for (const Event& event : body.events) {
          ASSERT_EQ(event.kind, EventKind::work);
          const Work& work = program.work[static_cast<std::size_t>(event.index)];
          if (work.kind == WorkKind::fetch) copied += work.traffic;
          if (work.kind == WorkKind::host) multiplied += work.flops * double(body.repeat);
        }
      }
    }
  }
  EXPECT_DOUBLE_EQ(multiplied.value(), model::forward_flops(vae).value());
  EXPECT_EQ(copied, Bytes(200));
  EXPECT_EQ(held_on_host(companion, facts::DType::bf16).work,
            Bytes(std::int64_t{4} * kSamples * 32 * 16 * 16 * 2));
  EXPECT_EQ(program.states.companion_host_work, held_on_host(companion, facts::DType::bf16).work);
}

// Videos pass in parts: the weights are one set, the arithmetic is of all.
TEST(CompanionPasses, WanEncodesFourFramesAtATime) {
  const facts::Value config = facts::Object{
      {"_class_name", "AutoencoderKLWan"}, {"base_dim", 8}, {"z_dim", 4}, {"num_res_blocks", 1}};
  const model::SampleShape short_one{.batch = 1, .height = 32, .width = 32, .frames = 5};
  const model::SampleShape long_one{.batch = 1, .height = 32, .width = 32, .frames = 17};
  const model::Graph few = built(config, short_one), many = built(config, long_one);
  EXPECT_EQ(model::parameter_count(few), model::parameter_count(many));
  EXPECT_DOUBLE_EQ(model::forward_flops(many).value() / model::forward_flops(few).value(), 2.5);
}

}  // namespace
}  // namespace steelyard::step
