#include "step/block_trace.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "step/loss_operator.h"
#include "step/operators.h"
#include "step/primitives.h"

namespace steelyard::step {

namespace {

using facts::VramCategory;

// The last product before the loss.
bool is_projection(const model::Block& block, std::size_t index) {
  if (block.operators.back().kind != model::OperatorKind::causal_lm_loss) return false;
  const auto is_linear = [](const model::Operator& op) {
    return op.kind == model::OperatorKind::linear;
  };
  const auto from = block.operators.begin() + static_cast<std::ptrdiff_t>(index);
  return is_linear(*from) && std::none_of(from + 1, block.operators.end(), is_linear);
}

class BlockRun {
 public:
  BlockRun(Program& program, const model::Graph& graph, const model::Block& block,
           const BlockOptions& options, SharedTensors& shared)
      : program_(program),
        graph_(graph),
        block_(block),
        options_(options),
        shared_(shared),
        tape_(program, options.tape) {
    make_weights();
    live_.resize(block.tensors.size());
    last_use_ = last_uses(block, options.tape.compiled ? Frames::none : options.frames,
                          options.variants.loss_in_model);
  }

  BlockRun(const BlockRun&) = delete;
  BlockRun& operator=(const BlockRun&) = delete;
  // An overflow may have ended the trace half-way: tensors then die without a program, and those
  // that all blocks share must not outlive the tape they would tell.
  ~BlockRun() {
    tape_.stop_recording();
    for (const Tensor& tensor : shared_.tensors) {
      if (tensor && tensor.storage->tape == &tape_) tape_.disown(tensor);
    }
  }

  BlockTrace run(bool first, bool last);
  // A trial of forward and recomputation: the kept results that backward does not read.
  [[nodiscard]] std::set<std::size_t> unread_results(bool first);
  void leave_uncached(std::set<std::size_t> results) { tape_.leave_uncached(std::move(results)); }

 private:
  void make_weights();
  void activate_early(const model::Operator& op);
  void hold_logits(std::vector<Tensor>& outputs);
  void hold_cache(const model::Operator& op);
  void run_head(std::size_t projection);
  [[nodiscard]] Tensor input_tensor(bool first);
  [[nodiscard]] Tensor forward(const Tensor& input);
  [[nodiscard]] Tensor& tensor_of(model::TensorRef ref);
  [[nodiscard]] const model::TensorInfo& info_of(model::TensorRef ref) const;
  [[nodiscard]] OperatorCall call_of(const model::Operator& op);
  [[nodiscard]] bool trains(const Tensor& input) const;
  void list_saved();
  void list_saved(const StorageRef& storage, std::unordered_set<const Storage*>& seen);
  [[nodiscard]] Tensor recompute(const Tensor& input);
  void categorise();
  void backward(const Tensor& input, Tensor output, bool last);
  void collect_gradients();
  [[nodiscard]] std::int32_t kept_gradient(std::int32_t fresh);
  void hand_on(const Tensor& output);

