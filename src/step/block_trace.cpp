#include "step/block_trace.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "step/loss_operator.h"
#include "step/operators.h"
#include "step/partial_runs.h"
#include "step/primitives.h"
#include "step/trace_parts.h"

namespace steelyard::step {

namespace {

using facts::VramCategory;

class BlockRun {
 public:
  BlockRun(Program& program, const model::Graph& graph, const model::Block& block,
           const BlockOptions& options, SharedTensors& shared)
      : program_(program),
        graph_(graph),
        block_(block),
        options_(options),
        shared_(shared),
        tape_(program, options.tape),
        runs_(block, options, tape_, handles()) {
    weights_ = weights_of(tape_, block, options);
    trace_.gradients.assign(block.weights.size(), -1);
    borrow_shared();
    live_.resize(block.tensors.size());
    last_use_ = last_uses(block, options.tape.compiled ? Frames::none : options.frames,
                          options.variants.loss_in_model);
  }
  BlockRun(const BlockRun&) = delete;
  BlockRun& operator=(const BlockRun&) = delete;
  // An overflow may end a trace half-way: what all blocks share must not outlive the tape it tells.
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
  void activate_early(const model::Operator& op);
  void hold_logits(std::vector<Tensor>& outputs);
  void hold_cache(const model::Operator& op);
  void run_head(std::size_t projection);
  void leave_to_call(const model::Operator& op, std::size_t index);
  [[nodiscard]] Tensor input_tensor(bool first);
  [[nodiscard]] Tensor forward(const Tensor& input);
  [[nodiscard]] bool run_one(std::size_t i);
  [[nodiscard]] BlockHandles handles();
  [[nodiscard]] Tensor& tensor_of(model::TensorRef ref);
  void borrow_shared();
  void let_go_of_shared();
  [[nodiscard]] const model::TensorInfo& info_of(model::TensorRef ref) const;
  [[nodiscard]] OperatorCall call_of(const model::Operator& op);
  [[nodiscard]] bool trains(const Tensor& input) const;
  [[nodiscard]] Tensor recompute(Tensor& input);
  void hand_over_arguments(std::vector<StorageRef>& frame, Tensor& input);
  void backward(Tensor& input, Tensor output, bool last);
  void collect_gradients();
  void hand_on(const Tensor& output);

