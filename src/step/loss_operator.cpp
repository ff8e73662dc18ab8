#include "step/loss_operator.h"

#include <algorithm>
#include <utility>

#include "step/fused_operators.h"
#include "step/linear_operator.h"
#include "step/prediction_operators.h"
#include "step/primitives.h"
#include "step/primitives_fused.h"

namespace steelyard::step {

namespace {

// torchtune's CEWithChunkedOutputLoss and TransformerDecoder.set_num_output_chunks.
constexpr std::int64_t kLossChunks = 8;

Tensor loss_of_rows(Tape& tape, const Variants& variants, Tensor logits, const Tensor& labels,
                    std::int64_t rows) {
  if (variants.cross_entropy == CrossEntropy::eager) {
    return cross_entropy(tape, std::move(logits), labels, rows);
  }
  if (variants.cross_entropy == CrossEntropy::sharded) {
    return sharded_cross_entropy(tape, std::move(logits), rows);
  }
  const bool compiled = variants.cross_entropy == CrossEntropy::vocab_parallel_compiled;
  if (compiled || variants.cross_entropy == CrossEntropy::vocab_parallel) {
    return vocab_parallel_cross_entropy(tape, std::move(logits), rows, compiled);
  }
  const bool in_place = variants.cross_entropy == CrossEntropy::in_place;
  return fused_cross_entropy(tape, std::move(logits), labels, rows, in_place);
}

Tensor labels_of(Tape& tape, const OperatorCall& call, std::int64_t rows) {
  if (call.variants->labels == Labels::given) return tape.external(rows, DType::int64);
  return tape.allocate(rows, DType::int64, "shift_labels");
}

// transformers up to 4.45 (LlamaForCausalLM.forward): logits = logits.float(), not in every family;
// shift_logits = logits[..., :-1, :].contiguous(); shift_labels = labels[..., 1:].contiguous().
// A single row is contiguous without a copy. From 4.46 to 4.48 the families that widened do both
// inside the loss (loss/loss_utils.py, ForCausalLMLoss), while forward() holds the logits as the
// head made them; the others stay as they were (modeling_gpt_bigcode.py and so on, 4.48.1).
std::vector<Tensor> shifted_logits_loss(Tape& tape, OperatorCall& call) {
  const bool widens = call.op->widens_logits && call.variants->widens_logits;
  const bool in_loss = widens && call.variants->loss == LossTypes::upcast_shift_in_loss;
  const std::int64_t samples = call.graph->batch;
  const std::int64_t tokens = call.graph->sequence - 1;
  const std::int64_t rows = checked_multiply(samples, tokens);
  const Tensor of_head = in_loss ? call.inputs[0] : Tensor();
  Tensor logits = std::exchange(call.inputs[0], Tensor());
  if (widens) logits = to(tape, std::move(logits), DType::fp32);
  const auto result = [&](Tensor loss) -> std::vector<Tensor> {
    return {std::move(loss), in_loss ? of_head : logits};
  };
  if (call.variants->labels == Labels::given) {
    const std::int64_t all = checked_multiply(samples, call.graph->sequence);
    const Tensor labels = labels_of(tape, call, all);
    return result(loss_of_rows(tape, *call.variants, logits, labels, all));
  }
  Tensor shifted = slice(tape, logits, logits.numel / call.graph->sequence * tokens);
  shifted.dense = samples == 1;
  shifted = contiguous(tape, std::move(shifted));
  const bool view_of_labels = samples == 1 && call.labels;
  const Tensor labels =
      view_of_labels ? call.labels : tape.allocate(rows, DType::int64, "shift_labels");
  return result(loss_of_rows(tape, *call.variants, shifted, labels, rows));
}

}  // namespace

std::vector<Tensor> causal_lm_loss(Tape& tape, OperatorCall& call) {
  if (call.variants->gathers_logits) {
    call.inputs[0] = gathered_logits(tape, call, call.input_shapes[0]);
  }
  const LossTypes types = call.variants->loss;
  if (types == LossTypes::upcast_shift || types == LossTypes::upcast_shift_in_loss) {
    return shifted_logits_loss(tape, call);
  }
  // ForCausalLMLoss: labels shifted by one with padding, logits widened, cross entropy of all rows.
  const std::int64_t rows = checked_multiply(call.graph->batch, call.graph->sequence);
  const bool in_model = types == LossTypes::upcast_in_model;
  Tensor logits = call.inputs[0];
  if ((types == LossTypes::upcast || in_model) && call.variants->widens_logits) {
    if (in_model) call.inputs[0] = Tensor();
    logits = to(tape, std::move(logits), DType::fp32);
    if (in_model) call.inputs[0] = logits;
  }
  const Tensor labels = labels_of(tape, call, rows);
  return {loss_of_rows(tape, *call.variants, std::move(logits), labels, rows), call.inputs[0]};
}

namespace {

// modules/transformer.py, chunked_output: [self.output(chunk) for chunk in h.chunk(n, dim=1)].
std::vector<Tensor> chunks_of_logits(Tape& tape, const HeadCall& call, const Tensor& hidden) {
  const std::int64_t tokens = call.loss.graph->sequence;
  const std::int64_t samples = call.loss.graph->batch;
  const std::int64_t per_chunk = ceil_divide(tokens, kLossChunks);
  std::vector<Tensor> chunks;
  for (std::int64_t done = 0; done < tokens; done += per_chunk) {
    const std::int64_t part = std::min(per_chunk, tokens - done);
    OperatorCall projection = call.projection;
    projection.weights[0].view = true;  // @torch.compiler.disable: F.linear runs as it is
    // A chunk of several samples is no matrix: matmul copies it before it folds the dimensions.
    Tensor rows = slice(tape, hidden, hidden.numel / tokens * part);
    rows.dense = samples == 1;
    projection.inputs = {contiguous(tape, std::move(rows))};
    Tensor logits = linear_layer(tape, projection);
    for (OperatorCall step : call.between) {
      step.inputs = {std::move(logits)};
      logits = std::move(run_operator(tape, std::move(step)).front());
    }
    chunks.push_back(std::move(logits));
  }
  return chunks;
}

// modules/loss/ce_chunked_output_loss.py: the loss of each chunk, widened by itself, then summed.
std::vector<Tensor> chunked_head(Tape& tape, HeadCall& call) {
  std::vector<Tensor> chunks = chunks_of_logits(tape, call, call.projection.inputs[0]);
  const std::int64_t vocabulary = call.loss.graph->vocabulary;
  Tensor sum;
  for (const Tensor& chunk : chunks) {
    const std::int64_t rows = chunk.numel / vocabulary;
    Tensor logits = chunk;
    if (call.loss.variants->loss != LossTypes::native && call.loss.variants->widens_logits) {
      logits = to(tape, std::move(logits), DType::fp32);
    }
    const Tensor labels = tape.allocate(rows, DType::int64, "labels_chunk");
    Tensor loss = loss_of_rows(tape, *call.loss.variants, std::move(logits), labels, rows);
    sum = sum ? add(tape, std::move(sum), std::move(loss)) : std::move(loss);
  }
  chunks.insert(chunks.begin(), std::move(sum));
  return chunks;
}

}  // namespace

std::vector<Tensor> head_loss(Tape& tape, HeadCall call) {
  if (call.loss.variants->head == HeadLoss::chunked) return chunked_head(tape, call);
  const std::int64_t rows = checked_multiply(call.loss.graph->batch, call.loss.graph->sequence);
  const Tensor labels = labels_of(tape, call.loss, rows);
  return {fused_linear_cross_entropy(tape, call.projection.inputs[0], call.projection.weights[0],
                                     labels, rows)};
}

}  // namespace steelyard::step
