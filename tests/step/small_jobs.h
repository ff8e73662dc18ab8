// Small models and jobs for the tests of this room, and the events of a step in the order in which
// they happen.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "catalog/catalog.h"
#include "model/model.h"
#include "step/expand.h"
#include "step/step.h"

namespace steelyard::step {

inline constexpr std::int64_t kLayers = 3, kSamples = 2, kTokens = 64;

// Grouped heads, tied nothing.
inline facts::ModelSource small_llama() {
  return {"small llama",
          facts::Object{{"model_type", "llama"},
                        {"hidden_size", 64},
                        {"num_attention_heads", 4},
                        {"num_key_value_heads", 2},
                        {"intermediate_size", 160},
                        {"num_hidden_layers", kLayers},
                        {"vocab_size", 500}},
          ""};
}
// The head is tied to the embedding; dropout everywhere.
inline facts::ModelSource small_gpt2(double dropout = 0.1) {
  return {"small gpt2",
          facts::Object{{"model_type", "gpt2"},
                        {"n_embd", 64},
                        {"n_head", 4},
                        {"n_layer", kLayers},
                        {"n_positions", kTokens},
                        {"vocab_size", 500},
                        {"resid_pdrop", dropout},
                        {"attn_pdrop", dropout},
                        {"embd_pdrop", dropout}},
          ""};
}

inline model::Graph graph_of(const facts::ModelSource& source) {
  const Result<model::Graph> graph = model::build(source, {kSamples, kTokens});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph.value_or(model::Graph());
}

inline facts::FrameworkProfile profile_of(std::string_view framework,
                                          const facts::Value& versions = {}) {
  const auto catalog =
      catalog::Catalog::at(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog");
  const Result<facts::Constants> constants = catalog.constants(framework, versions);
  EXPECT_TRUE(constants) << (constants ? "" : to_text(constants.error()));
  return constants ? constants->framework : facts::FrameworkProfile();
}

// One node of `ranks` GPUs.
inline facts::Job small_job(std::int64_t ranks = 1) {
  facts::Job job;
  job.machine.gpus = ranks;
  job.parallel.data = ranks;
  job.train.micro_batch = kSamples;
  job.train.sequence_length = kTokens;
  return job;
}

inline Program program_for(const model::Graph& graph, const facts::Job& job,
                           const facts::FrameworkProfile& profile) {
  Result<std::vector<RankProgram>> programs = programs_of(graph, job, profile);
  EXPECT_TRUE(programs) << (programs ? "" : to_text(programs.error()));
  return programs ? std::move(programs->front().program) : Program();
}

// Calls `each(event, instance)` for every event of the passes, every repetition included. An event
// of a gradient comes as what it does: `keeps` tells whether one is kept already.
inline Progress play(const Program& program, const std::vector<Pass>& passes,
                     const std::function<void(const Event&, std::int64_t)>& each,
                     const std::function<bool(std::int32_t, std::int64_t)>& keeps = {},
                     Progress progress = {}) {
  const auto slot_of = [&](std::int32_t index) -> const Slot& {
    return program.slots[static_cast<std::size_t>(index)];
  };
  const auto visit = [&](const Phase&, const Body& body, const Instance& instance) {
    for (const Event& event : body.events) {
      switch (event.kind) {
        case EventKind::work:
        case EventKind::communicate: each(event, instance.layer()); break;
        case EventKind::ensure: {
          const std::int64_t at = instance.of(slot_of(event.index));
          if (!keeps || !keeps(event.index, at)) each({EventKind::allocate, event.index}, at);
          break;
        }
        case EventKind::keep_gradient: {
          const Gradient& gradient = program.gradients[static_cast<std::size_t>(event.index)];
          const std::int64_t to = instance.of(slot_of(gradient.kept));
          each({EventKind::free, gradient.fresh}, instance.of(slot_of(gradient.fresh)));
          if (!keeps || !keeps(gradient.kept, to)) each({EventKind::allocate, gradient.kept}, to);
          break;
        }
        case EventKind::release_shared:
          if (instance.layer() == 0) {
            each({EventKind::free, event.index}, instance.of(slot_of(event.index)));
          }
          break;
        default: each(event, instance.of(slot_of(event.index)));
      }
    }
  };
  for (const Pass& pass : passes) {
    for (std::int64_t r = 0; r < pass.repeat; ++r) expand_once(program, pass, progress, visit);
  }
  return progress;
}

}  // namespace steelyard::step
