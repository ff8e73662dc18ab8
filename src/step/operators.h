// The model's composite operators written down as the statements of their eager PyTorch code.
#pragma once

#include <vector>

#include "model/graph.h"
#include "step/primitives_quantized.h"
#include "step/tape.h"
#include "step/variants.h"

namespace steelyard::step {

struct OperatorCall {
  const model::Operator* op = nullptr;
  const model::Graph* graph = nullptr;
  const Variants* variants = nullptr;
  // Causal mask of the model's own attention code, [S,S]; made once per forward pass and shared.
  Tensor mask;
  Tensor labels;  // of the batch [B,S]; an empty handle where nobody made them
  std::vector<Tensor> inputs;
  std::vector<model::Shape> input_shapes;
  std::vector<model::Shape> output_shapes;
  std::vector<const model::TensorInfo*> outputs;  // the same, whole; where the graph has them
  std::vector<Tensor> weights;                    // empty handles where the operator has none
  std::vector<model::Shape> weight_shapes;
  // How the matrix of a linear is held.
  Quantized quantization;
  bool reads_attention = false;  // its input is the result of attention
  // What the operator's Python variables still hold when it returns, where the caller asks for it.
  std::vector<Tensor>* variables = nullptr;
  // Takes what scripted code keeps, where that outlives the backward pass; null: its node keeps it.
  std::vector<Tensor>* captured = nullptr;
  bool recomputed = false;  // attention: its inputs are kept, and it runs again before its backward
  bool recomputes_activation = false;  // experts: theirs runs again
  bool activated = false;  // gated_activation: the first input went through early_activation
};

// The first half of a gated activation, act(gate): models write act(gate(x)) * up(x), so it runs
// before the other projection, and the gate's own projection is a temporary of that expression.
[[nodiscard]] Tensor early_activation(Tape& tape, const model::Operator& op, Tensor gate);

// Whether the operator's code is a TorchScript function (GeluCode::scripted_erf).
[[nodiscard]] bool is_scripted(const Variants& variants, const model::Operator& op);
// How many tensors of its result's size that function keeps for backward.
constexpr std::int64_t kScriptedGeluKeeps = 3;

// Runs one operator; one tensor per output of the graph's operator, and behind the loss the logits
// that the model returns. Releases nothing the caller holds.
[[nodiscard]] std::vector<Tensor> run_operator(Tape& tape, OperatorCall call);

// The model's activation function as its own code writes it.
[[nodiscard]] Tensor activation(Tape& tape, model::ActivationKind kind, Tensor x);

}  // namespace steelyard::step
