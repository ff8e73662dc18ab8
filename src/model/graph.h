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

  friend bool operator==(const TensorInfo&, const TensorInfo&) = default;
};

// A tensor: one of the block's own, or one that all blocks share (rotary tables).
struct TensorRef {
  bool shared = false;
  std::int32_t index = -1;  // -1: none

  friend bool operator==(const TensorRef&, const TensorRef&) = default;
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
  // Elements of its gradient for one micro-batch where it holds only rows that were read; 0: all.
  std::int64_t touched = 0;
  // Set by step/embedding_placement.h: of one rank alone, no other holds the same; elements in host
  // memory, `shape` is then what the GPU holds.
  bool placed = false;
  std::int64_t host_elements = 0;
  // Of a part whose result nothing reads: it counts as trained, and never gets a gradient.
  bool unread = false;

  friend bool operator==(const Weight&, const Weight&) = default;
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
  // out: q, k [B,n,S,c+r], v [B,n,S,v]. With cos and sin: the model's own tables.
  latent_heads,
  attention,         // in: q [B,nh,S,d], k, v [B,nkv,S,d]; out: [B,S,nh*d]; perhaps weight [nh]
  activation,        // in, out: [..., F]
  gated_activation,  // in: gate, up (or one fused tensor); out: act(gate) * up
  add,               // in: a, b; out: a + b (broadcast)
  widen,             // in: x; out: x in fp32
  narrow,            // in: x; out: x in the type of the weights
  scale,             // in * constant
  dropout,
  softcap,  // c * tanh(in / c)
  clamp,    // cut off at both ends
  jitter,   // x times random factors near 1, where it lies
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
  average_pool,         // of windows, or to a given size; out: [B,C,h',w']
  global_average_pool,  // out: [B,C] or [B,C,1,1]; of tokens [B,S,H]: [B,H]
  upsample,             // nearest or bilinear; out: [B,C,h',w']
  concatenate,          // in: one or more that differ in channels or length; out: all of them
  timestep_embedding,   // in: time steps [B]; out: sines and cosines [B,C]
  multiply,             // in: a, b; out: a * b (broadcast)
  multiply_weight,      // in: x; weight [C] or [H]; out: x * weight
  drop_path,            // whole samples are zeroed, the others scaled
  roll,                 // a copy with the rows and columns turned round
  pad,                  // zeros around, or what lies beyond cut off
  match_boxes,          // out: x; meanwhile `constant` bytes for each of `groups` pairs of boxes
  window_bias,          // weight [rows,n] looked up for each pair of tokens; out: [1,n,S,S]

  // Sound.
  normed_conv,  // as conv, its matrix g * v / |v|; weights: g [1,1,k], v [O,C/groups,k], bias [O]
  // in: x [B,T,H], what of it counts [B,T]; weights: perhaps [H], what stands in the place of
  // masked tokens; out: x, written over in place, or multiplied
  mask_tokens,

  // Encoder-decoders. A tensor that the encoder makes for all blocks of the decoder is shared; its
  // gradient is the sum of theirs.
  relative_bias,  // no input; weight [buckets,n], or none: zeros; out: [1,n,Q,K], of each distance
  add_buffer,     // in: x; out: x + a buffer of x's last dimension

  // Transformer-XL. in: x [B,S,H], memory [B,M,H] of the step before, distances [M+S,H] (sines);
  // weights: of q, k and v together [3*n*d,H], of the distances [n*d,H], two biases [n,d];
  // out: [B,S,n*d]
  recurrent_attention,
  // DeBERTa-v2. in: q, k, v [B,n,S,d], then keys and perhaps queries of the distances [1,n,2A,d];
  // out: [B,S,n*d]
  disentangled_attention,

  // Diffusion transformers. A stream that the model's code holds as two tensors, text and picture,
  // is one here: [B,S,H], the tokens of both.
  modulate,   // in: x [B,S,H], scale and shift [B,H]; out: x * (1 + scale) + shift
  add_parts,  // in: x [B,S,H], its parts by tokens; out: x + the parts, side by side

