// What a job's objective makes of its samples and models: resolved keys, and the policy's graph.
#pragma once

#include <cstdint>

#include "base/error.h"
#include "facts/job.h"
#include "facts/model_source.h"
#include "model/graph.h"
#include "model/model.h"

namespace steelyard::plan {

// Fills train.reference, train.rollout and the roles that trainers bring by themselves, before the
// model is built: a rollout says how long a sample is.
// Errors: roles, references or rollouts that the objective has no use for; samples that do not
// divide into groups, micro-batches or updates.
[[nodiscard]] Result<void> resolve_objective(facts::Job& job);

// Rows that a sample is to the model: a pair of answers is two.
[[nodiscard]] std::int64_t rows_of_sample(const facts::Job& job);
// Tokens of a sample that count: where lengths vary, of the mean one, unless rows are filled.
[[nodiscard]] double tokens_of_sample(const facts::Job& job);
// Tokens of a sample as the dataset holds it: both answers, or the prompt of a group alone.
[[nodiscard]] double tokens_on_storage(const facts::Job& job, std::int64_t sequence);

[[nodiscard]] bool rolls_out(const facts::Job& job);
// Optimizer steps between two generations, and samples of all ranks in that time.
[[nodiscard]] std::int64_t updates_of(const facts::Job& job);
[[nodiscard]] std::int64_t samples_of_step(const facts::Job& job);

// Tokens of a sample whose logits an answer needs, where the model's code projects no others
// (transformers: logits_to_keep); 0: it projects all. Megatron-LM's does, and so do ranks that
// share a sequence, whose tails lie elsewhere.
[[nodiscard]] std::int64_t kept_logits(const facts::Job& job);

// The graph that trains, of one micro-batch, with the end that the objective asks for.
[[nodiscard]] Result<model::Graph> trained_graph(const facts::ModelSource& source,
                                                 const facts::Job& job,
                                                 const model::SampleShape& sample);

}  // namespace steelyard::plan
