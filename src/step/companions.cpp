#include "step/companions.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "model/latent_source.h"
#include "step/adapters.h"
#include "step/assembler.h"
#include "step/weight_storage.h"

namespace steelyard::step {

using facts::VramCategory;

namespace {

template <class Visit>
void for_each_weight(const model::Graph& graph, const Visit& visit) {
  for (const model::Segment& segment : graph.segments) {
    for (std::int64_t layer = 0; layer < segment.repeat; ++layer) {
      for (const model::Block& block : segment.blocks) {
        for (const model::Weight& weight : block.weights) {
          if (weight.tied_to.empty()) visit(weight);
        }
      }
    }
  }
}

// A companion is its weights alone: a module is adapted where its matrix is.
std::string module_of(const model::Weight& weight) {
  const std::size_t dot = weight.name.rfind('.');
  return dot == std::string::npos ? weight.name : weight.name.substr(0, dot);
}

bool is_targeted(const model::Weight& weight, const std::vector<std::string>& targets) {
  if (weight.shape.size() != 2 || weight.role != model::WeightRole::matrix) return false;
  return std::any_of(targets.begin(), targets.end(), [&](const std::string& target) {
    return names_module(target, module_of(weight));
  });
}

// The job's targets are the model's; a companion that has none of them takes PEFT's usual ones of
// text encoders (CLIP's q_proj and v_proj, T5's q and v).
Result<std::vector<std::string>> targets_of(const model::Graph& companion, const facts::Job& job) {
  const std::vector<std::vector<std::string>> choices = {
      job.train.lora.targets, {"q_proj", "v_proj"}, {"q", "v"}};
  for (const std::vector<std::string>& targets : choices) {
    bool any = false;
    for_each_weight(companion,
                    [&](const model::Weight& weight) { any |= is_targeted(weight, targets); });
    if (any) return targets;
  }
  return fail({ErrorCode::bad_input,
               "train.lora.targets",
               "no module of " + companion.name,
               "names that its linears have",
               "name them beside the model's, or set trainable = false",
               "",
               {}});
}

// What is held of a companion that trains: all of it, or its frozen base and adapters.
std::vector<model::Weight> held_of(const model::Weight& weight, const facts::Job& job,
                                   const std::vector<std::string>& targets) {
  if (job.train.method == facts::Method::full) return {weight};
  model::Weight base = weight;
  base.trains = false;
  if (!is_targeted(weight, targets)) return {base};
  model::Weight down = weight, up = weight;
  down.name = module_of(weight) + ".lora_A.weight";
  down.shape = {job.train.lora.rank, weight.shape[1]};
  up.name = module_of(weight) + ".lora_B.weight";
  up.shape = {weight.shape[0], job.train.lora.rank};
  down.adapter = up.adapter = true;
  return {base, down, up};
}

// The pictures lie on the card beside the latents that an autoencoder makes of them.
bool brings_pixels(const facts::Job& job, const std::vector<Companion>& companions) {
  const facts::DataKind kind = job.data.kind.value_or(facts::DataKind::synthetic);
  const bool decoded = kind == facts::DataKind::jpeg || kind == facts::DataKind::png ||
                       kind == facts::DataKind::video;
  return decoded && std::any_of(companions.begin(), companions.end(), [](const Companion& other) {
           return other.held == facts::CompanionHeld::always &&
                  model::is_autoencoder(other.graph.model_type);
         });
}

}  // namespace

DType type_of(const Companion& companion, DType products) {
  if (!companion.precision) return products;
  switch (*companion.precision) {
    case facts::ShortPrecision::fp32: return DType::fp32;
    case facts::ShortPrecision::bf16: return DType::bf16;
    case facts::ShortPrecision::fp16: return DType::fp16;
  }
  return products;
}

Result<void> check_companions(const std::vector<Companion>& companions) {
  for (std::size_t i = 0; i < companions.size(); ++i) {
    const Companion& companion = companions[i];
    if (!companion.trainable || companion.held != facts::CompanionHeld::cpu) continue;
    return fail({.code = ErrorCode::impossible_combination,
                 .subject = fmt::format("model.companions[{}].held", i),
                 .found = "cpu, of a companion that trains (" + companion.graph.name + ")",
                 .accepted = "always",
                 .hint = "only frozen companions compute on the CPU"});
  }
  return {};
}

Result<model::Graph> with_companions(model::Graph graph, const facts::Job& job,
                                     const std::vector<Companion>& companions) {
  if (model::reads_latents(graph) && brings_pixels(job, companions)) {
    graph.batch_tensors.push_back(model::pixels_of(graph));
  }
  for (const Companion& companion : companions) {
    if (!companion.trainable) continue;
    std::vector<std::string> targets;
    if (job.train.method != facts::Method::full) {
      STEELYARD_TRY(own, targets_of(companion.graph, job));
      targets = std::move(own);
    }
    model::Block& first = graph.segments.front().blocks.front();
    for_each_weight(companion.graph, [&](const model::Weight& weight) {
      for (model::Weight& held : held_of(weight, job, targets)) {
        held.name = companion.graph.name + ": " + held.name;
        first.weights.push_back(std::move(held));
      }
    });
  }
  return graph;
}

// Frozen companions are held in the type that the products have, unless they say another: the
// training scripts of diffusers cast "all non-trainable weights" to half precision
// (train_dreambooth.py, weight_dtype). Those held for loading alone are gone before the first step,
// and what they took goes back to the device: the scripts call torch.cuda.empty_cache() then.
void Assembler::add_companions() {
  if (companions_ == nullptr) return;
  Phase phase{PhaseKind::setup, {}};
  Body gone;
  gone.layer = "companions held for loading";
  for (const Companion& companion : *companions_) {
    if (companion.trainable || companion.held == facts::CompanionHeld::cpu) continue;
    const bool leaves = companion.held == facts::CompanionHeld::load;
    Body body;
    body.layer = companion.graph.name;
    for_each_weight(companion.graph, [&](const model::Weight& weight) {
      const DType dtype = type_of(companion, layout_.arithmetic.compute);
      const Bytes bytes = bytes_of(model::elements(weight.shape), dtype);
      const std::int32_t held = slot(bytes, VramCategory::parameters, weight.name);
      allocate(body.events, held);
      if (leaves) free(gone.events, held);
    });
    phase.bodies.push_back(std::move(body));
  }
  if (!gone.events.empty()) {
    gone.events.push_back({EventKind::release_cached, gone.events.back().index});
    phase.bodies.push_back(std::move(gone));
  }
  if (!phase.bodies.empty()) program_.setup.push_back({1, {std::move(phase)}});
}

// Weights whose gradient no block's own backward pass tells: of companions, and of what all blocks
// read (the embedding of the time). It is there when the first block's backward pass is through.
void Assembler::grade_the_rest(Unit& unit) {
  if (layout_.gathers || unit.block->input.index >= 0) return;
  if (!profile_.gradients_set_to_none || layout_.on_host.gradients) return;
  for (std::size_t i = 0; i < unit.block->weights.size(); ++i) {
    const model::Weight& weight = unit.block->weights[i];
    if (!weight.trains || !weight.tied_to.empty() || unit.trace.gradients[i] >= 0) continue;
    if (tied_elsewhere(weight.name)) continue;
    const DType dtype = gradient_type(layout_, weight);
    const std::int32_t kept = typed(
        slot(bytes_of(model::elements(weight.shape), dtype), VramCategory::gradients, weight.name),
        dtype, weight.shape);
    program_.slots.back().outlives_micro_batch = true;
    unit.trace.gradients[i] = kept;
    unit.trace.backward.push_back({EventKind::ensure, kept});
  }
}

// Another block's weight shares its storage and grades it.
bool Assembler::tied_elsewhere(const std::string& weight) const {
  for (const model::Segment& segment : graph_.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& other : block.weights) {
        if (other.tied_to == weight) return true;
      }
    }
  }
  return false;
}

}  // namespace steelyard::step
