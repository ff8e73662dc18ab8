#include "step/prediction_operators.h"

#include <utility>
#include <vector>

#include "step/primitives.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

// torch.cat; the gradients of the parts are views of the whole's.
Tensor join(Tape& tape, const std::vector<Tensor>& parts) {
  tape.begin_operation(OperationKind::other, {&parts[0]});
  std::int64_t numel = 0;
  std::vector<Edge> edges;
  std::vector<std::int64_t> numels;
  bool tracks = false;
  for (const Tensor& part : parts) {
    numel += part.numel;
    numels.push_back(part.numel);
    edges.push_back(Tape::edge_of(part));
    tracks |= tape.tracks({&part});
  }
  Tensor y = tape.allocate(numel, parts[0].dtype, "cat");
  tape.pointwise("cat", 2 * bytes_of(y));
  if (!tracks) return y;
  tape.track(y, "cat", std::move(edges), {}, [numels](Tape& t, const Gradients& gradients) {
    Gradients result;
    for (const std::int64_t part : numels) {
      result.push_back(t.alias(gradients[0].storage, part, gradients[0].dtype));
      result.back().dense = false;
      result.back().view = true;
    }
    return result;
  });
  return y;
}

// gather_from_tensor_model_parallel_region, then scatter_to_sequence_parallel_region where tokens
// are spread: the rank's tokens are copied out of all of them.
Tensor gather_features(Tape& tape, const OperatorCall& call) {
  const Tensor x = call.inputs[0];
  const Group group = tape.options().tensor;
  const std::int64_t own = model::elements(call.output_shapes[0]);
  const std::int64_t all = checked_multiply(x.numel, group.ranks);
  tape.begin_operation(OperationKind::other, {&x});
  Tensor gathered = tape.allocate(all, x.dtype, "all_gather_features");
  tape.communicate(Collective::all_gather, "all_gather_features", bytes_of(gathered), group, false);
  Tensor joined = tape.allocate(all, x.dtype, "cat");
  tape.pointwise("cat", 2 * bytes_of(joined));
  gathered = Tensor();
  Tensor y = joined;
  if (own < all) {
    y = tape.allocate(own, x.dtype, "clone");
    tape.pointwise("clone", 2 * bytes_of(y));
  }
  joined = Tensor();
  if (!tape.tracks({&x})) return y;
  const std::int64_t before = x.numel;
  tape.track(
      y, "gather_features", {Tape::edge_of(x)}, {}, [=](Tape& t, const Gradients& gradients) {
        const DType dtype = gradients[0].dtype;
        Tensor whole;
        if (own < all) {
          whole = t.allocate(all, dtype, "all_gather_tokens");
          t.communicate(Collective::all_gather, "all_gather_tokens", bytes_of(whole), group, false);
        }
        Tensor dx = t.allocate(before, dtype, "clone");
        t.pointwise("clone", 2 * bytes_of(dx));
        return Gradients{dx};
      });
  return y;
}

// MTPLossAutoScaler: x itself, and backward a gradient of ones for the further loss.
Tensor attach_loss(Tape& tape, const OperatorCall& call) {
  Tensor y = call.inputs[0];
  const Tensor& loss = call.inputs[1];
  if (!tape.tracks({&y, &loss})) return y;
  const std::int64_t rows = loss.numel;
  const DType dtype = loss.dtype;
  tape.track(y, "attach_loss", {Tape::edge_of(y), Tape::edge_of(loss)}, {loss.storage},
             [rows, dtype](Tape& t, const Gradients& gradients) {
               return Gradients{gradients[0], t.allocate(rows, dtype, "ones_like")};
             });
  return y;
}

}  // namespace

Tensor run_prediction_operator(Tape& tape, const OperatorCall& call) {
  switch (call.op->kind) {
    case model::OperatorKind::join: return join(tape, call.inputs);
    case model::OperatorKind::gather_features: return gather_features(tape, call);
    default: return attach_loss(tape, call);
  }
}

// transformers' tp_plan for output projections is colwise_rep (integrations/tensor_parallel.py):
// every rank gets the logits of the whole vocabulary.
Tensor gathered_logits(Tape& tape, const OperatorCall& call, model::Shape& shape) {
  const std::int64_t ranks = tape.options().tensor.ranks;
  if (ranks == 1 || shape.back() >= call.graph->vocabulary) return call.inputs[0];
  shape.back() = checked_multiply(shape.back(), ranks);
  model::Operator op;
  op.kind = model::OperatorKind::gather_features;
  OperatorCall gather = call;
  gather.op = &op;
  gather.output_shapes = {shape};
  return run_prediction_operator(tape, gather);
}

}  // namespace steelyard::step