  // Pictures beside text. Of n pictures with P tokens each:
  merge_pictures,   // in: text [B,S,H], features of n*P tokens, ids [B,S]; out: [B,S,H]
  rotary_sections,  // in: cos, sin [3,B,S,R]; out: cos, sin [B,S,R], pieces of the three
  unit_length,      // in: x [B,D]; out: x / |x|
  // A query of its own reads all tokens (torch.nn.MultiheadAttention). in: x [B,P,H]; weights:
  // query [1,1,H], of q, k and v together [3H,H] and its bias, of the result [H,H] and its bias
  probe_attention,  // out: [B,1,H]

  // Mixture of experts: T tokens choose k of E experts.
  router,             // in: [B,S,H]; weight [E,H]; out: weights [T,k], experts [T,k] (index)
  expert_assignment,  // in: experts [T,k]; out: for each expert its slots and tokens [n] (index)
  experts,            // in: x, weights, slots and tokens of each; weights: w1, w2, w3 of each

  // State-space mixers (ScanShape). D = heads x head_dim channels, G groups, N states, W taps.
  // Mamba-2: in: gate, x, B, C and dt of every token [B,S,2D+2GN+heads]; weights: convolution
  // [D+2GN,1,W], its bias, dt_bias, A_log, D [heads], and where the kernel also norms and projects
  // norm [D], out [H,D]; out: [B,S,D] or [B,S,H]
  state_scan,
  // Mamba-1: in: x and gate [B,S,2D]; weights: convolution [D,1,W], its bias, x_proj [R+2N,D],
  // dt_proj [D,R] and its bias, A_log [D,N], D [D], out_proj [H,D]; out: [B,S,H]
  selective_scan,
  // Gated delta rule of n heads of v dimensions, m of keys of N (scan.groups, scan.state): in:
  // queries, keys, values and gates [B,S,2mN+2nv], then b and a [B,S,2n], or four apart: queries,
  // keys and values, gates, b, a; weights: convolution [2mN+nv,1,W], dt_bias, A_log [n], norm [v];
  // out: [B,S,nv]
  delta_rule,

  // Multi-token prediction
  join,             // in: tensors alike but for one dimension; out: one after another along it
  gather_features,  // in: a rank's features [B,S,H/t]; out: all of them, of its own tokens
  attach_loss,      // in: x, a further loss; out: x; backward: the loss begins here too

  // Linears with low-rank adapters as one autograd function; `step` puts them in. Weights: of each
  // linear its matrix, its bias or -1, A and B.
  adapted_linears,  // in: x; out: one of each
  adapted_mlp,      // in: x; gate, up, down; out: down(act(gate(x)) * up(x))

  // Recommendation: categorical features as vectors of tables.
  embedding_tables,   // in: ids of all features [B,sum of pooling]; weights: tables [rows,D]; out:
                      // of each table the sums over its ids [B,D]
  exchange_tables,    // in: of own tables, samples of all ranks; out: own samples, all tables;
                      // `step` puts it in (embedding_placement.h)
  join_features,      // in: [B,a], [B,b], ...; out: [B,a+b+...]
  pairwise_products,  // in: n vectors side by side [B,n*D]; out: of each pair [B,n(n-1)/2]

