// A model as a graph of operators with shapes, built once from the model's own configuration.
//
// The graph is compact: a layer that repeats 80 times is one block with a count. Operators are
// those of the model's own code ("rms_norm", "attention"), not of a framework; what a framework
// keeps of them for the backward pass is decided in `step`.
//
// Shapes are concrete for one micro-batch: B samples of S tokens, or of [C,h,w] pictures. They are
// element counts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/quantity.h"

namespace steelyard::model {

using Shape = std::vector<std::int64_t>;

[[nodiscard]] std::int64_t elements(const Shape& shape);  // 1 for a scalar; overflow-checked

// `token_ids` stands for every int64 of the batch (ids, labels, time steps), `pixels` for its
// pictures; both exist before the step. `index` is an int64 that the model itself computes.
enum class ElementKind { real, token_ids, boolean, pixels, index };

struct TensorInfo {
  std::string name;
  Shape shape;
  ElementKind kind = ElementKind::real;
};

// A tensor: one of the block's own, or one that all blocks share (rotary tables).
struct TensorRef {
  bool shared = false;
  std::int32_t index = -1;  // -1: none
};

enum class WeightRole { matrix, embedding, norm, bias, other };

struct Weight {
  // As in the model's state dict. In a block of layers relative to the layer, so that layer i holds
  // "model.layers.<i>.self_attn.q_proj.weight"; in "embed" and "head" complete: "lm_head.weight".
  std::string name;
  Shape shape;  // as stored: [out,in] for a linear, [in,out] for GPT-2's Conv1D
  WeightRole role = WeightRole::matrix;
  std::string tied_to;  // full name of the weight whose storage it shares; not counted again
  // Set by the training method (step/adapters.h); the model itself trains all of its weights.
  bool trains = true;      // false: frozen, no gradient and no optimizer state
  bool adapter = false;    // of a low-rank adapter beside a linear
  bool quantized = false;  // held in the job's quantized form
  bool expert = false;     // of one expert: expert-parallel ranks hold different ones
  bool fp8 = false;        // read by products in fp8 (step/fp8.h)
};

enum class OperatorKind {
  embedding,           // in: ids [B,S]; weight [V,H]; out: [B,S,H]
  position_embedding,  // out: [1,S,H], or [B,S,H] (OPT), from a learned table; no tensor input
  linear,              // in: [..., K]; weights: matrix (K*N), perhaps bias [N]; out: [..., N]
  layer_norm,          // in: [..., H]; weights: of role norm, then bias; either may lack
  rms_norm,            // in: [..., H]; weight
  rotary_table,        // out: cos, sin [1,S,R]
  rotary,              // in: q [B,nh,S,d], k, cos, sin; out: q, k
  split,               // in: fused projection; out: its parts, views of the one storage
  heads,               // in: [B,S,n*d]; out: [B,n,S,d] (a view)
  // Multi-latent attention, c dimensions of a head without position and r with it, values of v.
  // in: q [B,S,n*(c+r)], keys and values [B,S,n*(c+v)], key positions [B,S,r] of all heads, cos;
  // out: q, k [B,n,S,c+r], v [B,n,S,v]
  latent_heads,
  attention,         // in: q [B,nh,S,d], k, v [B,nkv,S,d]; out: [B,S,nh*d]; perhaps weight [nh]
  activation,        // in, out: [..., F]
  gated_activation,  // in: gate, up (or one fused tensor); out: act(gate) * up
  add,               // in: a, b; out: a + b (broadcast)
  scale,             // in * constant
  dropout,
  softcap,  // c * tanh(in / c)
  // Where a projection leaves its bias to the operator behind it (Megatron's skip_bias_add):
  bias_activation,   // in: [..., F]; weight: bias or none; out: act(in + bias), gated: [..., F/2]
  bias_dropout_add,  // in: x, residual; weight: bias or none; out: residual + dropout(x + bias)
  causal_lm_loss,    // in: logits [B,S,V]; out: scalar
  // Between the ranks of a tensor-parallel group; no model has them, `step` puts them in.
  copy_to_ranks,     // forward: nothing; backward: the gradients of all ranks are summed
  sum_over_ranks,    // forward: partial results are summed; backward: nothing
  gather_sequence,   // in: [B,S/t,H]; out: [B,S,H]; backward: sums and scatters
  scatter_sequence,  // in: partial [B,S,H]; out: the sum's own part [B,S/t,H]; backward: gathers

