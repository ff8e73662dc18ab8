#include "step/tensor_parallel.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace steelyard::step {

namespace {

using model::Block;
using model::Graph;
using model::Operator;
using model::OperatorKind;
using model::Shape;
using model::TensorRef;
using model::Weight;

enum class Placement { whole, sequence, features };

Error uneven(std::string what, std::int64_t count, std::int64_t ranks) {
  Error error;
  error.code = ErrorCode::impossible_combination;
  error.subject = "parallel.tensor";
  error.found = fmt::format("{} ranks for {} {}", ranks, count, what);
  error.accepted = fmt::format("a divisor of {}", count);
  error.hint = "change parallel.tensor";
  return error;
}

class Splitter {
 public:
  Splitter(const Graph& graph, const Block& block, std::int64_t ranks, bool sequence)
      : graph_(graph), source_(block), ranks_(ranks), sequence_(sequence) {
    placements_.assign(block.tensors.size(), Placement::whole);
    divisors_.assign(block.tensors.size(), ranks);
    result_ = block;
    result_.operators.clear();
  }

  Result<Block> run();

 private:
  void find_producers();
  void find_key_value_heads();
  void follow_heads(TensorRef ref, std::int64_t divisor);
  void add(const Operator& op);
  void add_embedding(Operator op);
  void add_position_embedding(Operator op);
  void add_linear(Operator op);
  void add_columns(Operator op);
  void add_gathered(Operator op);
  void add_rows(Operator op);
  void add_attention(Operator op);
  void add_latent_heads(Operator op);
  void add_scan(Operator op);
  void add_norm(Operator op);
  void add_bias_activation(Operator op);
  void add_plain(Operator op);
  void add_mixture(Operator op);
  void add_log_probabilities(Operator op);
  void add_whole_reader(Operator op);
  void add_next_scores(Operator op);
  void push(Operator op) { result_.operators.push_back(std::move(op)); }
  void insert(OperatorKind kind, const std::string& name, TensorRef in, TensorRef out);
  [[nodiscard]] TensorRef new_tensor(std::string name, Shape shape);
  [[nodiscard]] TensorRef whole_input(TensorRef ref, const std::string& name);
  [[nodiscard]] Placement placement(TensorRef ref) const {
    return ref.shared ? Placement::whole : placements_[static_cast<std::size_t>(ref.index)];
  }
  [[nodiscard]] Placement between() const {
    return sequence_ ? Placement::sequence : Placement::whole;
  }
  void place(TensorRef ref, Placement placement);
  [[nodiscard]] Shape& shape(TensorRef ref) {
    return result_.tensors[static_cast<std::size_t>(ref.index)].shape;
  }
  void divide(std::int64_t& extent, std::int64_t by, const char* what);
  void split_weight(std::int32_t index, std::int64_t from, std::int64_t to);