  // Operators of graphs from files (ONNX), which no module gives a further meaning.
  parameter,  // no input; weights, several lie one behind the other; out: their values
  constant,   // no input; out: values that do not train, made anew in every forward pass
  unary,      // in: x; out: as many elements; `saves`
  binary,     // in: a, b; out: their broadcast; `arithmetic`
  select,     // in: condition, a, b; out: their broadcast
  reduce,     // in: x; out: one element for each row; `saves`
  softmax,    // in, out: rows of any dimension
  matmul,     // in: a [n,M,K], b [n,K,N]; out: [n,M,N]; n of several dimensions
  slice,      // in: x; out: a part, a view
  expand,     // in: x; out: x repeated along dimensions of 1, a view
  gather,     // in: x, perhaps indices; out: elements of x
  scatter,    // in: x, updates, perhaps indices; out: alike x
  top,        // in: x; out: values, indices
  recurrent,  // in: x [S,B,I]; weights; out: all states, then the last ones; `groups`: gates
  // in: the outputs, labels [N] of the first behind them where `groups` is 2; out: scalar
  outputs_loss,
  classification_loss,  // in: logits [N,C], labels [N]; out: scalar
  binary_loss,          // in: logits [N,1], labels [N]; out: scalar
  masked_lm_loss,       // in: logits [B,S,V], labels [B,S]; out: scalar
  span_loss,            // in: logits [B,S,2], first and last positions [B]; out: scalar
  squared_loss,         // in: prediction, target; out: scalar
  // in: text and picture features [B,D]; weights: logarithm of a scale [], perhaps a bias [];
  // out: scalar. With a bias each pair is a sigmoid of its own (SigLIP).
  contrastive_loss,
  ctc_loss,  // in: logits [B,T,V], labels [B,L]; out: scalar
  // Boxes of fixed places: in: offsets [B,4,N], logits [B,C,N], boxes and classes; out: scalar
  multibox_loss,

  // Generation: keys or values of a token join those before it. in: [B,n,1,d]; out: [B,n,S,d]
  cached,
  // Preference and reinforcement learning. The logarithm of each next token's probability:
  log_probabilities,  // in: logits [B,S,V]; out: [B,S]
  alignment_loss,     // in: log-probabilities, values or scores, few elements; out: scalar
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
  sigmoid,
  squared_relu,  // relu(x)^2
  xielu,         // with two weights [1] (Apertus)
  relu6,         // relu cut off at 6
  hardswish,
  hardsigmoid,
};

// How an attention reads its past.
struct AttentionShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t value_dim = 0;  // of a value's head; 0: head_dim
  bool causal = true;
  // Queries, keys and values lie in memory token by token, and the result is wanted so
  // (torch.nn.MultiheadAttention).
  bool tokens_first = false;
  std::int64_t window = 0;  // sliding window in tokens; 0: all of the past
  std::int64_t chunk = 0;   // tokens see those of their own chunk of so many (Llama 4); 0: all
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
  // T5: no other code than the model's own; scores are not scaled, take a learned bias (the fourth
  // input, [B,n,Q,K]) in place and are widened by a copy of their own.
  bool learned_bias = false;
  bool scales_queries = false;  // the eager code scales queries, not scores (BART)
  // returns_cache, but not where layers run again in backward (T5).
  bool drops_cache_recomputing = false;
  // The model's own code has no fused kernel, whatever the job asks for (Swin).
  bool always_eager = false;
  // Its kernel is PyTorch's: the flash one wants values as wide as keys (sdp_utils_cpp.h,
  // check_head_dim_size_flash), the memory-efficient one does not.
  bool one_width = false;
  // The fourth input is a learned bias of the scores; a padding_mask then comes on top of it.
  bool bias = false;
  // The row holds so many sequences, one behind the other, each of which reads itself alone
  // (Qwen2-VL's pictures); eager code computes the whole square and masks it. 0: no such row.
  std::int64_t packed = 0;

  friend bool operator==(const AttentionShape&, const AttentionShape&) = default;
};

// How a router turns logits [T,E] into the weights of the k chosen.
enum class Routing {
  softmax_normalised,  // softmax over all, the chosen ones divided by their sum (Mixtral)
  softmax,             // softmax over all, as they are (OLMoE, DeepSeek-V2)
  softmax_of_chosen,   // the chosen logits, then their softmax (Granite, gpt-oss)
  sigmoid_normalised,  // sigmoid of all, chosen with a correction and by groups (DeepSeek-V3)
  sigmoid,             // the same, as they are
  sigmoid_of_chosen,   // the chosen logits, then the sigmoid of each (Llama 4)
  softmax_corrected,   // softmax over all, chosen with a correction, divided by their sum (ERNIE)
};

// The model's own code of the experts.
enum class ExpertCode {
  loop,      // each expert gathers its tokens and adds its results back by index
  parallel,  // tokens sorted by expert, split, multiplied, joined (Granite's ParallelExperts)
  sorted,    // the same with modules of their own, results put back by index (DeepSeek-V2)
  selected,  // a loop; each expert's matrices and biases are parts of one weight (gpt-oss)
  chunked,   // a loop; the weights of all are cut apart before it (DBRX)
  dense,     // every expert sees every token, in batched products (Llama 4)
};