  // Encoders and pictures. Pictures are [B,C,h,w].
  padding_mask,         // in: attention mask [B,S] of the batch; out: what is added, [B,1,1,S]
  view,                 // the same storage under another shape; `transposed`: not contiguous
  contiguous,           // a copy where the storage does not lie in the order of its shape
  first_token,          // in: [B,S,H]; out: its first token [B,H], a view
  class_token,          // in: [B,P,H]; weights: [1,n,H]; out: [B,P+n,H]
  add_weight,           // in: x; weight of x's last dimensions; out: x + weight
  conv,                 // weights: [O,C/groups,kh,kw], perhaps bias [O]; out: [B,O,h',w']
  batch_norm,           // weights: gamma, beta [C]
  group_norm,           // weights: gamma, beta [C]
  max_pool,             // out: [B,C,h',w']
  global_average_pool,  // out: [B,C]
  upsample,             // nearest; out: [B,C,h',w']
  concatenate,          // in: a [B,C,h,w], b [B,D,h,w]; out: [B,C+D,h,w]
  timestep_embedding,   // in: time steps [B]; out: sines and cosines [B,C]

  // Mixture of experts: T tokens choose k of E experts.
  router,             // in: [B,S,H]; weight [E,H]; out: weights [T,k], experts [T,k] (index)
  expert_assignment,  // in: experts [T,k]; out: for each expert its slots and tokens [n] (index)
  experts,            // in: x, weights, slots and tokens of each; weights: w1, w2, w3 of each

  // Linears with low-rank adapters as one autograd function; `step` puts them in. Weights: of each
  // linear its matrix, its bias or -1, A and B.
  adapted_linears,  // in: x; out: one of each
  adapted_mlp,      // in: x; gate, up, down; out: down(act(gate(x)) * up(x))

  // Operators of graphs from files (ONNX), which no module gives a further meaning.
  parameter,     // no input; weights, several lie one behind the other; out: their values
  constant,      // no input; out: values that do not train, made anew in every forward pass
  unary,         // in: x; out: as many elements; `saves`
  binary,        // in: a, b; out: their broadcast; `arithmetic`
  select,        // in: condition, a, b; out: their broadcast
  reduce,        // in: x; out: one element for each row; `saves`
  softmax,       // in, out: rows of any dimension
  matmul,        // in: a [n,M,K], b [n,K,N]; out: [n,M,N]; n of several dimensions
  slice,         // in: x; out: a part, a view
  expand,        // in: x; out: x repeated along dimensions of 1, a view
  pad,           // in: x; out: x in a larger tensor
  average_pool,  // in: [B,C,...]; out: [B,C,...]
  gather,        // in: x, perhaps indices; out: elements of x
  scatter,       // in: x, updates, perhaps indices; out: alike x
  top,           // in: x; out: values, indices
  recurrent,     // in: x [S,B,I]; weights; out: all states, then the last ones; `groups`: gates
  // in: the outputs, labels [N] of the first behind them where `groups` is 2; out: scalar
  outputs_loss,

  classification_loss,  // in: logits [N,C], labels [N]; out: scalar
  masked_lm_loss,       // in: logits [B,S,V], labels [B,S]; out: scalar
  span_loss,            // in: logits [B,S,2], first and last positions [B]; out: scalar
  squared_loss,         // in: prediction, target; out: scalar
};

// What an operator's derivative reads (unary, reduce).
enum class Saves { nothing, input, output, both };

// Of two operands (binary). `choose`: the larger or smaller one; `compare`: has no derivative.
enum class ArithmeticKind { add, multiply, divide, power, choose, compare };

enum class ActivationKind {
  gelu,
  gelu_new,
  gelu_tanh,
  gelu_fast,
  bloom_gelu,
  quick_gelu,
  silu,
  relu,
  tanh,
  squared_relu  // relu(x)^2
};

// How an attention reads its past.
struct AttentionShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t value_dim = 0;  // of a value's head; 0: head_dim
  bool causal = true;
  std::int64_t window = 0;  // sliding window in tokens; 0: all of the past
  bool alibi = false;       // adds a bias per head and distance
  double softcap = 0.0;     // 0: none
  double dropout = 0.0;
  bool softmax_in_fp32 = false;  // the model's own code asks for it (llama, mistral, ...)
  // Ranks over which the keys and values are spread (context parallel): this one holds 1/context.
  std::int64_t context = 1;
  // How the model's own eager code masks: masked positions chosen by `where` (gpt2) or an additive
  // mask (llama).
  bool masks_by_where = false;
  // The model's own code hands keys and values back as a cache in training, even under
  // recomputation, where the other models switch it off (gpt_bigcode).
  bool returns_cache = false;
  // The family's own code for the flash kernel copies keys and values to every query head, as all
  // of them did for the other kernels until transformers had one attention function (4.48).
  bool repeats_for_flash = false;
  bool padding_mask = false;  // eager code adds a mask of padded tokens, the fourth input
  // The eager code casts the probabilities back before their dropout (not BERT's).
  bool casts_probabilities = true;
};

// Experts of a layer. Tokens are taken as spread evenly: n of an expert is T*k/E.
struct MixtureShape {
  std::int64_t experts = 0;
  std::int64_t chosen = 0;        // k, of each token
  std::int64_t intermediate = 0;  // feed-forward width of one expert
  // Set by `step` (expert_parallel.h): ranks that the experts are spread over, and ranks that split
  // each expert's features. The block then holds 1/ranks of the experts.
  std::int64_t ranks = 1, feature_ranks = 1;
};

