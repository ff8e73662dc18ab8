// A small UNet with and without gradient checkpointing: bytes alive as diffusers 0.39 has them
// (oracle_unet_checkpoint.py), and adapters whose inputs do not train.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

facts::ModelSource small_unet() {
  using facts::Array;
  return {"small unet",
          facts::Object{{"_class_name", "UNet2DConditionModel"},
                        {"sample_size", 32},
                        {"in_channels", 4},
                        {"out_channels", 4},
                        {"down_block_types", Array{"CrossAttnDownBlock2D", "DownBlock2D"}},
                        {"up_block_types", Array{"UpBlock2D", "CrossAttnUpBlock2D"}},
                        {"block_out_channels", Array{64, 128}},
                        {"layers_per_block", 2},
                        {"cross_attention_dim", 96},
                        {"attention_head_dim", 8},
                        {"norm_num_groups", 32}},
          ""};
}

facts::Job unet_job(facts::RecomputeMode mode) {
  facts::Job job = small_job();
  job.train.precision = facts::Precision::fp32;
  job.train.attention = facts::Attention::efficient;
  job.train.optimizer.name = facts::OptimizerName::sgd;
  job.train.gradient_clipping = false;
  job.train.gradient_accumulation = 1;
  job.train.image_size = {256, 256};
  job.train.recompute.mode = mode;
  return job;
}

// Beside what the setup made.
struct Alive {
  double after_forward = 0.0, forward_peak = 0.0, backward_peak = 0.0;
};

class Counter {
 public:
  explicit Counter(const Program& program) : program_(program) {}

  // The most within the passes' phases of that kind, and what is left.
  std::int64_t run(const Pass& pass, PhaseKind kind) {
    std::int64_t most = now_;
    for (const Phase& phase : pass.phases) {
      for (const Body& body : phase.bodies) {
        for (const Event& event : body.events) {
          step(event);
          if (phase.kind == kind) most = std::max(most, now_);
        }
      }
    }
    return most;
  }
  [[nodiscard]] std::int64_t now() const { return now_; }

  void step(const Event& event) {
    const bool born = event.kind == EventKind::allocate || event.kind == EventKind::ensure;
    if (!born && event.kind != EventKind::free) return;
    const bool alive = alive_.contains(event.index);
    if (born == alive) return;
    const std::int64_t bytes =
        (program_.slots[static_cast<std::size_t>(event.index)].bytes.value() + 511) / 512 * 512;
    now_ += born ? bytes : -bytes;
    if (born) {
      alive_[event.index] = bytes;
    } else {
      alive_.erase(event.index);
    }
  }

 private:
  const Program& program_;
  std::map<std::int32_t, std::int64_t> alive_;
  std::int64_t now_ = 0;
};

Alive alive(const Program& program) {
  Counter counter(program);
  for (const Pass& pass : program.setup) counter.run(pass, PhaseKind::setup);
  const std::int64_t base = counter.now();
  Alive found;
  for (const Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind != PhaseKind::forward && phase.kind != PhaseKind::backward) continue;
      const std::int64_t most = counter.run({1, {phase}}, phase.kind) - base;
      const bool forward = phase.kind == PhaseKind::forward;
      (forward ? found.forward_peak : found.backward_peak) = static_cast<double>(most);
      if (forward) found.after_forward = static_cast<double>(counter.now() - base);
    }
  }
  return found;
}

Program unet_program(const facts::Job& job) {
  const auto graph = model::build(small_unet(), {2, 77, 256, 256});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph ? program_for(*graph, job, profile_of("pytorch")) : Program();
}

TEST(UNetCheckpoint, plainAsDiffusers) {
  const Alive found = alive(unet_program(unet_job(facts::RecomputeMode::none)));
  EXPECT_NEAR(found.after_forward / 128'766'464, 1.0, 0.002);
  EXPECT_NEAR(found.forward_peak / 129'748'480, 1.0, 0.01);
  EXPECT_NEAR(found.backward_peak / 131'972'608, 1.0, 0.01);
}

TEST(UNetCheckpoint, checkpointedAsDiffusers) {
  const Alive found = alive(unet_program(unet_job(facts::RecomputeMode::full)));
  EXPECT_NEAR(found.after_forward / 23'152'128, 1.0, 0.005);
  EXPECT_NEAR(found.forward_peak / 31'998'464, 1.0, 0.04);
  EXPECT_NEAR(found.backward_peak / 42'503'168, 1.0, 0.03);
}

// The first transformer block's input requires no gradient, its adapters do: without a second run
// of it they would get none.
TEST(UNetCheckpoint, adaptersBehindFrozenModulesGetTheirGradients) {
  const auto gradients = [](facts::RecomputeMode mode) {
    facts::Job job = unet_job(mode);
    job.train.method = facts::Method::lora;
    job.train.lora.targets = {"to_q", "to_v"};
    return unet_program(job).gradients.size();
  };
  const std::size_t kept = gradients(facts::RecomputeMode::none);
  EXPECT_GT(kept, 0u);
  EXPECT_EQ(gradients(facts::RecomputeMode::full), kept);
}

// Layers it has none: every second of them, or operations by policy, mean nothing.
TEST(UNetCheckpoint, otherFormsAreRefusedByName) {
  const auto graph = model::build(small_unet(), {2, 77, 256, 256});
  facts::Job job = unet_job(facts::RecomputeMode::selective);
  const auto refused = programs_of(*graph, job, profile_of("pytorch"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().subject, "train.recompute");
  EXPECT_NE(refused.error().accepted.find("none or full"), std::string::npos);
}

}  // namespace
}  // namespace steelyard::step