// Experts of a layer. Tokens are taken as spread evenly: n of an expert is T*k/E.
struct MixtureShape {
  std::int64_t experts = 0;
  std::int64_t chosen = 0;        // k, of each token
  std::int64_t intermediate = 0;  // feed-forward width of one expert
  Routing routing = Routing::softmax_normalised;
  ExpertCode code = ExpertCode::loop;
  double weight_scale = 0.0;  // the weights times this (DeepSeek's routed_scaling_factor); 0: none
  bool wide_router = false;   // logits in fp32: input and matrix are widened (DeepSeek)
  std::int64_t groups = 0;    // of experts, between which the choice is made first; 0: none
  bool router_bias = false;
  // Set by `step` (expert_parallel.h): ranks that the experts are spread over, and ranks that split
  // each expert's features. The block then holds 1/ranks of the experts.
  std::int64_t ranks = 1, feature_ranks = 1;

  // One weight holds a matrix of all experts.
  [[nodiscard]] bool stacked() const {
    return code != ExpertCode::loop && code != ExpertCode::sorted;
  }
  friend bool operator==(const MixtureShape&, const MixtureShape&) = default;
};

// A state-space mixer of one layer.
struct ScanShape {
  std::int64_t heads = 0;  // Mamba-1: every channel is one
  std::int64_t head_dim = 1;
  std::int64_t groups = 1;     // heads / groups share one B and one C
  std::int64_t state = 0;      // N
  std::int64_t chunk = 0;      // tokens whose products are matrices; 0: token by token (Mamba-1)
  std::int64_t time_rank = 0;  // R of Mamba-1
  // Its tokens lie [S,B,...]: copied where there are several samples (Megatron-LM).
  bool tokens_first = false;
  // Mamba-1 with norms of dt, B and C: its kernels run one by one (Jamba).
  bool apart = false;

  [[nodiscard]] std::int64_t channels() const { return heads * head_dim; }
  friend bool operator==(const ScanShape&, const ScanShape&) = default;
};

struct Operator {
  OperatorKind kind = OperatorKind::add;
  std::string name;  // relative to the block: "self_attn.q_proj"
  std::vector<TensorRef> inputs;
  std::vector<TensorRef> outputs;
  std::vector<std::int32_t> weights;  // indices into Block::weights, in the order of the kind

