// The first header of the room: graph + job -> the program of one rank for one step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "model/graph.h"
#include "step/program.h"

namespace steelyard::step {

// Ranks that hold and do the same.
struct RankProgram {
  std::string kind;        // "data-parallel rank", "pipeline stage 3 of 16"
  std::int64_t ranks = 1;  // how many of them the job has
  Program program;
  // The first stage that holds and does the same but for the order of its passes; often itself.
  std::size_t like = 0;
};

// A model beside the trained one (model.companions): a text encoder, an autoencoder.
struct Companion {
  model::Graph graph;
  facts::CompanionHeld held = facts::CompanionHeld::always;
  bool trainable = false;
  std::optional<facts::ShortPrecision> precision{};  // of its weights; none: that of the products
  std::int64_t puts_out = 0;  // elements that a micro-batch's model reads of it
};

class Workshop;

// How a program uses the model, where not to train it.
struct ModelUse {
  bool asks_only = false;     // forward passes under torch.no_grad()
  bool adapters_off = false;  // the base alone (PEFT's disable_adapter())
  // Stages that are like an earlier one get no program of their own: for who asks how long they
  // take, not what they hold.
  bool once = false;
  Workshop* workshop = nullptr;  // what it has in common with others; null: made alone
};

// The programs of all kinds of ranks; pipeline stages in order, from the embedding's to the loss's.
// `graph` holds one micro-batch of the tokens that one context-parallel rank has. `job` is resolved
// (plan/resolve.h); `gpu` says which products it has, one without a name has all. Keys whose effect
// is not built yet are a not_supported error that names the key.
[[nodiscard]] Result<std::vector<RankProgram>> programs_of(
    const model::Graph& graph, const facts::Job& job, const facts::FrameworkProfile& profile,
    const facts::Gpu& gpu = {}, std::vector<Companion> companions = {}, const ModelUse& use = {});

}  // namespace steelyard::step