  const Graph& graph_;
  const Block& source_;
  std::int64_t ranks_;
  bool sequence_;
  Block result_;
  std::vector<Placement> placements_;              // by tensor
  std::vector<std::int64_t> divisors_;             // by tensor: of its features
  std::map<std::int32_t, std::size_t> producers_;  // tensor -> operator
  std::map<std::int32_t, std::int32_t> whole_of_;  // tensor between -> its gathered or copied form
  std::map<std::int32_t, std::int64_t> fused_;     // fused projections: local features
  std::optional<Error> error_;
};

void Splitter::divide(std::int64_t& extent, std::int64_t by, const char* what) {
  const bool padded = extent == graph_.vocabulary;  // the last rank's part is filled up
  if (extent % by != 0 && !padded && !error_) error_ = uneven(what, extent, by);
  extent = ceil_divide(extent, by);
}

void Splitter::find_producers() {
  for (std::size_t i = 0; i < source_.operators.size(); ++i) {
    for (TensorRef ref : source_.operators[i].outputs) {
      if (!ref.shared && ref.index >= 0) producers_[ref.index] = i;
    }
  }
}

// Keys and values of fewer heads than ranks are held by several ranks alike.
void Splitter::follow_heads(TensorRef ref, std::int64_t divisor) {
  while (!ref.shared && ref.index >= 0) {
    divisors_[static_cast<std::size_t>(ref.index)] = divisor;
    const auto made = producers_.find(ref.index);
    if (made == producers_.end()) return;
    const Operator& op = source_.operators[made->second];
    switch (op.kind) {
      case OperatorKind::rotary: ref = op.inputs[op.outputs[0].index == ref.index ? 0 : 1]; break;
      case OperatorKind::heads:
      case OperatorKind::rms_norm:
      case OperatorKind::layer_norm: ref = op.inputs[0]; break;
      default: return;
    }
  }
}

void Splitter::find_key_value_heads() {
  for (const Operator& op : source_.operators) {
    if (op.kind != OperatorKind::attention) continue;
    const std::int64_t kv = op.attention.kv_heads;
    if (kv % ranks_ != 0 && ranks_ % kv != 0 && !error_)
      error_ = uneven("key-value heads", kv, ranks_);
    for (const std::size_t input : {std::size_t{1}, std::size_t{2}}) {
      follow_heads(op.inputs[input], std::min(kv, ranks_));
    }
  }
  for (const Operator& op : source_.operators) {
    if (op.kind != OperatorKind::split) continue;
    std::int64_t local = 0;
    for (TensorRef part : op.outputs) {
      const auto index = static_cast<std::size_t>(part.index);
      local += source_.tensors[index].shape.back() / divisors_[index];
    }
    fused_[op.inputs[0].index] = local;
  }
}

// Gives a tensor its local shape.
void Splitter::place(TensorRef ref, Placement placement) {
  if (ref.shared || ref.index < 0) return;
  const auto index = static_cast<std::size_t>(ref.index);
  placements_[index] = placement;
  Shape& local = shape(ref);
  if (placement == Placement::sequence && local.size() >= 2) {
    divide(local[1], ranks_, "tokens");
  } else if (placement == Placement::features) {
    if (const auto fused = fused_.find(ref.index); fused != fused_.end()) {
      local.back() = fused->second;
    } else if (local.size() == 4) {
      divide(local[1], divisors_[index], "heads");
    } else {
      divide(local.back(), divisors_[index], "features");
    }
  }
}

TensorRef Splitter::new_tensor(std::string name, Shape local) {
  result_.tensors.push_back({std::move(name), std::move(local), model::ElementKind::real});
  placements_.push_back(Placement::whole);
  divisors_.push_back(ranks_);
  return {false, static_cast<std::int32_t>(result_.tensors.size()) - 1};
}

void Splitter::insert(OperatorKind kind, const std::string& name, TensorRef in, TensorRef out) {
  Operator op;
  op.kind = kind;
  op.name = name;
  op.inputs = {in};
  op.outputs = {out};
  push(std::move(op));
}

// What a linear split by columns reads: the residual stream of all tokens, made once for all that
// read it.
TensorRef Splitter::whole_input(TensorRef ref, const std::string& name) {
  const auto known = whole_of_.find(ref.index);
  if (known != whole_of_.end()) return {false, known->second};
  Shape whole = source_.tensors[static_cast<std::size_t>(ref.index)].shape;
  const bool gather = placement(ref) == Placement::sequence;
  const TensorRef out = new_tensor(name + " input", std::move(whole));
  insert(gather ? OperatorKind::gather_sequence : OperatorKind::copy_to_ranks, name, ref, out);
  whole_of_[ref.index] = out.index;
  return out;
}

// The extent `from` of a matrix, whichever side it is on, becomes `to`.
void Splitter::split_weight(std::int32_t index, std::int64_t from, std::int64_t to) {
  if (index < 0) return;
  Shape& local = result_.weights[static_cast<std::size_t>(index)].shape;
  const auto side = std::find(local.begin(), local.end(), from);
  if (side != local.end()) *side = to;
}

void Splitter::add_embedding(Operator op) {
  Shape& table = result_.weights[static_cast<std::size_t>(op.weights[0])].shape;
  table[0] = ceil_divide(table[0], ranks_);
  const TensorRef out = op.outputs[0];
  const TensorRef partial =
      new_tensor(op.name + " partial", source_.tensors[static_cast<std::size_t>(out.index)].shape);
  op.outputs[0] = partial;
  const std::string name = op.name;
  push(std::move(op));
  place(out, between());
  insert(sequence_ ? OperatorKind::scatter_sequence : OperatorKind::sum_over_ranks, name, partial,
         out);
}

void Splitter::add_position_embedding(Operator op) {
  place(op.outputs[0], between());
  push(std::move(op));
}

void Splitter::add_linear(Operator op) {
  if (op.replicated) {
    add_plain(std::move(op));
  } else if (op.gathers_output) {
    add_gathered(std::move(op));
  } else if (placement(op.inputs[0]) == Placement::features) {
    add_rows(std::move(op));
  } else {
    add_columns(std::move(op));
  }
}

void Splitter::add_columns(Operator op) {
  const TensorRef out = op.outputs[0];
  const std::int64_t before = shape(out).back();
  op.inputs[0] = whole_input(op.inputs[0], op.name);
  place(out, Placement::features);
  const std::int64_t own = shape(out).back();
  for (std::size_t i = 0; i < op.weights.size() && i < 2; ++i) {
    split_weight(op.weights[i], before, own);
  }
  if (op.adapter_rank > 0) {  // A is whole on every rank, B's rows are those of the columns
    const std::int64_t outputs = std::max<std::int64_t>(1, op.adapter_outputs * own / before);
    result_.weights[static_cast<std::size_t>(op.weights[3])].shape[0] = outputs;
    op.adapter_outputs = outputs;
  }
  push(std::move(op));
}

// Its features come together again behind it, for the rank's own tokens.
void Splitter::add_gathered(Operator op) {
  const TensorRef out = op.outputs[0];
  const TensorRef part =
      new_tensor(op.name + " part", source_.tensors[static_cast<std::size_t>(out.index)].shape);
  op.outputs[0] = part;
  const std::string name = op.name;
  add_columns(std::move(op));
  place(out, between());
  insert(OperatorKind::gather_features, name, part, out);
}

void Splitter::add_rows(Operator op) {
  const TensorRef in = op.inputs[0];
  const TensorRef out = op.outputs[0];
  const std::int64_t before = source_.tensors[static_cast<std::size_t>(in.index)].shape.back();
  split_weight(op.weights[0], before, shape(in).back());
  if (op.adapter_rank > 0) {  // A is split like the input, B is whole
    result_.weights[static_cast<std::size_t>(op.weights[2])].shape[1] = shape(in).back();
  }
  const TensorRef partial =
      new_tensor(op.name + " partial", source_.tensors[static_cast<std::size_t>(out.index)].shape);
  op.outputs[0] = partial;
  const std::string name = op.name;
  push(std::move(op));
  place(out, between());
  insert(sequence_ ? OperatorKind::scatter_sequence : OperatorKind::sum_over_ranks, name, partial,
         out);
}

void Splitter::add_attention(Operator op) {
  divide(op.attention.heads, ranks_, "attention heads");
  op.attention.kv_heads /= std::min(op.attention.kv_heads, ranks_);
  for (std::int32_t weight : op.weights) {
    split_weight(weight, op.attention.heads * ranks_, op.attention.heads);
  }
  place(op.outputs[0], Placement::features);
  push(std::move(op));
}

// The positions of the keys belong to all heads: each rank reads those of all tokens.
void Splitter::add_latent_heads(Operator op) {
  divide(op.attention.heads, ranks_, "attention heads");
  op.attention.kv_heads = op.attention.heads;
  op.inputs[2] = whole_input(op.inputs[2], op.name);
  for (TensorRef out : op.outputs) place(out, Placement::features);
  push(std::move(op));
}

// Heads and groups are divided, and every weight with them.
void Splitter::add_scan(Operator op) {
  divide(op.scan.heads, ranks_, "heads of the state-space mixer");
  divide(op.scan.groups, ranks_, "groups of the state-space mixer");
  for (const std::int32_t index : op.weights) {
    Weight& weight = result_.weights[static_cast<std::size_t>(index)];
    weight.shape.front() /= ranks_;
  }
  place(op.outputs[0], Placement::features);
  push(std::move(op));
}

// Over split features (a norm of all queries) the weight is split like them.
void Splitter::add_norm(Operator op) {
  const TensorRef in = op.inputs[0];
  const std::int64_t before = source_.tensors[static_cast<std::size_t>(in.index)].shape.back();
  place(op.outputs[0], placement(in));
  if (placement(in) == Placement::features && shape(in).back() != before) {
    for (std::int32_t weight : op.weights) split_weight(weight, before, shape(in).back());
    if (op.groups > 1) op.groups = ceil_divide(op.groups, ranks_);
  }
  push(std::move(op));
}

// The bias belongs to the projection before it: split by columns like its result.
void Splitter::add_bias_activation(Operator op) {
  const TensorRef in = op.inputs[0];
  const std::int64_t before = source_.tensors[static_cast<std::size_t>(in.index)].shape.back();
  place(op.outputs[0], placement(in));
  for (std::int32_t weight : op.weights) split_weight(weight, before, shape(in).back());
  push(std::move(op));
}

// Follows its inputs: where one is split, so are the results.
void Splitter::add_plain(Operator op) {
  Placement together = Placement::whole;
  for (TensorRef in : op.inputs) {
    if (in.shared || in.index < 0) continue;
    const Placement one = placement(in);
    if (one == Placement::features || together == Placement::whole) together = one;
  }
  for (TensorRef out : op.outputs) place(out, together);
  push(std::move(op));
}

// Each rank sends its own tokens to the experts: all of them, or its part of the sequence.
void Splitter::add_mixture(Operator op) {
  const Placement tokens = placement(op.inputs[0]);
  for (TensorRef out : op.outputs) {
    if (op.kind == OperatorKind::experts) {
      place(out, tokens);
      continue;
    }
    placements_[static_cast<std::size_t>(out.index)] = tokens;  // [T,k] or [n]: tokens first
    std::int64_t& rows = shape(out)[0];
    if (tokens == Placement::sequence) rows = ceil_divide(rows, ranks_);
  }
  push(std::move(op));
}

// Of each token one number, which the ranks make together of the logits that each has.
void Splitter::add_log_probabilities(Operator op) {
  for (const TensorRef out : op.outputs) place(out, Placement::whole);
  push(std::move(op));
}

// Some of a sample's tokens, or a loss of all of them: what is spread by tokens is gathered first.
// A linear behind a slice reads what is whole already.
void Splitter::add_whole_reader(Operator op) {
  const TensorRef in = op.inputs[0];
  const bool spread = placement(in) == Placement::sequence;
  if (spread) op.inputs[0] = whole_input(in, op.name);
  for (const TensorRef out : op.outputs) {
    place(out, spread ? Placement::whole : placement(in));
    if (spread && out.index >= 0) whole_of_[out.index] = out.index;
  }
  push(std::move(op));
}

// A generation chooses among all of the vocabulary (Megatron-LM, inference: the output layer's
// parallel logits are gathered; vLLM's LogitsProcessor the same).
void Splitter::add_next_scores(Operator op) {
  const TensorRef in = op.inputs[0];
  const Shape whole =
      in.shared ? Shape() : source_.tensors[static_cast<std::size_t>(in.index)].shape;
  if (placement(in) != Placement::features || whole.back() != graph_.vocabulary) {
    return add_plain(std::move(op));
  }
  const TensorRef gathered = new_tensor(op.name + " input", whole);
  insert(OperatorKind::gather_features, op.name, in, gathered);
  op.inputs[0] = gathered;
  for (const TensorRef out : op.outputs) place(out, Placement::whole);
  push(std::move(op));
}

void Splitter::add(const Operator& op) {
  switch (op.kind) {
    case OperatorKind::log_probabilities: add_log_probabilities(op); break;
    case OperatorKind::alignment_loss:
    case OperatorKind::slice: add_whole_reader(op); break;
    case OperatorKind::widen: add_next_scores(op); break;
    case OperatorKind::embedding: add_embedding(op); break;
    case OperatorKind::position_embedding: add_position_embedding(op); break;
    case OperatorKind::linear: add_linear(op); break;
    case OperatorKind::attention: add_attention(op); break;
    case OperatorKind::latent_heads: add_latent_heads(op); break;
    case OperatorKind::state_scan:
    case OperatorKind::selective_scan: add_scan(op); break;
    case OperatorKind::bias_activation: add_bias_activation(op); break;
    case OperatorKind::layer_norm:
    case OperatorKind::rms_norm: add_norm(op); break;
    case OperatorKind::router:
    case OperatorKind::expert_assignment:
    case OperatorKind::experts: add_mixture(op); break;
    case OperatorKind::rotary_table:
    case OperatorKind::causal_lm_loss: push(op); break;
    default: add_plain(op);
  }
}

Result<Block> Splitter::run() {
  find_producers();
  find_key_value_heads();
  if (source_.input.index >= 0) place(source_.input, between());
  for (const Operator& op : source_.operators) add(op);
  if (error_) return fail(*error_);
  return std::move(result_);
}

}  // namespace

