// Jobs of several models: a policy with a reference, a judge or a critic beside it, and a policy
// that first writes the samples it learns from. One program of all of them, phase after phase.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "model/graph.h"
#include "step/program.h"
#include "step/step.h"

namespace steelyard::step {

// A model that is asked, without gradients.
struct AskedModel {
  std::string label{};      // "reference"
  model::Graph graph{};     // of the samples that are asked about at once
  bool own_weights = true;  // false: those of the policy or the critic, which are there anyway
  bool adapters_off = false;
  bool as_policy = false;  // its weights are held as the job's method says
  bool waits = false;      // in host memory, but for when it is asked
};

// The policy's own generate(): a prompt in one pass, then token after token.
struct Generation {
  model::Graph prompt;
  struct Stage {  // tokens whose past is about as long
    model::Graph token;
    std::int64_t tokens = 0, past = 0;
  };
  std::vector<Stage> stages;
  std::int64_t batches = 1;      // one after the other
  std::int64_t kept_scores = 0;  // fp32 numbers of a rank, kept until the next generation; 0: none
  Bytes engine;  // what an inference engine holds on the card; then no cache is made
  bool engine_sleeps = false;
};

struct Alignment {
  std::vector<AskedModel> asked;
  std::vector<Generation> generation;  // none or one
  std::vector<model::Graph> critic;    // that trains; none or one
  bool joint_critic = false;           // policy and critic share each micro-batch and the optimizer
  std::int64_t asks = 1;               // times each model is asked between two generations
  std::int64_t updates = 1;            // optimizer steps between two generations
  Bytes rollout;                       // samples and what is known of them, on the card
  [[nodiscard]] bool rolls_out() const { return rollout > Bytes(); }
};

// As programs_of, for the policy's graph with the others around it. With samples of its own a step
// is all from one generation to the next; without, the models are asked in each micro-batch.
// Errors: those of programs_of; a layout that splits a model's layers.
[[nodiscard]] Result<std::vector<RankProgram>> programs_of_several(
    const model::Graph& policy, const facts::Job& job, const facts::FrameworkProfile& profile,
    const facts::Gpu& gpu, std::vector<Companion> companions, const Alignment& alignment);

}  // namespace steelyard::step
