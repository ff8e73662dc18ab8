// Models that share the card, and diffusion transformers, whose blocks read what the first one
// makes: what their programs hold.
#include <gtest/gtest.h>

#include <algorithm>

#include "step/player.h"

namespace steelyard::step {
namespace {

using facts::CompanionHeld;
using facts::VramCategory;

facts::ModelSource small_clip() {
  return {"clip",
          facts::Object{{"architectures", facts::Array{"CLIPTextModel"}},
                        {"hidden_size", 16},
                        {"intermediate_size", 40},
                        {"num_hidden_layers", 2},
                        {"num_attention_heads", 2},
                        {"vocab_size", 99}},
          ""};
}

facts::ModelSource small_cogvideo() {
  return {"cogvideo",
          facts::Object{{"_class_name", "CogVideoXTransformer3DModel"},
                        {"num_attention_heads", 2},
                        {"attention_head_dim", 16},
                        {"num_layers", kLayers},
                        {"text_embed_dim", 24},
                        {"time_embed_dim", 12},
                        {"sample_width", 8},
                        {"sample_height", 6},
                        {"sample_frames", 9},
                        {"max_text_seq_length", 5},
                        {"use_rotary_positional_embeddings", true}},
          ""};
}

facts::ModelSource small_flux() {
  return {"flux",
          facts::Object{{"_class_name", "FluxTransformer2DModel"},
                        {"num_layers", 2},
                        {"num_single_layers", 3},
                        {"attention_head_dim", 16},
                        {"num_attention_heads", 2},
                        {"joint_attention_dim", 20},
                        {"pooled_projection_dim", 12},
                        {"in_channels", 16}},
          ""};
}

model::Graph diffusion_graph(const facts::ModelSource& source) {
  const Result<model::Graph> graph = model::build(source, {.batch = kSamples});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph.value_or(model::Graph());
}

facts::Job diffusion_job() {
  facts::Job job = small_job();
  job.train.sequence_length.reset();
  return job;
}

Program with_clip(const facts::Job& job, CompanionHeld held, bool trainable) {
  auto programs = programs_of(graph_of(small_llama()), job, profile_of("pytorch"), {},
                              {{graph_of(small_clip()), held, trainable}});
  EXPECT_TRUE(programs) << (programs ? "" : to_text(programs.error()));
  return programs ? std::move(programs->front().program) : Program();
}

std::int64_t clip_parameters() {
  return model::parameter_count(graph_of(small_clip())).value();
}

Bytes alive_after_setup(const Program& program) {
  Player player(program);
  player.play(program.setup);
  EXPECT_EQ(player.complaint(), "");
  Bytes sum;
  for (const Allocation& allocation : player.alive()) {
    sum += program.slots[static_cast<std::size_t>(allocation.first)].bytes;
  }
  return sum;
}

TEST(Companions, AreHeldInTheTypeOfTheProducts) {
  const Bytes alone =
      alive_after_setup(program_for(graph_of(small_llama()), small_job(), profile_of("pytorch")));
  const Program held = with_clip(small_job(), CompanionHeld::always, false);
  EXPECT_EQ(alive_after_setup(held) - alone, Bytes(2 * clip_parameters()));  // bf16-mixed
}

TEST(Companions, OfLoadingAreGoneBeforeTheFirstStep) {
  const Bytes alone =
      alive_after_setup(program_for(graph_of(small_llama()), small_job(), profile_of("pytorch")));
  const Program program = with_clip(small_job(), CompanionHeld::load, false);
  EXPECT_EQ(alive_after_setup(program), alone);
  bool gives_back = false;
  for (const Pass& pass : program.setup) {
    for (const Body& body : pass.phases.front().bodies) {
      gives_back |= std::any_of(body.events.begin(), body.events.end(), [](const Event& event) {
        return event.kind == EventKind::release_cached;
      });
    }
  }
  EXPECT_TRUE(gives_back);
}

// Weights in their own type, whatever the products have.
TEST(Companions, SayTheTypeOfTheirWeights) {
  auto programs = programs_of(graph_of(small_llama()), small_job(), profile_of("pytorch"), {},
                              {{.graph = graph_of(small_clip()),
                                .held = CompanionHeld::always,
                                .precision = facts::ShortPrecision::fp32}});
  ASSERT_TRUE(programs) << to_text(programs.error());
  const Bytes alone =
      alive_after_setup(program_for(graph_of(small_llama()), small_job(), profile_of("pytorch")));
  EXPECT_EQ(alive_after_setup(programs->front().program) - alone, Bytes(4 * clip_parameters()));
}

// On the card there is nothing of them; in host memory their weights, which loading makes in fp32.
TEST(Companions, OnTheCpuLieInHostMemory) {
  const Program alone = program_for(graph_of(small_llama()), small_job(), profile_of("pytorch"));
  const Program program = with_clip(small_job(), CompanionHeld::cpu, false);
  EXPECT_EQ(alive_after_setup(program), alive_after_setup(alone));
  EXPECT_EQ(program.slots.size(), alone.slots.size());
  EXPECT_EQ(program.states.companion_host_bytes, Bytes(2 * clip_parameters()));  // bf16-mixed
  EXPECT_EQ(program.states.made_bytes - alone.states.made_bytes, Bytes(2 * clip_parameters()));
  EXPECT_EQ(alone.states.companion_host_bytes, Bytes());
}

TEST(Companions, ThatTrainAreNotOnTheCpu) {
  const auto programs = programs_of(graph_of(small_llama()), small_job(), profile_of("pytorch"), {},
                                    {{graph_of(small_clip()), CompanionHeld::cpu, true}});
  ASSERT_FALSE(programs);
  EXPECT_EQ(programs.error().subject, "model.companions[0].held");
}

TEST(Companions, ThatTrainAreGradedAndStepped) {
  const Program alone = program_for(graph_of(small_llama()), small_job(), profile_of("pytorch"));
  const Program program = with_clip(small_job(), CompanionHeld::always, true);
  EXPECT_EQ((program.states.trainable - alone.states.trainable).value(), clip_parameters());
  Player player(program);
  player.play(program.setup);
  player.step(true);
  player.step(false);
  EXPECT_EQ(player.complaint(), "");
}

// Beside adapters a companion trains by adapters of its own: A and B of q_proj and v_proj in two
// layers of width 16, of rank 4; its base is held and frozen.
TEST(Companions, TrainByAdaptersBesideAdapters) {
  facts::Job job = small_job();
  job.train.method = facts::Method::lora;
  job.train.lora.rank = 4;
  job.train.lora.targets = {"gate_proj"};  // which the text encoder has not
  const Program alone = program_for(graph_of(small_llama()), job, profile_of("pytorch"));
  const Program program = with_clip(job, CompanionHeld::always, true);
  const std::int64_t adapters = 2 * 2 * (4 * 16 + 16 * 4);
  EXPECT_EQ((program.states.trainable - alone.states.trainable).value(), adapters);
  EXPECT_EQ((program.states.parameters - alone.states.parameters).value(),
            clip_parameters() + adapters);
  Player player(program);
  player.play(program.setup);
  player.step(true);
  player.step(false);
  EXPECT_EQ(player.complaint(), "");
}

// Every tensor is born once and dies once, whatever the method and the recomputation.
TEST(DiffusionPrograms, AreConsistent) {
  for (const facts::ModelSource& source : {small_cogvideo(), small_flux()}) {
    for (const facts::Method method : {facts::Method::full, facts::Method::lora}) {
      for (const auto recompute : {facts::RecomputeMode::none, facts::RecomputeMode::full}) {
        SCOPED_TRACE(source.name + (method == facts::Method::full ? ", full" : ", lora") +
                     (recompute == facts::RecomputeMode::none ? "" : ", recomputed"));
        facts::Job job = diffusion_job();
        job.train.method = method;
        job.train.recompute.mode = recompute;
        if (method == facts::Method::lora) job.train.lora.targets = {"to_q", "to_k"};
        const Program program = program_for(diffusion_graph(source), job, profile_of("pytorch"));
        Player player(program);
        player.play(program.setup);
        player.step(true);
        const auto between = player.alive();
        player.step(false);
        EXPECT_EQ(player.complaint(), "");
        EXPECT_EQ(player.alive(), between);
      }
    }
  }
}

// All weights of a model in full training have a gradient when its backward pass is through.
TEST(DiffusionPrograms, GradeWhatAllBlocksRead) {
  const model::Graph graph = diffusion_graph(small_cogvideo());
  const Program program = program_for(graph, diffusion_job(), profile_of("pytorch"));
  Bytes gradients;
  for (const Slot& slot : program.slots) {
    if (slot.category == VramCategory::gradients) gradients += slot.bytes;
  }
  const model::Block& layer = graph.segments.at(1).blocks.front();
  const std::int64_t once =
      model::parameter_count(graph).value() - (kLayers - 1) * model::parameter_count(layer).value();
  EXPECT_GE(gradients, Bytes(4 * once));
}

// Accelerator.prepare wraps a short model's forward pass in autocast: norms save in fp32.
TEST(DiffusionPrograms, RunUnderAutocastWhereTheProfileSaysSo) {
  facts::Job job = diffusion_job();
  job.train.precision = facts::Precision::bf16;
  const auto kept = [&](const facts::FrameworkProfile& profile) {
    Bytes sum;
    for (const Slot& slot : program_for(diffusion_graph(small_cogvideo()), job, profile).slots) {
      if (slot.category == VramCategory::activations) sum += slot.bytes;
    }
    return sum;
  };
  facts::FrameworkProfile profile = profile_of("pytorch");
  const Bytes wide = kept(profile);
  profile.operators["diffusers_arithmetic"] = "base";
  EXPECT_GT(wide, kept(profile));
}

}  // namespace
}  // namespace steelyard::step
