// A tape that plays eager PyTorch: tensors with reference-counted storages, autograd nodes that
// save what the derivative needs, and the engine that runs them backwards. No data, only sizes.
//
// A Tensor is a handle. As in Python, a storage lives as long as a handle or a node's saved
// variable refers to it; its birth and death become events of the program. So a module written down
// here with the statements of its Python code has the lifetimes of its Python code.
//
// Sources (PyTorch 2.6): torch/csrc/autograd/engine.cpp (saved variables are released after a
// node's call; gradients meeting at a node are summed), functions/accumulate_grad.h (the first
// gradient of a leaf is taken over without a copy), aten/src/ATen/autocast_mode.cpp (cache of
// weight casts).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/quantity.h"
#include "facts/dtype.h"
#include "step/fp8.h"
#include "step/groups.h"
#include "step/program.h"

namespace steelyard::step {

using facts::DType;

class Tape;

// One allocation. Its last reference emits the free event.
struct Storage {
  Tape* tape = nullptr;
  std::int32_t slot = -1;
  Bytes bytes;
  bool external = false;  // parameters and other things that outlive the tape: never freed here
  bool weight = false;    // a parameter itself
  bool cast = false;      // autocast's copy of a parameter
  // What one block holds of a tensor that all blocks share: its end is told as release_shared.
  bool shared = false;
  // Compiled code: nothing is allocated yet; computed from `sources` where it is read.
  bool pending = false;
  bool on_host = false;  // a saved tensor's copy, allocated again when its node runs
  // Freed ahead of its references, and what stands for it since a recomputation made it again.
  bool discarded = false;
  std::shared_ptr<Storage> remade;
  std::vector<std::shared_ptr<Storage>> sources;
  std::vector<std::pair<DType, std::weak_ptr<Storage>>> casts;  // of the whole, compiled code

  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  ~Storage();
};
using StorageRef = std::shared_ptr<Storage>;

struct Node;
using NodeRef = std::shared_ptr<Node>;

constexpr std::int32_t kNoLeaf = -1;

struct Tensor {
  StorageRef storage;
  std::int64_t numel = 0;
  DType dtype = DType::fp32;
  bool quantized = false;  // the storage holds fp8, whatever type the values are meant in
  Extent extent{};         // as it lies in memory, where known
  // False for transposed views: a batched matrix product over more than one sample copies them.
  bool dense = true;
  bool requires_grad = false;
  std::int32_t leaf = kNoLeaf;  // index of the weight it is
  // What F.linear gives a weight: it multiplies with weight.t(), and a view's record holds its base
  // (VariableTypeUtils.h, as_view). The engine adds in place only where nobody else holds the
  // storage (input_buffer.cpp, can_accumulate_inplace), so the first sum is a new tensor.
  bool view = false;
  // The part of it that this rank holds anyway, when a product saves that and gathers again.
  StorageRef part;
  NodeRef node;    // what made it, when it requires a gradient
  int output = 0;  // which output of the node

  [[nodiscard]] explicit operator bool() const { return storage != nullptr; }
};

// Dimensions that a result of as many elements takes over.
struct Dimensions {
  std::int64_t numel = 0;
  Extent extent;
};

struct Edge {  // where a gradient goes
  NodeRef node;
  int output = 0;
  std::int32_t leaf = kNoLeaf;
  // What the engine makes of the gradient before it goes on (validate_outputs): summed to this
  // size, then cast to this type. 0: as it comes.
  std::int64_t numel = 0;
  DType dtype = DType::fp32;
};

struct Node {
  using Backward = std::function<std::vector<Tensor>(Tape&, const std::vector<Tensor>& gradients)>;

  std::int64_t sequence = 0;
  std::int32_t name = 0;
  std::vector<Edge> inputs;  // one per gradient that `backward` returns
  std::vector<StorageRef> saved;
  Backward backward;
  std::vector<Dimensions> alike;  // what the operation read
  // A checkpoint's hooks unpack the saved tensors: only the call of `backward` holds them, and the
  // hooks hold the arguments of what ran again.
  std::shared_ptr<std::vector<StorageRef>> frame;
};

// What recomputation policies and compilers tell apart.
enum class OperationKind : std::uint8_t {
  other,      // a kernel of its own; a compiler calls it as it is
  pointwise,  // each element from elements at the same place; also copies and views
  reduction,  // and what is normalised by it: results of one element per row, or of the full shape
  mm,         // product of two matrices
  addmm,      // with a bias
  bmm,        // of a batch of matrices
  attention,
  reduce_scatter,
};

// Results of chosen operations that live from forward to the recomputation.
enum class CacheMode : std::uint8_t { off, fill, replay };

// How numbers are multiplied.
struct Arithmetic {
  DType compute = DType::fp32;  // of matrix products
  bool autocast = false;        // products in `compute`, whatever the parameters are
  bool tf32 = false;
  DType ambient = DType::fp32;  // under autocast: of the parameters, and of what is no product
  Fp8 fp8 = {};                 // of a layer's linears

