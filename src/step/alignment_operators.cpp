#include "step/alignment_operators.h"

#include <utility>

#include "step/fused_operators.h"
#include "step/prediction_operators.h"
#include "step/primitives.h"
#include "step/primitives_image.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;
using model::OperatorKind;

// torch.logsumexp(row, -1): keeps its argument and result. The kernel writes exp(x - max) once
// (ReduceOps.cpp, logsumexp_out_impl); backward is grad * (self - result).exp()
// (FunctionsManual.cpp, logsumexp_backward), whose temporaries live until the expression ends.
Tensor logsumexp(Tape& tape, const Tensor& row, std::int64_t last) {
  tape.begin_operation(OperationKind::reduction, {&row});
  const std::int64_t rows = row.numel / last;
  Tensor y;
  {
    const Tensor largest = tape.allocate(rows, row.dtype, "amax");
    y = tape.allocate(rows, row.dtype, "logsumexp");
    const Tensor raised = tape.allocate(row.numel, row.dtype, "exp");
    tape.pointwise("logsumexp", 4 * bytes_of(row));
  }
  if (!tape.tracks({&row})) return y;
  const std::int64_t numel = row.numel;
  tape.track(y, "logsumexp", {Tape::edge_of(row)}, {row.storage, y.storage},
             [numel](Tape& t, const Gradients& gradients) {
               const DType dtype = gradients[0].dtype;
               const Tensor difference = t.allocate(numel, dtype, "sub");
               const Tensor share = t.allocate(numel, dtype, "exp");
               Tensor dx = t.allocate(numel, dtype, "logsumexp_backward");
               t.pointwise("logsumexp_backward", 6 * bytes_of(dx));
               return Gradients{dx};
             });
  return y;
}

Tensor log_softmax(Tape& tape, const Tensor& row) {
  tape.begin_operation(OperationKind::reduction, {&row});
  Tensor y = tape.allocate(row.numel, row.dtype, "log_softmax");
  tape.pointwise("log_softmax", 2 * bytes_of(row));
  if (!tape.tracks({&row})) return y;
  tape.track(
      y, "log_softmax", {Tape::edge_of(row)}, {y.storage}, [](Tape& t, const Gradients& gradients) {
        Tensor dx = t.allocate(gradients[0].numel, gradients[0].dtype, "log_softmax_backward");
        t.pointwise("log_softmax_backward", 3 * bytes_of(dx));
        return Gradients{dx};
      });
  return y;
}

// torch.stack of the rows; their gradients are views.
Tensor stacked(Tape& tape, const std::vector<Tensor>& rows) {
  std::vector<Edge> edges;
  std::int64_t numel = 0;
  bool tracked = false;
  for (const Tensor& row : rows) {
    edges.push_back(Tape::edge_of(row));
    numel += row.numel;
    tracked |= tape.tracks({&row});
  }
  tape.begin_operation(OperationKind::pointwise, {});
  Tensor y = tape.allocate(numel, rows.front().dtype, "stack");
  tape.pointwise("stack", 2 * bytes_of(y));
  if (!tracked) return y;
  const std::int64_t part = rows.front().numel;
  const std::size_t count = rows.size();
  tape.track(y, "stack", std::move(edges), {}, [part, count](Tape&, const Gradients& gradients) {
    Tensor row = view(gradients[0], false);
    row.numel = part;
    return Gradients(count, row);
  });
  return y;
}

// TRL's selective_log_softmax (trl/trainer/utils.py), the same in OpenRLHF (log_probs_from_logits)
// and verl (logprobs_from_logits_v2): row by row. fp32: the chosen logit less the row's logsumexp;
// a short type: a log_softmax of each row, which its derivative keeps.
Tensor selective_log_softmax(Tape& tape, const Tensor& logits, std::int64_t samples,
                             std::int64_t vocabulary) {
  const std::int64_t tokens = logits.numel / vocabulary / samples;
  const std::vector<std::int64_t> sizes(static_cast<std::size_t>(samples), tokens * vocabulary);
  const Tensor labels = tape.external(samples * tokens, DType::int64);
  std::vector<Tensor> rows;
  if (logits.dtype == DType::fp32) {
    const Tensor chosen = gather(tape, logits, labels, samples * tokens);
    for (const Tensor& row : split(tape, logits, sizes)) {
      rows.push_back(logsumexp(tape, row, vocabulary));
    }
    const Tensor sums = stacked(tape, rows);
    rows.clear();
    return add(tape, chosen, sums);
  }
  Tensor bound;  // the loop's variable lives until it is bound again
  for (const Tensor& row : split(tape, logits, sizes)) {
    bound = log_softmax(tape, row);
    rows.push_back(gather(tape, bound, labels, tokens));
  }
  return stacked(tape, rows);
}