struct Operator {
  OperatorKind kind = OperatorKind::add;
  std::string name;  // relative to the block: "self_attn.q_proj"
  std::vector<TensorRef> inputs;
  std::vector<TensorRef> outputs;
  std::vector<std::int32_t> weights;  // indices into Block::weights, in the order of the kind

  AttentionShape attention;                          // attention
  ActivationKind activation = ActivationKind::silu;  // activation, gated_, bias_activation
  double probability = 0.0;                          // dropout, bias_dropout_add
  std::int64_t rotary_dims = 0;  // rotary, latent_heads: dimensions of a head that turn
  bool unit_offset = false;      // rms_norm: multiplies by (1 + weight)
  bool scales_wide = false;      // rms_norm: multiplies by the weight in fp32, then casts back
  bool wide_tables = false;      // rotary, rotary_table: fp32 tables, what turned is cast back
  bool joins_rest = false;       // rotary: joined with what does not turn, though nothing is left
  // split: the parts behind the first are taken by index, into tensors of their own.
  bool gathers_parts = false;
  bool fused_gate_up = false;  // gated_, bias_activation: one input holds both
  bool replicated = false;     // linear: tensor-parallel ranks hold all of it, each for its tokens
  bool inside_next = false;    // norms: a part of the linear behind (Transformer Engine)
  double constant = 0.0;       // scale, softcap
  // causal_lm_loss: the model's own code, before transformers had one loss for all models, takes
  // fp32 logits (llama) or leaves them in their type (gpt2).
  bool widens_logits = true;
  // linear with a low-rank adapter: weights are the matrix, its bias or -1, A [rank,K], B. An
  // adapter of some parts of a fused projection puts out fewer columns than N, padded with zeros.
  std::int64_t adapter_rank = 0;     // 0: none
  std::int64_t adapter_outputs = 0;  // columns
  double adapter_dropout = 0.0;
  MixtureShape mixture;     // router, expert_assignment, experts
  std::int64_t groups = 1;  // conv, group_norm
  bool in_place = false;    // activation, add: into the first input
  // The result is not contiguous: view, unary, binary. conv: the transposed one, whose weights are
  // [C,O/groups,...].
  bool transposed = false;
  Saves saves = Saves::nothing;
  ArithmeticKind arithmetic = ArithmeticKind::add;
  bool wide = false;  // unary, binary, reduce: autocast runs it in fp32
};

struct Block {
  // "embed", then the prefix of a layer ("model.layers", "transformer.h"), then "head".
  std::string name;
  std::vector<Weight> weights;
  std::vector<TensorInfo> buffers;  // live beside the weights, are not trained: running statistics
  std::vector<TensorInfo> tensors;
  std::vector<Operator> operators;
  TensorRef input;   // from the block before; index -1 in the first
  TensorRef output;  // to the block after; the loss in the last
};

// Blocks that repeat as a sequence: 32 x {layer}, 21 x {sliding layer, full layer}.
struct Segment {
  std::int64_t repeat = 1;
  std::vector<Block> blocks;
};

struct Graph {
  std::string name;
  std::string model_type;
  std::int64_t batch = 1;     // samples in the micro-batch
  std::int64_t sequence = 1;  // tokens per sample
  std::int64_t vocabulary = 0;
  std::int64_t hidden = 0;
  std::int64_t layers = 0;
  std::int64_t max_sequence = 0;  // the configuration's own limit; 0 when it has none
  // Pictures instead of text: their size in pixels as the data set holds them; 0 for text, whose
  // samples have `sequence` tokens. A picture counts as a sequence of 1.
  std::int64_t image_height = 0, image_width = 0;
  std::vector<TensorInfo> batch_tensors;  // what the loader puts on the GPU
  std::vector<TensorInfo> shared;
  std::vector<Segment> segments;
};

// All weights of the model, tied ones once.
[[nodiscard]] Parameters parameter_count(const Graph& graph);
// Those of one block, tied ones not counted.
[[nodiscard]] Parameters parameter_count(const Block& block);

// Without the experts that a token does not choose.
[[nodiscard]] Parameters active_parameter_count(const Graph& graph);

// An operator whose first input are the logits (or the prediction) and whose output is the loss.
[[nodiscard]] bool is_loss(OperatorKind kind);

// Arithmetic of one forward pass of the whole micro-batch: multiply-adds count two; only matrix
// multiplications, convolutions and attention, as MFU counts. Causal attention counts half of the
// scores; of the experts only the chosen ones count.
[[nodiscard]] Flops forward_flops(const Graph& graph);
[[nodiscard]] Flops forward_flops(const Operator& op, const Block& block, const Graph& graph);

}  // namespace steelyard::model