  friend bool operator==(const Arithmetic&, const Arithmetic&) = default;
};

// Whose code makes the keys and values of a context-parallel group meet the queries of a rank, and
// how: all at once, or block by block around a ring.
enum class ContextCode : std::uint8_t {
  sdpa_all_gather,
  sdpa_ring,
  engine_all_gather,
  engine_ring
};

struct TapeOptions {
  Arithmetic arithmetic;
  // Gradients that meet are summed in place when nobody else holds the first one. False for tensor
  // subclasses (fake tensors), which the test vectors were recorded with.
  bool sum_in_place = true;
  // The derivative of silu runs as the operations of infinitely_differentiable_silu_backward
  // (FunctionsManual.cpp), as it did where the test vectors were recorded, not as one kernel.
  bool composite_silu_backward = false;
  // Workspaces inside kernels (flash attention's dq accumulator, embedding's sort buffers).
  bool kernel_temporaries = true;
  // torch 1.13: mean(dim) saves its input.
  bool mean_saves_input = false;
  // torch 1.0: a product saves both operands though one of them needs no gradient.
  bool product_saves_both = false;
  bool relu_saves_input = false;  // relu, not in place, of earlier PyTorch
  // Until torch 1.10 softmax and log_softmax save their input beside their result: their backward
  // took it for its type (derivatives.yaml, _softmax_backward_data(grad, result, dim, self);
  // pytorch pull request 66018).
  bool softmax_saves_input = false;
  // offload.activations: saved tensors go to the host and come back for their node
  // (tape_offload.cpp).
  bool offloads_saved = false;
  // torch.compile: pointwise chains are fused and recomputed in backward (tape_compiled.cpp).
  bool compiled = false;
  // Ranks that split this layer's features or tokens among them.
  Group replicas;  // that hold the same parameters; told to blocks that exchange tables alone
  Group tensor, context;
  Group expert, expert_tensor;  // that its experts, or their features, are spread over
  double expert_imbalance = 1.0, expert_capacity = 1.0;  // as facts::ParallelKeys
  ContextCode context_code = ContextCode::sdpa_all_gather;
  bool async_tensor = false;  // tensor-parallel collectives run beside the products
  // Gradients of matrices are added by the product itself to the lasting ones, of this type
  // (--gradient-accumulation-fusion).
  std::optional<facts::DType> accumulates_into;

  friend bool operator==(const TapeOptions&, const TapeOptions&) = default;
};

class Tape {
 public:
  Tape(Program& program, TapeOptions options);
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  [[nodiscard]] const TapeOptions& options() const { return options_; }
  [[nodiscard]] const Arithmetic& arithmetic() const { return options_.arithmetic; }

  // Events go to `sink` from now on.
  void record_to(std::vector<Event>& sink) { sink_ = &sink; }
  [[nodiscard]] std::size_t recorded() const { return sink_->size(); }  // events so far
  // Events go nowhere: what dies after this is no part of the program (an abandoned trace).
  void stop_recording() { sink_ = &discarded_; }
  void set_backward(bool backward) { in_backward_ = backward; }
  void set_recomputing(bool recomputing) { recomputing_ = recomputing; }
  [[nodiscard]] bool recomputing() const { return recomputing_; }
  // Nodes made from now on save through a checkpoint's hooks, which hold this.
  void set_frame(std::shared_ptr<std::vector<StorageRef>> frame) { frame_ = std::move(frame); }
  void set_grad_enabled(bool enabled) { grad_enabled_ = enabled; }
  [[nodiscard]] bool grad_enabled() const { return grad_enabled_; }

  // The module whose code runs: "self_attn.q_proj". Part of the names of what it allocates.
  void enter(std::string module) { module_ = std::move(module); }