  Program& program_;
  const model::Graph& graph_;
  const model::Block& block_;
  const BlockOptions& options_;
  SharedTensors& shared_;
  Tape tape_;
  BlockTrace trace_;
  std::vector<Tensor> weights_;
  std::vector<Tensor> live_;           // by index of the block's tensors
  std::vector<std::size_t> last_use_;  // by tensor: index of the last operator that reads it
  std::vector<Tensor> held_;           // until the step ends
  std::vector<Tensor> cache_;          // until the model returns
  Tensor input_gradient_;
  std::set<const model::Operator*> activated_;
  bool again_ = false;                 // the whole block runs forward again before its backward
  const Storage* borrowed_ = nullptr;  // the input, when the block before frees it
  std::vector<NodeRef> roots_;
};

void BlockRun::make_weights() {
  for (std::size_t i = 0; i < block_.weights.size(); ++i) {
    const model::Weight& held = block_.weights[i];
    const DType dtype = options_.weight_type ? options_.weight_type(held) : options_.weight_dtype;
    Tensor weight = tape_.external(model::elements(held.shape), dtype);
    weight.storage->weight = true;
    weight.leaf = static_cast<std::int32_t>(i);
    weight.requires_grad = options_.weights_train && held.trains;
    weights_.push_back(std::move(weight));
  }
  trace_.gradients.assign(block_.weights.size(), -1);
}

// act(gate(x)) * up(x): the activation runs as soon as its argument is there.
void BlockRun::activate_early(const model::Operator& op) {
  if (options_.variants.fused_swiglu) return;  // its kernel takes both arguments
  if (op.outputs.size() != 1 || op.outputs[0].shared) return;
  const std::int32_t made = op.outputs[0].index;
  for (const model::Operator& later : block_.operators) {
    const bool gated = later.kind == model::OperatorKind::gated_activation &&
                       !later.fused_gate_up && !later.inputs[0].shared;
    if (!gated || later.inputs[0].index != made) continue;
    tape_.enter(later.name);
    Tensor& gate = tensor_of(op.outputs[0]);
    gate = early_activation(tape_, later, std::exchange(gate, Tensor()));
    activated_.insert(&later);
  }
}

const model::TensorInfo& BlockRun::info_of(model::TensorRef ref) const {
  const auto index = static_cast<std::size_t>(ref.index);
  return ref.shared ? graph_.shared[index] : block_.tensors[index];
}

Tensor& BlockRun::tensor_of(model::TensorRef ref) {
  const auto index = static_cast<std::size_t>(ref.index);
  if (!ref.shared) return live_[index];
  if (shared_.tensors.size() < graph_.shared.size()) shared_.tensors.resize(graph_.shared.size());
  Tensor& tensor = shared_.tensors[index];
  const model::TensorInfo& info = graph_.shared[index];
  if (tensor || info.kind == model::ElementKind::real) return tensor;
  // Of the batch, which exists before the step. Pictures come in the model's own type.
  const Arithmetic& arithmetic = tape_.arithmetic();
  const DType own = arithmetic.autocast ? arithmetic.ambient : arithmetic.compute;
  const bool picture = info.kind == model::ElementKind::pixels;
  tensor = tape_.external(model::elements(info.shape), picture ? own : DType::int64);
  return tensor;
}

OperatorCall BlockRun::call_of(const model::Operator& op) {
  OperatorCall call;
  call.op = &op;
  call.graph = &graph_;
  call.variants = &options_.variants;
  call.mask = shared_.mask;
  call.labels = shared_.labels;
  for (model::TensorRef ref : op.inputs) {
    call.inputs.push_back(tensor_of(ref));
    call.input_shapes.push_back(info_of(ref).shape);
  }
  for (model::TensorRef ref : op.outputs) call.output_shapes.push_back(info_of(ref).shape);
  for (std::int32_t weight : op.weights) {
    call.weights.push_back(weight < 0 ? Tensor() : weights_[static_cast<std::size_t>(weight)]);
  }
  if (!op.weights.empty() && op.weights.front() >= 0 &&
      block_.weights[static_cast<std::size_t>(op.weights.front())].quantized) {
    call.quantization = options_.quantization;
  }
  return call;
}

Tensor BlockRun::forward(const Tensor& input) {
  if (block_.input.index >= 0) tensor_of(block_.input) = input;
  for (std::size_t i = 0; i < block_.operators.size(); ++i) {
    const model::Operator& op = block_.operators[i];
    if (options_.variants.head != HeadLoss::whole && is_projection(block_, i)) {
      run_head(i);
      break;
    }
    tape_.enter(op.name);
    OperatorCall call = call_of(op);
    call.activated = activated_.contains(&op);
    call.recomputed = options_.recompute == Recompute::core_attention;
    const bool loss = model::is_loss(op.kind);
    if (loss) tensor_of(op.inputs[0]) = Tensor();  // the model's own code decides how long it lives
    std::vector<Tensor> outputs = run_operator(tape_, std::move(call));
    tape_.end_operation();
    for (std::size_t o = 0; o < op.outputs.size(); ++o) {
      tensor_of(op.outputs[o]) = std::move(outputs[o]);
    }
    if (loss) hold_logits(outputs);
    outputs.clear();
    if (op.attention.returns_cache && !tape_.recomputing()) hold_cache(op);
    activate_early(op);
    for (std::size_t t = 0; t < live_.size(); ++t) {
      if (last_use_[t] <= i) live_[t] = Tensor();
    }
  }
  tape_.enter("");
  // None from a block that only makes shared tensors.
  Tensor output = block_.output.index >= 0 ? tensor_of(block_.output) : Tensor();
  for (Tensor& tensor : live_) tensor = Tensor();
  return output;
}

// past_key_values: views of the projections, held by the model's outputs.
void BlockRun::hold_cache(const model::Operator& op) {
  std::vector<Tensor>& holder = options_.variants.keeps_logits ? held_ : cache_;
  holder.push_back(tensor_of(op.inputs[1]));
  holder.push_back(tensor_of(op.inputs[2]));
}

// Behind the loss come the logits that the model returned.
void BlockRun::hold_logits(std::vector<Tensor>& outputs) {
  const bool widens = options_.variants.widens_outputs && tape_.arithmetic().autocast;
  for (std::size_t i = 1; i < outputs.size(); ++i) {
    if (widens) outputs[i] = to(tape_, Tensor(outputs[i]), DType::fp32);
    if (!options_.variants.keeps_logits) continue;
    tape_.materialise(outputs[i]);
    held_.push_back(std::move(outputs[i]));
  }
}

// From the output projection to the loss, with the logits in chunks or never whole.
void BlockRun::run_head(std::size_t projection) {
  HeadCall head;
  const model::Operator& first = block_.operators[projection];
  tape_.enter(first.name);
  head.projection = call_of(first);
  tensor_of(first.inputs[0]) = Tensor();
  for (std::size_t i = projection + 1; i + 1 < block_.operators.size(); ++i) {
    head.between.push_back(call_of(block_.operators[i]));
  }
  const model::Operator& last = block_.operators.back();
  head.loss = call_of(last);
  std::vector<Tensor> outputs = head_loss(tape_, std::move(head));
  tape_.end_operation();
  tensor_of(last.outputs[0]) = outputs[0];
  hold_logits(outputs);
}

Tensor BlockRun::input_tensor(bool first) {
  if (first || block_.input.index < 0) return {};
  const model::TensorInfo& info = info_of(block_.input);
  // The residual stream has the parameters' type under autocast (embeddings and norms give it).
  const Arithmetic& arithmetic = tape_.arithmetic();
  const DType usual = arithmetic.autocast ? arithmetic.ambient : arithmetic.compute;
  const DType dtype = shared_.stream.dtype.value_or(usual);
  const std::int64_t numel = model::elements(info.shape);
  Tensor input;
  if (shared_.stream.borrowed) {
    input = tape_.external(numel, dtype);
    borrowed_ = input.storage.get();
  } else {
    input = tape_.adopted(numel, dtype, "input", VramCategory::activations);
    trace_.forward.push_back({EventKind::adopt, input.storage->slot});
  }
  if (!options_.input_requires_grad) return input;
  NodeRef node = tape_.make_node("input", {}, {}, [this](Tape&, const std::vector<Tensor>& g) {
    input_gradient_ = g[0];
    return std::vector<Tensor>();
  });
  node->sequence = 0;  // runs after everything else of the block
  input.node = node;
  input.requires_grad = true;
  return input;
}

// Something behind the output wants a gradient: backward passes through.
bool BlockRun::trains(const Tensor& input) const {
  return (input && input.requires_grad) ||
         std::any_of(weights_.begin(), weights_.end(),
                     [](const Tensor& weight) { return weight.requires_grad; });
}

// Of compiled code: what a tensor that backward computes again is computed from.
void BlockRun::list_saved(const StorageRef& storage, std::unordered_set<const Storage*>& seen) {
  if (!seen.insert(storage.get()).second || storage->weight) return;
  if (!storage->pending) {
    const bool borrowed = storage.get() == borrowed_;
    trace_.saved.push_back({storage->bytes, storage->external, storage->cast, borrowed});
    return;
  }
  for (const StorageRef& source : storage->sources) list_saved(source, seen);
}

void BlockRun::list_saved() {
  std::unordered_set<const Storage*> seen;
  std::unordered_set<const Node*> visited;
  std::vector<NodeRef> stack = roots_;
  while (!stack.empty()) {
    const NodeRef node = stack.back();
    stack.pop_back();
    if (!node || !visited.insert(node.get()).second) continue;
    for (const StorageRef& storage : node->saved) {
      list_saved(storage, seen);
    }
    for (const Edge& edge : node->inputs) stack.push_back(edge.node);
  }
}

// What outlives the forward pass is an activation, whatever made it.
void BlockRun::categorise() {
  std::unordered_set<std::int32_t> alive;
  for (const Event& event : trace_.forward) {
    if (event.kind == EventKind::allocate) alive.insert(event.index);
    if (event.kind == EventKind::free) alive.erase(event.index);
  }
  for (std::int32_t slot : alive) {
    VramCategory& category = program_.slots[static_cast<std::size_t>(slot)].category;
    if (category == VramCategory::temporaries) category = VramCategory::activations;
  }
}

// The first gradient of a leaf is taken over without a copy, later ones are added to it.
void BlockRun::collect_gradients() {
  tape_.leaf_gradient = [this](std::int32_t leaf, Tensor gradient) {
    const auto index = static_cast<std::size_t>(leaf);
    const bool again = trace_.gradients[index] >= 0;
    if (options_.gradients_exist || options_.graded.contains(block_.weights[index].name)) {
      tape_.pointwise("accumulate_gradient", 3 * bytes_of(gradient));
      return;
    }
    if (again || options_.accumulates) {
      tape_.pointwise("accumulate_gradient", 3 * bytes_of(gradient));
    }
    const std::int32_t fresh = tape_.disown(gradient);
    if (!again) trace_.gradients[index] = kept_gradient(fresh);
    program_.gradients.push_back({fresh, trace_.gradients[index]});
    trace_.backward.push_back(
        {EventKind::keep_gradient, static_cast<std::int32_t>(program_.gradients.size()) - 1});
  };
}

std::int32_t BlockRun::kept_gradient(std::int32_t fresh) {
  Slot kept = program_.slots[static_cast<std::size_t>(fresh)];
  kept.category = VramCategory::gradients;
  kept.outlives_micro_batch = true;
  program_.slots.push_back(kept);
  return static_cast<std::int32_t>(program_.slots.size()) - 1;
}

// The forward pass once more, now saving; its result.
Tensor BlockRun::recompute(const Tensor& input) {
  const std::size_t start = trace_.backward.size();
  tape_.set_grad_enabled(true);
  tape_.set_recomputing(true);
  tape_.set_backward(false);
  if (options_.recompute == Recompute::operations) tape_.set_cache(CacheMode::replay);
  Tensor output = forward(input);
  tape_.set_cache(CacheMode::off);
  // Compiled code computes nothing that nobody reads, whatever the checkpoint's own word.
  if (options_.variants.checkpoint == Checkpoint::early_stop || options_.tape.compiled) {
    output.storage.reset();
    tape_.clear_casts();
    tape_.stop_early(start);
  }
  tape_.clear_casts();
  tape_.set_recomputing(false);
  tape_.set_backward(true);
  return output;
}

void BlockRun::backward(const Tensor& input, Tensor output, bool last) {
  tape_.record_to(trace_.backward);
  tape_.set_backward(true);
  const std::int64_t numel = output.numel;
  const DType dtype = output.dtype;
  Tensor gradient;
  if (last) {
    gradient = tape_.allocate(1, dtype, "ones_like");
  } else {
    gradient = tape_.adopted(numel, dtype, "output_gradient", VramCategory::temporaries);
    trace_.backward.push_back({EventKind::adopt, gradient.storage->slot});
  }
  Tensor held_output;
  if (again_) {
    tape_.materialise(input);
    output = recompute(input);
    if (options_.variants.checkpoint == Checkpoint::reentrant) held_output = output;
    Tensor released = output;
    released.storage.reset();
    output = released;  // its storage dies; the node stays
  }
  collect_gradients();
  Tensor root = output;
  root.storage.reset();
  output = Tensor();
  // loss.backward() holds the gradient of the loss until it returns, CheckpointFunction.backward
  // the arguments it was called with.
  const Tensor held = last || held_output ? gradient : Tensor();
  if (options_.keeps_gradient) held_.push_back(gradient);
  tape_.run_backward(root, std::move(gradient));
}

// To the next block: with the storage, unless a node of this block keeps it.
void BlockRun::hand_on(const Tensor& output) {
  shared_.stream.dtype = output.dtype;
  shared_.stream.borrowed = output.storage.use_count() > 1;
  if (shared_.stream.borrowed) return;
  trace_.forward.push_back({EventKind::carry, output.storage->slot});
  tape_.disown(output);
}

std::set<std::size_t> BlockRun::unread_results(bool first) {
  tape_.record_to(trace_.backward);
  const Tensor input = input_tensor(first);
  tape_.set_grad_enabled(false);
  tape_.set_cache(CacheMode::fill);
  static_cast<void>(forward(input));
  tape_.set_cache(CacheMode::off);
  Tensor output = recompute(input);
  output.storage.reset();
  std::set<std::size_t> unread = tape_.unread_results();
  tape_.stop_recording();
  return unread;
}

BlockTrace BlockRun::run(bool first, bool last) {
  tape_.record_to(trace_.forward);
  Tensor input = input_tensor(first);
  again_ = input && (options_.recompute == Recompute::everything ||
                     options_.recompute == Recompute::operations);
  if (again_) tape_.set_grad_enabled(false);
  if (options_.recompute == Recompute::operations) tape_.set_cache(CacheMode::fill);
  Tensor output = forward(input);
  const bool has_output = static_cast<bool>(output);
  tape_.set_cache(CacheMode::off);
  if (has_output) tape_.materialise(output);
  roots_ = {output.node};
  trace_.output_requires_grad = trains(input) || options_.output_made_leaf;
  if (!again_) list_saved();
  if (last) {
    held_.push_back(output);  // `loss` lives until the step ends
  } else if (output) {
    hand_on(output);
  }
  Tensor root = output;
  root.storage.reset();
  output = Tensor();
  if (again_) {
    for (const StorageRef& result : tape_.cached()) {
      trace_.saved.push_back({result->bytes, false, false});
    }
    const bool borrowed = input.storage.get() == borrowed_;
    trace_.saved.push_back({input.storage->bytes, borrowed, false, borrowed});
    if (options_.tape.offloads_saved) input.storage = tape_.offloaded(input.storage);
  } else {
    // The node's gradient edge is all that backward needs; saved variables keep the storage alive.
    input.storage.reset();
  }
  for (Tensor& tensor : shared_.tensors) {
    // Made by this block, used by all: it outlives this tape and is freed when the step ends.
    if (tensor && !tensor.storage->external) shared_.slots.push_back(tape_.disown(tensor));
  }
  tape_.drain_stash();
  trace_.offloaded = tape_.offloaded_bytes();
  categorise();
  tape_.record_to(trace_.after_forward);
  cache_.clear();
  tape_.clear_casts();

  if (has_output && trace_.output_requires_grad) backward(input, root, last);
  roots_.clear();
  tape_.record_to(trace_.backward);
  if (options_.keeps_input && input.storage) held_.push_back(input);
  input = Tensor();
  tape_.clear_cache();
  if (input_gradient_) {
    tape_.materialise(input_gradient_);
    trace_.backward.push_back({EventKind::carry, input_gradient_.storage->slot});
    tape_.disown(input_gradient_);
    input_gradient_ = Tensor();
  }
  tape_.record_to(trace_.end_of_step);
  held_.clear();
  weights_.clear();
  for (const auto* events : {&trace_.forward, &trace_.backward}) {
    trace_.kernels += std::count_if(events->begin(), events->end(), [](const Event& event) {
      return event.kind == EventKind::work;
    });
  }
  return std::move(trace_);
}

}  // namespace

BlockTrace trace_block(Program& program, const model::Graph& graph, const model::Block& block,
                       const BlockOptions& options, SharedTensors& shared, bool first, bool last) {
  BlockRun run(program, graph, block, options, shared);
  if (options.tape.compiled && options.recompute == Recompute::operations) {
    Program apart;
    SharedTensors same = shared;
    run.leave_uncached(BlockRun(apart, graph, block, options, same).unread_results(first));
  }
  return run.run(first, last);
}

}  // namespace steelyard::step