  Program& program_;
  const model::Graph& graph_;
  const model::Block& block_;
  const BlockOptions& options_;
  SharedTensors& shared_;
  Tape tape_;
  BlockTrace trace_;
  std::vector<Tensor> weights_;
  std::vector<Tensor> live_;       // by index of the block's tensors
  std::vector<Tensor> variables_;  // of the operators' code, until the block returns
  std::set<std::int32_t> views_;   // leaves whose gradient is a view
  std::vector<Tensor> lent_;       // by index: what blocks before made for all
  Tensor mask_;
  std::vector<std::size_t> last_use_;  // by tensor: index of the last operator that reads it
  std::vector<Tensor> held_;           // until the step ends
  std::vector<Tensor> kept_;           // until the backward pass of the model ends
  std::vector<Tensor> cache_;          // until the model returns; Assembler::add_captures
  std::vector<Tensor> left_over_;      // until the loss of the next micro-batch
  std::vector<Tensor> callers_;        // variables of who called the model, until it calls backward
  Tensor input_gradient_;
  std::vector<Root> made_;  // for all blocks, and their gradients
  std::set<const model::Operator*> activated_;
  PartialRuns runs_;
  bool again_ = false;                 // the whole block runs forward again before its backward
  const Storage* borrowed_ = nullptr;  // the input, when the block before frees it
};

// act(gate(x)) * up(x): the activation runs as soon as its argument is there.
void BlockRun::activate_early(const model::Operator& op) {
  if (options_.variants.fused_swiglu) return;  // its kernel takes both arguments
  if (op.outputs.size() != 1 || op.outputs[0].shared) return;
  for (const model::Operator& later : block_.operators) {
    if (!activates(later, op.outputs[0].index)) continue;
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
  if (index >= lent_.size()) throw std::logic_error("an operator reads what no block makes");
  if (lent_[index]) return lent_[index];
  Tensor& tensor = shared_.tensors[index];
  const model::TensorInfo& info = graph_.shared[index];
  // Real numbers of the batch (a map of targets) come with it; others are made by a block.
  const auto& batch = graph_.batch_tensors;
  const bool comes = std::ranges::find(batch, info) != batch.end();
  if (!tensor && (comes || info.kind != model::ElementKind::real)) tensor = of_batch(tape_, info);
  return tensor;
}

void BlockRun::borrow_shared() {
  shared_.tensors.resize(graph_.shared.size());
  for (const Tensor& tensor : shared_.tensors) lent_.push_back(lent(tape_, tensor));
  mask_ = lent(tape_, shared_.mask);
}

void BlockRun::let_go_of_shared() {
  lent_.assign(lent_.size(), Tensor());
  mask_ = Tensor();
}

OperatorCall BlockRun::call_of(const model::Operator& op) {
  OperatorCall call;
  call.op = &op;
  call.recomputes_activation =
      std::find(options_.recomputed_modules.begin(), options_.recomputed_modules.end(),
                "moe_act") != options_.recomputed_modules.end();
  call.graph = &graph_;
  call.variants = &options_.variants;
  call.mask = mask_;
  call.labels = shared_.labels;
  for (model::TensorRef ref : op.inputs) {
    call.inputs.push_back(tensor_of(ref));
    call.input_shapes.push_back(info_of(ref).shape);
  }
  for (model::TensorRef ref : op.outputs) call.outputs.push_back(&info_of(ref));
  for (const model::TensorInfo* info : call.outputs) call.output_shapes.push_back(info->shape);
  for (std::int32_t weight : op.weights) {
    call.weights.push_back(weight < 0 ? Tensor() : weights_[static_cast<std::size_t>(weight)]);
  }
  if (!op.weights.empty() && op.weights.front() >= 0 &&
      block_.weights[static_cast<std::size_t>(op.weights.front())].quantized) {
    call.quantization = options_.quantization;
  }
  call.reads_attention = reads_attention(block_, op);
  if (options_.variants.scripts_outlive_backward) call.captured = &cache_;
  // A node that a reentrant checkpoint makes goes with its own backward pass.
  const bool passing = again_ && options_.variants.checkpoint == Checkpoint::reentrant;
  const bool lasts = !tape_.recomputing() && !options_.no_grad && !passing;
  if (call.quantization.keeps_input && lasts) call.captured = &left_over_;
  return call;
}

BlockHandles BlockRun::handles() {
  return {[this](model::TensorRef ref) -> Tensor& { return tensor_of(ref); },
          [this](model::TensorRef ref, const Tensor& tensor) {
            (ref.shared ? lent_ : live_)[static_cast<std::size_t>(ref.index)] = tensor;
          },
          [this](std::size_t i) { return run_one(i); },
          [this] {
            for (Tensor& tensor : live_) tensor = Tensor();
            let_go_of_shared();
          }};
}

bool BlockRun::run_one(std::size_t i) {
  const model::Operator& op = block_.operators[i];
  if (options_.variants.head != HeadLoss::whole && is_projection(block_, i)) {
    run_head(i);
    return false;
  }
  tape_.enter(op.name);
  OperatorCall call = call_of(op);
  if (options_.frames == Frames::function) leave_to_call(op, i);
  call.activated = activated_.contains(&op);
  if (options_.frames == Frames::function) call.variables = &variables_;
  call.recomputed = options_.recompute == Recompute::core_attention;
  const bool loss = model::is_loss(op.kind);
  if (loss) tensor_of(op.inputs[0]) = Tensor();  // the model's own code decides how long it lives
  std::vector<Tensor> outputs = run_operator(tape_, std::move(call));
  if (again_) hold_router_graph(tape_, op, options_.variants, outputs, left_over_);
  tape_.end_operation();
  for (std::size_t o = 0; o < op.outputs.size(); ++o) {
    tensor_of(op.outputs[o]) = std::move(outputs[o]);
  }
  if (loss) hold_logits(outputs);
  if (op.outlives_forward) callers_.push_back(outputs.back());
  outputs.clear();
  if (returns_cache(op, options_.variants) && !tape_.recomputing()) hold_cache(op);
  activate_early(op);
  for (std::size_t t = 0; t < live_.size(); ++t) {
    if (last_use_[t] <= i) live_[t] = Tensor();
  }
  return true;
}

Tensor BlockRun::forward(const Tensor& input) {
  if (block_.input.index >= 0) tensor_of(block_.input) = input;
  runs_.run();
  tape_.enter("");
  // None from a block that only makes shared tensors.
  Tensor output = block_.output.index >= 0 ? tensor_of(block_.output) : Tensor();
  for (Tensor& tensor : live_) tensor = Tensor();
  variables_.clear();
  return output;
}

// past_key_values: views of the projections, held by the model's outputs.
void BlockRun::hold_cache(const model::Operator& op) {
  if (op.attention.drops_cache_recomputing && again_) return;
  auto& holder = options_.variants.keeps_logits ? held_ : cache_;
  for (const std::size_t i : {1, 2}) holder.push_back(tensor_of(op.inputs[i]));
}

// A function's variables are bound again while its statements run.
void BlockRun::leave_to_call(const model::Operator& op, std::size_t index) {
  for (model::TensorRef ref : op.inputs) {
    if (ref.shared || ref.index < 0) continue;
    const auto tensor = static_cast<std::size_t>(ref.index);
    if (last_use_[tensor] <= index) live_[tensor] = Tensor();
  }
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
  head.loss = call_of(block_.operators.back());
  std::vector<Tensor> outputs = head_loss(tape_, std::move(head));
  tape_.end_operation();
  tensor_of(block_.operators.back().outputs[0]) = outputs[0];
  hold_logits(outputs);
}

Tensor BlockRun::input_tensor(bool first) {
  if (first || block_.input.index < 0) return {};
  const model::TensorInfo& info = info_of(block_.input);
  Tensor input = handed_over(tape_, shared_, model::elements(info.shape));
  if (shared_.stream.borrowed) borrowed_ = input.storage.get();
  if (borrowed_ == nullptr) trace_.forward.push_back({EventKind::adopt, input.storage->slot});
  input = tape_.shaped(input, extent_of(info.shape));
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
  return any_wants({input}) || any_wants(lent_) || any_wants(weights_);
}

// A leaf's first gradient is taken over, later ones are added: to a view, once, as a new tensor.
void BlockRun::collect_gradients() {
  tape_.leaf_gradient = [this](std::int32_t leaf, Tensor gradient) {
    if (leaf >= kSharedLeaf) {
      trace_.backward.push_back(summed(tape_, shared_, leaf, std::move(gradient)));
      return;
    }
    const auto index = static_cast<std::size_t>(leaf);
    const bool again = trace_.gradients[index] >= 0;
    const bool graded = options_.graded.contains(block_.weights[index].name);
    Tensor sum;  // what it replaces goes at once, as it does itself here
    if (again && views_.erase(leaf) > 0) sum = sum_beside(tape_, gradient);
    if (gradient.view && !again) views_.insert(leaf);
    const bool elsewhere = options_.gradients_exist || graded;
    const bool by_product = tape_.options().accumulates_into.has_value() &&
                            block_.weights[index].shape.size() > 1 && !again;
    if (!by_product && (elsewhere || again || options_.accumulates)) {
      tape_.pointwise("accumulate_gradient", 3 * bytes_of(gradient));
    }
    if (elsewhere) return;
    const std::int32_t fresh = tape_.disown(gradient);
    if (!again) trace_.gradients[index] = kept_gradient(program_, fresh);
    trace_.backward.push_back(keeping(program_, fresh, trace_.gradients[index]));
  };
}

// To the hooks of a checkpoint, which go with the last node that has any.
void BlockRun::hand_over_arguments(std::vector<StorageRef>& frame, Tensor& input) {
  frame.push_back(input.storage);
  if (!options_.keeps_input) input.storage.reset();
  for (Tensor& tensor : lent_) frame.push_back(std::move(tensor.storage));
  frame.push_back(std::move(mask_.storage));
  let_go_of_shared();
}

// The forward pass once more, now saving; its result.
Tensor BlockRun::recompute(Tensor& input) {
  const std::size_t start = trace_.backward.size();
  tape_.set_grad_enabled(true);
  tape_.set_recomputing(true);
  const auto frame = std::make_shared<std::vector<StorageRef>>();
  const bool hooks = options_.variants.checkpoint != Checkpoint::reentrant;
  if (hooks) tape_.set_frame(frame);
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
  tape_.set_frame(nullptr);
  if (hooks) hand_over_arguments(*frame, input);
  tape_.set_recomputing(false);
  tape_.set_backward(true);
  return output;
}

void BlockRun::backward(Tensor& input, Tensor output, bool last) {
  tape_.record_to(trace_.backward);
  callers_.clear();
  tape_.set_backward(true);
  Tensor gradient;
  if (last) {
    gradient = tape_.allocate(1, output.dtype, "ones_like");
  } else if (trace_.output_requires_grad) {
    gradient = tape_.adopted(output, "output_gradient", VramCategory::temporaries);
    trace_.backward.push_back({EventKind::adopt, gradient.storage->slot});
  }
  Tensor held_output;
  const std::size_t again_from = trace_.backward.size();
  if (again_) {
    tape_.materialise(input);
    output = recompute(input);
    if (options_.variants.checkpoint == Checkpoint::reentrant) held_output = output;
    Tensor released = output;
    released.storage.reset();
    output = released;  // its storage dies; the node stays
  }
  const std::size_t again_to = trace_.backward.size();
  collect_gradients();
  Tensor root = std::exchange(output, Tensor());
  root.storage.reset();
  // loss.backward() holds the gradient of the loss until it returns, CheckpointFunction.backward
  // the arguments it was called with.
  if (options_.keeps_gradient || last) kept_.push_back(gradient);
  const Tensor held = held_output ? gradient : Tensor();
  if (gradient) made_.emplace_back(std::move(root), std::move(gradient));
  tape_.run_backward(std::exchange(made_, {}));
  if (!again_ || options_.tape.compiled || options_.variants.checkpoint == Checkpoint::reentrant) {
    return;
  }
  // A checkpoint's hooks run forward again when the first saved tensor is asked for: what nodes
  // before that do (a cast of the gradient) comes first.
  move_behind(trace_.backward, again_from, again_to, tape_.first_unpacking());
}

// To the next block: with the storage, unless a node of this block keeps it.
void BlockRun::hand_on(const Tensor& output) {
  shared_.stream.dtype = output.dtype;
  shared_.stream.borrowed = output.storage.use_count() > 1;
  shared_.stream.shared = made_as(shared_, output);
  if (shared_.stream.borrowed) return;
  trace_.forward.push_back({EventKind::carry, output.storage->slot});
  tape_.disown(output);
}

std::set<std::size_t> BlockRun::unread_results(bool first) {
  tape_.record_to(trace_.backward);
  Tensor input = input_tensor(first);
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
  tape_.set_grad_enabled(!again_ && !options_.no_grad);
  if (options_.recompute == Recompute::operations) tape_.set_cache(CacheMode::fill);
  Tensor output = forward(input);
  const bool has_output = static_cast<bool>(output);
  tape_.set_cache(CacheMode::off);
  if (has_output) tape_.materialise(output);
  const bool tracked = again_ || !has_output ? trains(input) : output.requires_grad;
  trace_.output_requires_grad = tracked || options_.output_made_leaf;
  // A checkpoint around what nobody wants a gradient of keeps nothing.
  const bool kept = again_ && trace_.output_requires_grad;
  if (again_ && !kept) tape_.clear_cache();
  if (!again_) trace_.saved = saved_storages(nodes_behind(output, shared_), borrowed_);
  if (last) {
    held_.push_back(output);  // `loss` lives until the step ends
  } else if (output) {
    hand_on(output);
  }
  Tensor root = output;
  root.storage.reset();
  output = Tensor();
  if (kept) {
    for (const StorageRef& r : tape_.cached()) trace_.saved.push_back({r->bytes, false, false});
    const bool borrowed = input.storage.get() == borrowed_;
    trace_.saved.push_back({input.storage->bytes, borrowed, false, borrowed});
    if (options_.tape.offloads_saved) input.storage = tape_.offloaded(input.storage);
  } else {
    // The node's gradient edge is all that backward needs; saved variables keep the storage alive.
    input.storage.reset();
  }
  tape_.drain_stash();
  trace_.offloaded = tape_.offloaded_bytes();
  made_ = share_made(tape_, shared_);
  // The caller's variables hold them until forward() returns, a checkpoint until its backward ends.
  if (!again_) let_go_of_shared();
  mark_activations(program_, trace_.forward);
  tape_.record_to(trace_.after_forward);
  cache_.clear();
  tape_.clear_casts();
  if (has_output && (trace_.output_requires_grad || !made_.empty())) backward(input, root, last);
  tape_.record_to(trace_.backward);
  if (options_.keeps_input && input.storage) kept_.push_back(input);
  input = Tensor();
  let_go_of_shared();
  tape_.clear_cache();
  if (input_gradient_) {
    tape_.materialise(input_gradient_);
    trace_.backward.push_back({EventKind::carry, input_gradient_.storage->slot});
    tape_.disown(input_gradient_);
    input_gradient_ = Tensor();
  }
  tape_.record_to(trace_.after_backward);
  trace_.left_over =
      left_over_slots(program_, std::exchange(left_over_, {}), options_.left_over_share);
  kept_.clear();
  tape_.record_to(trace_.end_of_step);
  held_.clear();
  weights_.clear();
  trace_.kernels = kernels_in(trace_);
  return std::move(trace_);
}

}  // namespace

BlockTrace trace_block(Program& program, const model::Graph& graph, const model::Block& block,
                       const BlockOptions& options, SharedTensors& shared, bool first, bool last) {
  BlockRun run(program, graph, block, options, shared);
  if (options.tape.compiled && options.recompute == Recompute::operations) {
    Program apart = program;  // with the slots of what blocks before made for all
    SharedTensors same = shared;
    run.leave_uncached(BlockRun(apart, graph, block, options, same).unread_results(first));
  }
  return run.run(first, last);
}

}  // namespace steelyard::step