  [[nodiscard]] Tensor allocate(std::int64_t numel, DType dtype, std::string_view operation,
                                facts::VramCategory category = facts::VramCategory::temporaries);
  // The tensor with its dimensions told; without this a result takes those of an operand that has
  // as many elements.
  [[nodiscard]] Tensor shaped(Tensor tensor, std::initializer_list<std::int64_t> sizes);
  [[nodiscard]] Tensor shaped(Tensor tensor, const Extent& extent);
  // A tensor that exists before and after: no event.
  [[nodiscard]] Tensor external(std::int64_t numel, DType dtype);
  // A tensor under a slot of its own whose allocation happened elsewhere (carried over); freed
  // here.
  [[nodiscard]] Tensor adopted(std::int64_t numel, DType dtype, std::string_view operation,
                               facts::VramCategory category);
  [[nodiscard]] Tensor adopted(const Tensor& like, std::string_view operation,
                               facts::VramCategory category) {
    return shaped(adopted(like.numel, like.dtype, operation, category), like.extent);
  }
  // A tensor over a storage that exists: what a kernel writes in place.
  [[nodiscard]] static Tensor alias(StorageRef storage, std::int64_t numel, DType dtype);
  // Ends the tape's ownership: the slot stays allocated beyond it.
  std::int32_t disown(const Tensor& tensor);

  [[nodiscard]] bool tracks(std::initializer_list<const Tensor*> inputs) const;
  // Connects `output` to its inputs. `saved` are the storages the derivative needs.
  void track(Tensor& output, std::string_view operation, std::vector<Edge> inputs,
             std::vector<StorageRef> saved, Node::Backward backward);
  // For operators with several outputs: the node, whose outputs the caller marks himself.
  [[nodiscard]] NodeRef make_node(std::string_view operation, std::vector<Edge> inputs,
                                  std::vector<StorageRef> saved, Node::Backward backward);
  [[nodiscard]] static Edge edge_of(const Tensor& tensor);
  // Of an operand that may have been broadcast or promoted.
  [[nodiscard]] static Edge validated_edge_of(const Tensor& tensor);

  // Runs the nodes behind `root` with the given gradient. Gradients of leaves arrive in
  // `leaf_gradient`, in the order in which PyTorch would accumulate them.
  void run_backward(const Tensor& root, Tensor gradient);
  void run_backward(std::vector<std::pair<Tensor, Tensor>> roots_and_gradients);
  std::function<void(std::int32_t leaf, Tensor gradient)> leaf_gradient;
  // Where in the sink the first node of this backward pass that reads saved tensors began.
  [[nodiscard]] std::size_t first_unpacking() const { return first_unpacking_; }

  // Frees a storage that nodes still refer to; `restore` puts another in its place.
  void discard(const StorageRef& storage);
  static void restore(const StorageRef& storage, StorageRef remade);

  // What stands for a saved tensor while it is on the host; itself where it stays.
  [[nodiscard]] StorageRef offloaded(const StorageRef& storage);
  // The copies to the host are done.
  void drain_stash();
  // Bytes sent to the host so far.
  [[nodiscard]] Bytes offloaded_bytes() const { return offloaded_; }

  // Autocast's cached copy of a weight in the compute type; made at its first use.
  [[nodiscard]] Tensor cast_weight(const Tensor& weight);
  // Leaves autocast: the cache lets go.
  void clear_casts() { casts_.clear(); }

  // An operation starts that reads these tensors; what is allocated until it is tracked, or the
  // next one starts, is its result. Early stop of non-reentrant checkpointing ends a recomputation
  // where the last saved tensor is known: `track` remembers this place when it saves inputs only,
  // the place behind the operation when it saves its own results.
  void begin_operation(OperationKind kind = OperationKind::other,
                       std::initializer_list<const Tensor*> reads = {});

  // Compiled code: lets go of what the last operation read.
  void end_operation();

  // Selective recomputation by operation (torch/utils/checkpoint.py,
  // create_selective_checkpoint_contexts, with torchtitan's policy): the results of every second mm
  // (the first, the third ...) and of attention live from forward to their recomputation, which
  // takes them instead of computing.
  void set_cache(CacheMode mode);
  // Which results, by their order, are not kept: compiled code drops those that backward does not
  // read. After a trial run: those of which nothing is left.
  void leave_uncached(std::set<std::size_t> results) { uncached_ = std::move(results); }
  [[nodiscard]] std::set<std::size_t> unread_results();
  // Results that an early stop left unused.
  void clear_cache() {
    cached_.clear();
    served_.clear();
  }
  [[nodiscard]] const std::deque<StorageRef>& cached() const { return cached_; }

