// The loss of a causal language model, as the model codes write it. Sources: docs/model/vram.md,
// "Loss".
#pragma once

#include <vector>

#include "step/operators.h"

namespace steelyard::step {

// The scalar loss, and the logits as the model returns them to its caller: outputs.logits. `call`
// holds the model's own variable `logits` [B,S,V]; whoever wants it freed by the model's
// `logits = logits.float()` keeps no other handle on it.
[[nodiscard]] std::vector<Tensor> causal_lm_loss(Tape& tape, OperatorCall& call);

// The end of a model: output projection, what is between (a scale, a cap) and loss.
struct HeadCall {
  OperatorCall projection;
  std::vector<OperatorCall> between;
  OperatorCall loss;
};

// The same with the logits in chunks or never whole (Variants::head): loss, then the logits that
// the model returns, if any.
[[nodiscard]] std::vector<Tensor> head_loss(Tape& tape, HeadCall call);

}  // namespace steelyard::step