// orpo_trainer.py, cross_entropy_loss: logits[..., :-1, :].contiguous() of the chosen answers.
Tensor likelihood(Tape& tape, const Tensor& logits, const model::Shape& shape) {
  const Tensor chosen = contiguous(tape, slice(tape, logits, logits.numel / 2));
  const std::int64_t rows = chosen.numel / shape.back();
  return cross_entropy(tape, chosen, tape.external(rows, DType::int64), rows);
}

// verl's vocab_parallel_log_probs_from_logits (utils/megatron/tensor_parallel.py): Megatron-LM's
// cross entropy of all tokens, whether or not ranks share the vocabulary; the samples' own part is
// cut out of one number per token. NeMo-Aligner's DistributedLogprob (utils/distributed.py) keeps
// as much: the probabilities, in fp32.
bool takes_vocabulary_in_parts(const OperatorCall& call) {
  const CrossEntropy code = call.variants->cross_entropy;
  return code == CrossEntropy::vocab_parallel || code == CrossEntropy::vocab_parallel_compiled;
}

std::vector<Tensor> parallel_log_probabilities(Tape& tape, const OperatorCall& call) {
  const bool compiled = call.variants->cross_entropy == CrossEntropy::vocab_parallel_compiled;
  const Tensor logits = call.inputs[0];
  const std::int64_t rows = model::elements(call.output_shapes[0]);
  Tensor taken = vocab_parallel_cross_entropy(tape, logits, rows, compiled);
  if (call.op->also_likelihood) taken = add(tape, std::move(taken), mean(tape, taken, rows));
  return {std::move(taken), logits};
}

// outputs.logits[:, :-1] of what the model's forward() returned: under accelerate's autocast in
// fp32 (convert_outputs_to_fp32).
std::vector<Tensor> log_probabilities(Tape& tape, const OperatorCall& call) {
  if (takes_vocabulary_in_parts(call)) return parallel_log_probabilities(tape, call);
  model::Shape shape = call.input_shapes[0];
  Tensor logits = gathered_logits(tape, call, shape);
  if (call.variants->widens_outputs && tape.arithmetic().autocast) {
    logits = to(tape, std::move(logits), DType::fp32);
  }
  Tensor all = logits;
  // Each dimension of an index is a slice of its own, `:` too.
  if (shape[1] > 1) {
    all = slice(tape, slice(tape, logits, logits.numel), logits.numel / shape[1] * (shape[1] - 1));
  }
  Tensor taken = selective_log_softmax(tape, all, shape[0], shape.back());
  if (call.op->also_likelihood) taken = add(tape, std::move(taken), likelihood(tape, all, shape));
  return {std::move(taken), logits};
}

// DynamicCache.update (transformers/cache_utils.py): torch.cat([self.key_cache[i], key_states]),
// a new tensor of all tokens beside the old one.
Tensor cached(Tape& tape, const OperatorCall& call) {
  Tensor all = tape.allocate(model::elements(call.output_shapes[0]), call.inputs[0].dtype, "cat");
  tape.pointwise("cat", 2 * bytes_of(all));
  return all;
}

// Masks, ratios and means over one number per token: small beside the logits.
Tensor alignment_loss(Tape& tape, const Tensor& x) {
  const Tensor mask = tape.allocate(x.numel, x.dtype, "mask");
  Tensor counted = mul(tape, x, mask);
  Tensor ratio = sigmoid(tape, mul_constant(tape, std::move(counted)));
  return mean(tape, mul(tape, std::move(ratio), mask), x.numel);
}

}  // namespace

std::vector<Tensor> run_alignment_operator(Tape& tape, const OperatorCall& call) {
  if (call.op->kind == OperatorKind::cached) return {cached(tape, call)};
  if (call.op->kind == OperatorKind::log_probabilities) return log_probabilities(tape, call);
  return {alignment_loss(tape, call.inputs[0])};
}

}  // namespace steelyard::step