  // Compiled code: the tensor exists from here on, because a kernel that is not fused reads it.
  void materialise(const Tensor& tensor) { materialise(tensor.storage); }
  void materialise(const StorageRef& storage);
  // Compiled code: a random mask is not computed twice; `result` needs it besides its sources.
  void materialise_random(const Tensor& mask, const Tensor& result);
  // Compiled code casts a tensor once: common subexpressions are one. Empty when not known.
  [[nodiscard]] Tensor known_cast(const Tensor& tensor, DType dtype) const;
  void remember_cast(const Tensor& tensor, const Tensor& cast);
  // Removes from the current sink, from `first` on, what lies behind the last saved tensor.
  void stop_early(std::size_t first);

  // Records work; traffic is what the kernel reads and writes.
  void work(WorkKind kind, std::string_view operation, DType dtype, Flops flops, Bytes traffic);
  // A fused kernel; heads of so many elements.
  void attention(std::string_view operation, DType dtype, Flops flops, Bytes traffic,
                 std::int64_t head_dim);
  void gemm(std::string_view operation, DType dtype, std::int64_t m, std::int64_t n, std::int64_t k,
            std::int64_t batch, Bytes traffic);
  void pointwise(std::string_view operation, Bytes traffic) {
    work(WorkKind::memory, operation, DType::fp32, Flops(), traffic);
  }

  void communicate(Collective kind, std::string_view operation, Bytes payload, const Group& group,
                   bool overlaps);

  [[nodiscard]] std::int32_t intern(std::string_view operation);
  [[nodiscard]] Program& program() { return program_; }

 private:
  friend struct Storage;
  void emit(EventKind kind, std::int32_t index) { sink_->push_back({kind, index}); }
  [[nodiscard]] bool keeps_result(OperationKind kind);
  [[nodiscard]] bool from_cache() const { return cache_ == CacheMode::replay && result_kept_; }
  void settle(WorkKind kind);
  void settle_rest();
  [[nodiscard]] Tensor compiled_sum(const Tensor& a, const Tensor& b);
  void accumulate(Tensor& into, Tensor gradient);
  void tell_extent(Tensor& tensor);
  void validate(const Node& node, std::vector<Tensor>& gradients);
  [[nodiscard]] std::int32_t new_slot(Bytes bytes, std::string_view operation,
                                      facts::VramCategory category);

  Program& program_;
  TapeOptions options_;
  std::vector<Event> discarded_;  // outlives the tensors below that may still be freed
  std::vector<Event>* sink_ = &discarded_;
  std::deque<StorageRef> stash_;  // on their way to the host
  Bytes offloaded_;
  bool grad_enabled_ = true;
  bool in_backward_ = false;
  bool recomputing_ = false;
  std::shared_ptr<std::vector<StorageRef>> frame_;
  std::size_t first_unpacking_ = 0;
  std::string module_;
  std::int64_t next_sequence_ = 1;
  std::size_t operation_start_ = 0;  // event index in the current sink
  std::int32_t operation_slot_ = 0;  // slots from here on were made by the current operation
  std::size_t last_saved_ = 0;       // nothing is saved by events behind this index
  std::unordered_map<std::int32_t, Tensor> casts_;  // by leaf
  CacheMode cache_ = CacheMode::off;
  bool cacheable_ = false;    // the current operation's results, by the policy
  bool result_kept_ = false;  // and they are not left out
  std::int64_t products_ = 0;
  std::deque<StorageRef> cached_;
  std::size_t results_ = 0;  // that the cache could keep, seen so far
  std::set<std::size_t> uncached_;
  std::vector<std::weak_ptr<Storage>> kept_results_;  // by their order
  // Taken from the cache by operations that an early stop may leave out: they stay there then.
  std::vector<StorageRef> served_;
  std::size_t served_before_ = 0;                   // the current operation
  OperationKind operation_ = OperationKind::other;  // compiled code: the current one
  std::vector<Dimensions> alike_;                   // of what it reads
  std::vector<StorageRef> reads_, fresh_;           // what it reads; what it made
  std::unordered_map<std::string, std::int32_t> names_;
};

[[nodiscard]] inline Bytes bytes_of(std::int64_t numel, DType dtype) {
  return Bytes(checked_multiply(numel, facts::bytes_of(dtype)));
}
[[nodiscard]] inline Bytes bytes_of(const Tensor& tensor) {
  return bytes_of(tensor.numel, tensor.dtype);
}

}  // namespace steelyard::step