  AttentionShape attention;                          // attention
  ActivationKind activation = ActivationKind::silu;  // activation, gated_, bias_activation
  double probability = 0.0;                          // dropout, drop_path, bias_dropout_add
  std::int64_t rotary_dims = 0;  // rotary, latent_heads: dimensions of a head that turn
  bool unit_offset = false;      // rms_norm: multiplies by (1 + weight)
  bool scales_wide = false;      // rms_norm: multiplies by the weight in fp32, then casts back
  // rms_norm: the input in its own type times the fp32 root (T5); multiply: b in the type of a.
  bool keeps_narrow = false;
  bool wide_tables = false;  // rotary (and its table), multiply, constant: in fp32, then cast back
  bool joins_rest = false;   // rotary: joined with what does not turn, though nothing is left
  // rotary: neighbours turn, computed in fp32, cast back (diffusers: apply_rotary_emb).
  bool turns_pairs = false;
  // rotary, latent_heads: neighbours turn as complex numbers in fp32 (DeepSeek-V2, Llama 4).
  bool turns_complex = false;
  bool turns_halves = false;  // rotary: the halves apart, by tables of half a head (gpt-oss)
  bool written_out = false;   // layer_norm: in fp32, operator by operator (Cohere)
  bool scales_input = false;  // rms_norm: the input, not its fp32 copy, is divided (diffusers)
  // split: parts that the model's code holds as tensors of their own.
  bool own_parts = false;
  // split: the parts behind the first are taken by index, into tensors of their own.
  bool gathers_parts = false;
  bool fused_gate_up = false;  // gated_, bias_activation: one input holds both
  bool replicated = false;     // linear: tensor-parallel ranks hold all of it, each for its tokens
  // linear: split by columns, and the rank's features are gathered again behind it.
  bool gathers_output = false;
  bool inside_next = false;  // norms: a part of the linear behind (Transformer Engine)
  double constant = 0.0;     // scale, softcap
  // causal_lm_loss: the model's own code, before transformers had one loss for all models, takes
  // fp32 logits (llama) or leaves them in their type (gpt2).
  bool widens_logits = true;
  // linear with a low-rank adapter: weights are the matrix, its bias or -1, A [rank,K], B. An
  // adapter of some parts of a fused projection puts out fewer columns than N, padded with zeros.
  std::int64_t adapter_rank = 0;     // 0: none
  std::int64_t adapter_outputs = 0;  // columns
  double adapter_dropout = 0.0;
  MixtureShape mixture;  // router, expert_assignment, experts
  ScanShape scan;        // state_scan, selective_scan, delta_rule
  // conv, group_norm; rms_norm: normed apart from each other; pairwise_products: vectors
  std::int64_t groups = 1;
  std::vector<std::int64_t> pooling = {};  // embedding_tables: ids of each table and sample
  bool sparse_gradients = false;           // embedding_tables: of the rows that were read
  bool sums_parts = false;                 // exchange_tables: each rank holds a part of the rows
  bool in_place = false;                   // activation, add: into the first input
  // view, unary, binary: the result is not contiguous; conv: a transposed one, whose weights are
  // [C,O/groups,...]
  bool transposed = false;
  Saves saves = Saves::nothing;
  ArithmeticKind arithmetic = ArithmeticKind::add;
  bool wide = false;  // unary, binary, reduce, masked_lm_loss: autocast (the model) runs it in fp32
  // log_probabilities: the caller holds the logits until it calls backward.
  bool outlives_forward = false;
  bool also_likelihood = false;  // log_probabilities: the first half of the samples has a loss too

  friend bool operator==(const Operator&, const Operator&) = default;
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

  friend bool operator==(const Block&, const Block&) = default;
};

// Blocks that repeat as a sequence: 32 x {layer}, 21 x {sliding layer, full layer}.
struct Segment {
  std::int64_t repeat = 1;
  std::vector<Block> blocks;
};

// Of every waveform that speech models read, in Hz.
constexpr std::int64_t kSamplingRate = 16'000;

struct Graph {
  std::string name;
  std::string model_type;
  std::int64_t batch = 1;             // samples in the micro-batch
  std::int64_t sequence = 1;          // tokens per sample
  std::int64_t decoder_sequence = 0;  // of an encoder-decoder's decoder; 0: no such model
  std::int64_t vocabulary = 0;
  std::int64_t hidden = 0;
  std::int64_t layers = 0;
  std::int64_t max_sequence = 0;  // the configuration's own limit; 0 when it has none
  // Pictures instead of text: their size in pixels as the data set holds them; 0 for text, whose
  // samples have `sequence` tokens. A picture counts as a sequence of 1.
  std::int64_t image_height = 0, image_width = 0;
  // Pictures of a sample beside its text, which then has `sequence` tokens; 0: text or pictures
  // alone. Of these tokens are `visual_tokens` the pictures' own, where they stand in the text.
  std::int64_t images = 0, visual_tokens = 0;
  // Rows of a table instead of both: bytes of one as stored, 4 per feature; 0 for the others.
  std::int64_t row_bytes = 0;
  std::int64_t frames = 0;  // of a video, as the data set holds them; 0: no video
  // Sound instead of text or pictures: samples of its waveform, kSamplingRate a second; 0: none.
  std::int64_t audio_samples = 0;
  // Whose code builds the model, where a framework treats it in a way of its own ("diffusers").
  std::string library;
  std::vector<TensorInfo> batch_tensors;  // what the loader puts on the GPU
  std::vector<TensorInfo> shared;
  std::vector<Segment> segments;
  // Segments behind the layers: the head, before it perhaps what predicts further tokens.
  std::int64_t tail = 1;
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
