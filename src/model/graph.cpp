#include "model/graph.h"

#include <algorithm>
#include <cmath>

namespace steelyard::model {

namespace {

const Shape& shape_of(TensorRef ref, const Block& block, const Graph& graph) {
  const auto& tensors = ref.shared ? graph.shared : block.tensors;
  return tensors.at(static_cast<std::size_t>(ref.index)).shape;
}

// A multiply-add counts two. [..., K] times [K,N]: 2 * elements of the input * N.
Flops linear_flops(const Operator& op, const Block& block, const Graph& graph) {
  const Shape& in = shape_of(op.inputs.front(), block, graph);
  const Shape& out = shape_of(op.outputs.front(), block, graph);
  return Flops(2.0 * static_cast<double>(elements(in)) * static_cast<double>(out.back()));
}

// Pairs of query and key of one head and sample. Causal: half of the square; with a window of W < S
// tokens the triangle of the tokens further back than W is missing: S*S/2 - (S-W)*(S-W)/2.
double score_pairs(const AttentionShape& attention, double sequence, double keys) {
  const double packed = static_cast<double>(std::max<std::int64_t>(1, attention.packed));
  if (!attention.causal) return sequence * keys / packed;
  if (attention.packed > 1) return sequence * sequence / (2.0 * packed);
  // Each chunk by itself, the last one perhaps shorter.
  if (attention.chunk > 0 && static_cast<double>(attention.chunk) < sequence) {
    const auto chunk = static_cast<double>(attention.chunk);
    const double whole = std::floor(sequence / chunk);
    const double rest = sequence - whole * chunk;
    return (whole * chunk * chunk + rest * rest) / 2.0;
  }
  const double window = static_cast<double>(attention.window);
  const double beyond = attention.window > 0 ? std::max(0.0, sequence - window) : 0.0;
  return (sequence * sequence - beyond * beyond) / 2.0;
}

// Scores (q times k) and their product with the values: two multiply-adds per pair and dimension.
Flops attention_flops(const Operator& op, const Block& block, const Graph& graph) {
  const Shape& query = shape_of(op.inputs.front(), block, graph);  // [B,n,S,d]
  const Shape& key = shape_of(op.inputs.at(1), block, graph);
  const double pairs =
      score_pairs(op.attention, static_cast<double>(query.at(2)), static_cast<double>(key.at(2)));
  const double rows = static_cast<double>(query.at(0)) * static_cast<double>(query.at(1));
  const std::int64_t value = op.attention.value_dim > 0 ? op.attention.value_dim : query.at(3);
  return Flops(2.0 * rows * static_cast<double>(query.at(3) + value) * pairs);
}

// Contents with contents, and each side with the distances that there are.
Flops disentangled_flops(const Operator& op, const Block& block, const Graph& graph) {
  const Shape& query = shape_of(op.inputs.front(), block, graph);  // [B,n,S,d]
  const auto tokens = static_cast<double>(query.at(2));
  double columns = 2.0 * tokens;
  for (std::size_t i = 3; i < op.inputs.size(); ++i) {
    columns += static_cast<double>(shape_of(op.inputs[i], block, graph).at(2));
  }
  return Flops(2.0 * static_cast<double>(elements(query)) * columns);
}

// Keys and values are of the memory too, the distances' keys of one sample, and scores come twice.
Flops recurrent_attention_flops(const Operator& op, const Block& block, const Graph& graph) {
  const Shape& stream = shape_of(op.inputs.front(), block, graph);
  const Shape& out = shape_of(op.outputs.front(), block, graph);
  const auto batch = static_cast<double>(stream.at(0));
  const auto hidden = static_cast<double>(stream.at(2));
  const auto inner = static_cast<double>(out.at(2));
  const auto keys = static_cast<double>(shape_of(op.inputs.at(2), block, graph).front());
  const double projected = 2.0 * keys * hidden * inner * (3.0 * batch + 1.0);
  return Flops(projected + 6.0 * batch * static_cast<double>(stream.at(1)) * keys * inner);
}

// Every element of the result is a sum over the channels of its group and the kernel's window.
// A transposed one spreads every element of its input in the same way.
Flops conv_flops(const Operator& op, const Block& block, const Graph& graph) {
  const TensorRef spread = op.transposed ? op.inputs.front() : op.outputs.front();
  const Shape& out = shape_of(spread, block, graph);
  const bool normed = op.kind == OperatorKind::normed_conv;
  // A weight that the graph computes is an input.
  const bool computed = !normed && op.inputs.size() > 1;
  const Shape& kernel =
      computed ? shape_of(op.inputs[1], block, graph)
               : block.weights.at(static_cast<std::size_t>(op.weights.at(normed ? 1 : 0))).shape;
  return Flops(2.0 * static_cast<double>(elements(out)) *
               static_cast<double>(elements(kernel) / kernel.front()));
}

// Each gate of each step: the input and the state before times a matrix each.
Flops recurrent_flops(const Operator& op, const Block& block, const Graph& graph) {
  const Shape& in = shape_of(op.inputs.front(), block, graph);
  double elements_of_matrices = 0.0;
  for (const std::int32_t index : op.weights) {
    const Weight& weight = block.weights.at(static_cast<std::size_t>(index));
    if (weight.shape.size() < 2) continue;
    elements_of_matrices += static_cast<double>(elements(weight.shape));
  }
  return Flops(2.0 * static_cast<double>(in.at(0) * in.at(1)) * elements_of_matrices);
}

// The router is a matrix product with all experts, the experts are two or three with the chosen
// ones.
Flops mixture_flops(const Operator& op, const Block& block, const Graph& graph) {
  const MixtureShape& mixture = op.mixture;
  const double values = static_cast<double>(elements(shape_of(op.inputs.front(), block, graph)));
  if (op.kind == OperatorKind::router) {
    return Flops(2.0 * values * static_cast<double>(mixture.experts));
  }
  // Gate and up may lie in one matrix of twice the width.
  const bool plain = !mixture.stacked() && !op.fused_gate_up &&
                     std::ssize(op.weights) * mixture.ranks == 2 * mixture.experts;
  return Flops((plain ? 4.0 : 6.0) * values * static_cast<double>(mixture.chosen) *
               static_cast<double>(mixture.intermediate));
}

// Recurrences as the models' own codes count them, 7 per channel and state (Megatron-LM
// training/training.py, mamba_layer_flops), and the projections that the operator holds.
Flops scan_flops(const Operator& op, const Block& block, const Graph& graph) {
  const Shape& in = shape_of(op.inputs.front(), block, graph);
  const double tokens = static_cast<double>(elements(in) / in.back());
  double flops = 7.0 * static_cast<double>(op.scan.channels()) * static_cast<double>(op.scan.state);
  for (const std::int32_t index : op.weights) {
    const Weight& weight = block.weights.at(static_cast<std::size_t>(index));
    if (weight.role == WeightRole::matrix) {
      flops += 2.0 * static_cast<double>(elements(weight.shape));
    }
  }
  return Flops(tokens * flops);
}

}  // namespace

std::int64_t elements(const Shape& shape) {
  std::int64_t product = 1;
  for (std::int64_t extent : shape) product = checked_multiply(product, extent);
  return product;
}

Parameters parameter_count(const Block& block) {
  Parameters sum;
  for (const Weight& weight : block.weights) {
    if (weight.tied_to.empty()) sum += Parameters(elements(weight.shape));
  }
  return sum;
}

Parameters parameter_count(const Graph& graph) {
  Parameters sum;
  for (const Segment& segment : graph.segments) {
    for (const Block& block : segment.blocks) sum += parameter_count(block) * segment.repeat;
  }
  return sum;
}

Parameters active_parameter_count(const Graph& graph) {
  Parameters sum = parameter_count(graph);
  for (const Segment& segment : graph.segments) {
    for (const Block& block : segment.blocks) {
      for (const Operator& op : block.operators) {
        if (op.kind != OperatorKind::experts) continue;
        std::int64_t held = 0;
        for (std::int32_t weight : op.weights) {
          if (weight < 0) continue;
          held += elements(block.weights.at(static_cast<std::size_t>(weight)).shape);
        }
        const std::int64_t idle = op.mixture.experts - op.mixture.chosen;
        sum -= Parameters(held / op.mixture.experts * idle) * segment.repeat;
      }
    }
  }
  return sum;
}

bool is_loss(OperatorKind kind) {
  return kind == OperatorKind::causal_lm_loss || kind == OperatorKind::classification_loss ||
         kind == OperatorKind::binary_loss || kind == OperatorKind::masked_lm_loss ||
         kind == OperatorKind::span_loss || kind == OperatorKind::squared_loss ||
         kind == OperatorKind::multibox_loss || kind == OperatorKind::outputs_loss ||
         kind == OperatorKind::contrastive_loss || kind == OperatorKind::ctc_loss ||
         kind == OperatorKind::alignment_loss;
}

Flops forward_flops(const Operator& op, const Block& block, const Graph& graph) {
  switch (op.kind) {
    case OperatorKind::linear:
    case OperatorKind::matmul: return linear_flops(op, block, graph);
    case OperatorKind::recurrent: return recurrent_flops(op, block, graph);
    case OperatorKind::attention: return attention_flops(op, block, graph);
    case OperatorKind::recurrent_attention: return recurrent_attention_flops(op, block, graph);
    case OperatorKind::conv:
    case OperatorKind::normed_conv: return conv_flops(op, block, graph);
    case OperatorKind::pairwise_products: {  // every vector with every one, as one product of
                                             // matrices
      const double vectors = static_cast<double>(op.groups);
      const Shape& in = shape_of(op.inputs.front(), block, graph);
      return Flops(2.0 * vectors * static_cast<double>(elements(in)));
    }
    case OperatorKind::disentangled_attention: return disentangled_flops(op, block, graph);
    case OperatorKind::router:
    case OperatorKind::experts: return mixture_flops(op, block, graph);
    case OperatorKind::state_scan:
    case OperatorKind::delta_rule:
    case OperatorKind::selective_scan: return scan_flops(op, block, graph);
    default: return Flops();
  }
}

Flops forward_flops(const Graph& graph) {
  Flops sum;
  for (const Segment& segment : graph.segments) {
    Flops once;
    for (const Block& block : segment.blocks) {
      for (const Operator& op : block.operators) once += forward_flops(op, block, graph);
    }
    sum += once * static_cast<double>(segment.repeat);
  }
  return sum;
}

}  // namespace steelyard::model