Result<Graph> split_over_ranks(const Graph& graph, std::int64_t ranks, bool sequence) {
  if (ranks == 1) return graph;
  Graph result = graph;
  for (model::Segment& segment : result.segments) {
    for (Block& block : segment.blocks) {
      Splitter splitter(graph, block, ranks, sequence);
      STEELYARD_TRY(local, splitter.run());
      block = std::move(local);
    }
  }
  return result;
}

void cut_positions(Graph& graph, std::int64_t ranks) {
  for (model::Segment& segment : graph.segments) {
    for (Block& block : segment.blocks) {
      for (const Operator& op : block.operators) {
        if (op.kind != OperatorKind::position_embedding || op.weights.empty()) continue;
        Shape& table = block.weights[static_cast<std::size_t>(op.weights[0])].shape;
        table[0] = ceil_divide(table[0], ranks);
      }
    }
  }
}

void restore_tables(Graph& graph, const Graph& whole) {
  for (std::size_t at = 0; at < graph.segments.size(); ++at) {
    for (std::size_t place = 0; place < graph.segments[at].blocks.size(); ++place) {
      Block& block = graph.segments[at].blocks[place];
      for (const Operator& op : block.operators) {
        if (op.kind != OperatorKind::embedding) continue;
        const auto table = static_cast<std::size_t>(op.weights[0]);
        block.weights[table].shape = whole.segments[at].blocks[place].weights[table].shape;
      }
    }
  }
}

}  // namespace steelyard::step
