// Other ends of a language model than the loss of its next tokens: what preference and
// reinforcement learning ask of it.
#pragma once

#include <cstdint>

#include "base/error.h"
#include "model/graph.h"

namespace steelyard::model {

enum class TaskHead {
  log_probabilities,       // of the tokens that follow: a reference
  log_probabilities_loss,  // and a loss of them: a policy
  scores,                  // a linear of one output in the place of the head: a judge
  scores_loss,             // and a loss of them: a reward model, a critic
  logits,                  // as they are: a generation
};

struct TaskHeadOptions {
  TaskHead head = TaskHead::log_probabilities_loss;
  // The output projection reads the last so many tokens of each sample (transformers:
  // logits_to_keep); 0: all.
  std::int64_t keeps = 0;
  // The first half of the samples also goes through the loss of next tokens (ORPO's chosen ones).
  bool also_likelihood = false;
  // The caller holds the logits until it calls backward (Operator::outlives_forward).
  bool logits_outlive_forward = false;
};

// The graph with that end. transformers' ...ForSequenceClassification: score = nn.Linear(hidden, 1,
// bias=False) behind the final norm, no output projection.
// Errors: a graph that is no decoder with a loss of next tokens.
[[nodiscard]] Result<Graph> with_task_head(Graph graph, const TaskHeadOptions& options);

}  // namespace steelyard::model
