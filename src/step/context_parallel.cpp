#include "step/context_parallel.h"

#include <utility>
#include <vector>

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

// Sizes of one call, and the steps that the variants share. All of it is copied into the node.
struct Context {
  AttentionDims local;  // keys: of one rank
  bool efficient = false;
  DType dtype = DType::bf16;
  std::int64_t q = 0, k = 0, v = 0, out = 0;  // elements of this rank's tensors
  std::int64_t statistics = 0;
  Flops round;  // one of two products, of one round, their mean

  [[nodiscard]] std::int64_t ranks() const { return local.context; }
  [[nodiscard]] std::int64_t both() const { return k + v; }
};

Context context_of(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionDims& dims,
                   bool efficient) {
  Context c;
  c.local = dims;
  c.local.keys = dims.keys / dims.context;
  c.efficient = efficient;
  c.dtype = q.dtype;
  c.q = q.numel;
  c.k = k.numel;
  c.v = v.numel;
  c.out = q.numel / dims.head_dim * dims.values();
  c.statistics =
      dims.samples * dims.heads * (efficient ? round_up(dims.queries, 32) : dims.queries);
  const double scores = static_cast<double>(dims.samples * dims.heads) *
                        static_cast<double>(dims.queries) * static_cast<double>(c.local.keys) *
                        dims.computed_share;
  c.round = Flops(scores * static_cast<double>(dims.head_dim + dims.values()));
  return c;
}

// The code is traced into a compiled layer's own graph, where its pointwise parts are fused; to
// eager code, and to what a checkpoint keeps of it, it is one operation.
void begin_part(Tape& t, OperationKind kind, std::initializer_list<const Tensor*> reads) {
  if (t.options().compiled) t.begin_operation(kind, reads);
}

Tensor pointwise_of(Tape& t, std::initializer_list<const Tensor*> reads, std::int64_t numel,
                    DType dtype, std::string_view name) {
  begin_part(t, OperationKind::pointwise, reads);
  Tensor made = t.allocate(numel, dtype, name);
  t.pointwise(name, 2 * bytes_of(made));
  return made;
}

Tensor part_of(const Tensor& buffer, std::int64_t numel) {
  return Tape::alias(buffer.storage, numel, buffer.dtype);
}

struct Partial {
  Tensor out, statistics, seed, offset;
};

// One kernel over a share of the queries (1 or 1/2) and some of the keys.
Partial run_kernel(Tape& t, const Context& c, std::int64_t share = 1,
                   std::initializer_list<const Tensor*> reads = {}) {
  if (reads.size() > 0) begin_part(t, OperationKind::attention, reads);
  const std::string_view name = c.efficient ? "efficient_attention" : "flash_attention";
  Partial made;
  made.out = t.allocate(c.out / share, c.dtype, name);
  made.statistics = t.allocate(c.statistics / share, DType::fp32, name);
  made.seed = t.allocate(1, DType::int64, name);
  made.offset = t.allocate(1, DType::int64, name);
  t.work(WorkKind::attention, name, c.dtype, 2.0 * c.round, bytes_of(2 * c.q + c.both(), c.dtype));
  return made;
}

// The derivative of one kernel: gradients of q, k and v of these sizes. Its workspaces go with it.
Gradients run_derivative(Tape& t, const Context& c, std::int64_t q, std::int64_t k,
                         std::int64_t v) {
  Gradients result;
  for (const std::int64_t numel : {q, k, v}) {
    result.push_back(t.allocate(numel, c.dtype, "attention_gradient"));
  }
  const std::vector<Tensor> held = attention_workspace(t, c.local, c.efficient, c.dtype);
  // Five products instead of two: the scores are computed again.
  t.work(WorkKind::attention, "attention_gradient", c.dtype, 5.0 * c.round,
         bytes_of(4 * c.q + 2 * c.both(), c.dtype));
  return result;
}

// --- PyTorch ---------------------------------------------------------------------------------

// _RingRotater: what was sent lives until the next buffer is waited for.
class Rotater {
 public:
  Rotater(Tape& tape, bool gathers) : tape_(tape), gathers_(gathers) {}

  void exchange(Tensor sent) {
    const Group& group = tape_.options().context;
    const Bytes bytes = bytes_of(sent);
    if (gathers_ && buffer_) return;  // all keys and values came at once
    const std::string_view name = gathers_ ? "all_gather_context" : "rotate_context";
    begin_part(tape_, OperationKind::other, {&sent});
    buffer_ = tape_.allocate(gathers_ ? sent.numel * group.ranks : sent.numel, sent.dtype, name);
    if (gathers_) {
      tape_.communicate(Collective::all_gather, name, group.ranks * bytes, group, false);
    } else {
      tape_.communicate(Collective::send, name, bytes, group, true);
    }
    sent_ = std::move(sent);
  }
  [[nodiscard]] const Tensor& next() {
    sent_ = Tensor();
    return buffer_;
  }

 private:
  Tape& tape_;
  bool gathers_;
  Tensor buffer_, sent_;
};

Tensor joined(Tape& t, const Tensor& a, const Tensor& b) {
  return pointwise_of(t, {&a, &b}, a.numel + b.numel, a.dtype, "cat");
}

Tensor dense_copy(Tape& t, const Tensor& x) {
  if (x.dense) return Tape::alias(x.storage, x.numel, x.dtype);
  return pointwise_of(t, {&x}, x.numel, x.dtype, "clone");
}

// _SDPAMerger in fp32: out - sigmoid(block_lse - lse) * (out - block_out).
void merge(Tape& t, const Context& c, Tensor& merged, const Partial& round) {
  const Tensor& out = round.out;
  begin_part(t, OperationKind::pointwise, {&out, &round.statistics, &merged});
  const Tensor block = t.allocate(c.out, DType::fp32, "merge");
  t.pointwise("merge", bytes_of(out) + bytes_of(block));
  if (!merged) {
    merged = block;
    return;
  }
  const Bytes pass = 3 * bytes_of(c.out, DType::fp32);
  Tensor weight = t.allocate(c.statistics, DType::fp32, "merge");
  Tensor difference = t.allocate(c.out, DType::fp32, "merge");
  t.pointwise("merge", pass);
  const Tensor product = t.allocate(c.out, DType::fp32, "merge");
  t.pointwise("merge", pass);
  difference = Tensor();
  weight = Tensor();
  Tensor result = t.allocate(c.out, DType::fp32, "merge");
  t.pointwise("merge", pass);
  merged = std::move(result);
}

Partial templated_ring(Tape& t, const Context& c, const Tensor& query, const Tensor& key,
                       const Tensor& value, bool gathers) {
  Tensor k = dense_copy(t, key);
  Tensor v = dense_copy(t, value);
  Rotater rotater(t, gathers);
  Tensor merged;
  Partial block;
  for (std::int64_t round = 0; round < c.ranks(); ++round) {
    if (round > 0) {
      k = part_of(rotater.next(), c.k);
      v = part_of(rotater.next(), c.v);
    }
    if (round + 1 < c.ranks()) rotater.exchange(joined(t, k, v));
    block = run_kernel(t, c, 1, {&query, &k, &v});
    merge(t, c, merged, block);
  }
  Partial result = block;
  begin_part(t, OperationKind::pointwise, {&merged});
  result.out = t.allocate(c.out, c.dtype, "merge");
  t.pointwise("merge", bytes_of(merged) + bytes_of(result.out));
  result.statistics = t.allocate(c.statistics, DType::fp32, "merge");
  begin_part(t, OperationKind::other,
             {&result.out, &result.statistics});  // backward's kernels read
  return result;
}

// A gradient that went around: added to by the rank that holds a part of these keys.
Tensor updated(Tape& t, const Tensor& gradient, const Tensor& own) {
  return pointwise_of(t, {&gradient, &own}, gradient.numel, gradient.dtype, "cat");
}

Gradients templated_ring_gradient(Tape& t, const Context& c, const Tensor& key, const Tensor& value,
                                  bool gathers) {
  const bool fuses = t.options().compiled;  // zeros and the sums over the rounds
  Tensor dq, dk, dv;
  if (!fuses) {
    dq = t.allocate(c.q, DType::fp32, "zeros");
    dk = t.allocate(c.k, DType::fp32, "zeros");
    dv = t.allocate(c.v, DType::fp32, "zeros");
  }
  Tensor k = dense_copy(t, key);
  Tensor v = dense_copy(t, value);
  Rotater keys(t, gathers);
  Rotater gradients(t, false);
  Gradients own;
  Tensor sent;
  for (std::int64_t round = 0; round < c.ranks(); ++round) {
    if (round > 0) {
      k = part_of(keys.next(), c.k);
      v = part_of(keys.next(), c.v);
    }
    if (round + 1 < c.ranks()) keys.exchange(joined(t, k, v));
    begin_part(t, OperationKind::attention, {&k, &v});
    own = run_derivative(t, c, c.q, c.k, c.v);
    if (round > 0) {
      const Tensor arrived = gradients.next();
      sent = arrived;
      dk = part_of(arrived, c.k);
      dv = part_of(arrived, c.v);
      dk = updated(t, dk, own[1]);
      dv = updated(t, dv, own[2]);
    } else if (fuses) {
      dk = pointwise_of(t, {&own[1]}, c.k, DType::fp32, "add");
      dv = pointwise_of(t, {&own[2]}, c.v, DType::fp32, "add");
    }
    sent = joined(t, dk, dv);
    gradients.exchange(sent);
    if (fuses) {
      dq = pointwise_of(t, {&dq, &own[0]}, c.q, DType::fp32, "add");
    } else {
      t.pointwise("add", 3 * bytes_of(dq));
    }
  }
  const Tensor query = pointwise_of(t, {&dq}, c.q, c.dtype, "to");
  const Tensor& last = gradients.next();
  const Tensor both = pointwise_of(t, {&last}, c.both(), c.dtype, "to");
  return {query, part_of(both, c.k), part_of(both, c.v)};
}

// --- Transformer Engine ------------------------------------------------------------------------

// AttnFuncWithCPAndKVP2P keeps every buffer and every round's result until it returns.
Partial engine_ring(Tape& t, const Context& c, Tensor& kept) {
  const Group& group = t.options().context;
  std::vector<Tensor> buffers = {t.allocate(c.both(), c.dtype, "cat")};
  t.pointwise("cat", 2 * bytes_of(buffers[0]));
  std::vector<Partial> rounds;
  Partial result;
  for (std::int64_t round = 0; round < c.ranks(); ++round) {
    if (round + 1 < c.ranks()) {
      buffers.push_back(t.allocate(c.both(), c.dtype, "rotate_context"));
      t.communicate(Collective::send, "rotate_context", bytes_of(buffers.back()), group, true);
    }
    rounds.push_back(run_kernel(t, c));
    if (round == 0) result.statistics = t.allocate(c.statistics, DType::fp32, "merge");
  }
  result.out = t.allocate(c.out, c.dtype, "merge");
  for (const Partial& round : rounds) t.pointwise("merge", 2 * bytes_of(round.out));
  result.seed = rounds.back().seed;
  result.offset = rounds.back().offset;
  kept = buffers.back();
  return result;
}

Gradients engine_ring_gradient(Tape& t, const Context& c) {
  const Group& group = t.options().context;
  const Tensor dq = t.allocate(c.q, c.dtype, "attention_gradient");
  // Keys and values, and their gradients, go around together.
  const Tensor buffers[2] = {t.allocate(2 * c.both(), c.dtype, "rotate_context"),
                             t.allocate(2 * c.both(), c.dtype, "rotate_context")};
  Gradients own;
  for (std::int64_t round = 0; round < c.ranks(); ++round) {
    const bool half = round == 0 || round + 1 == c.ranks();
    t.communicate(Collective::send, "rotate_context",
                  half ? bytes_of(c.both(), c.dtype) : bytes_of(buffers[0]), group, true);
    own = run_derivative(t, c, c.q, c.k, c.v);
    t.pointwise("add", 3 * bytes_of(c.q + c.both(), c.dtype));
  }
  const Tensor& last = buffers[c.ranks() % 2];
  return {dq, part_of(last, c.k), part_of(last, c.v)};
}

// gather_along_first_dim of keys and of values, then index_select into the sequence's order.
std::vector<Tensor> gathered_in_order(Tape& t, const Context& c) {
  const Group& group = t.options().context;
  std::vector<Tensor> held;
  for (const std::int64_t numel : {c.k, c.v}) {
    held.push_back(t.allocate(c.ranks() * numel, c.dtype, "all_gather_context"));
    t.communicate(Collective::all_gather, "all_gather_context", bytes_of(held.back()), group,
                  false);
  }
  for (Tensor& gathered : held) {
    gathered = t.allocate(gathered.numel, c.dtype, "index_select");
    t.pointwise("index_select", 2 * bytes_of(gathered));
  }
  return held;
}

// AttnFuncWithCPAndKVAllGather: one kernel for each of the rank's two chunks of queries.
Partial engine_gathered(Tape& t, Context c, Tensor& kept) {
  const std::vector<Tensor> held = gathered_in_order(t, c);
  Partial result;
  result.out = t.allocate(c.out, c.dtype, "merge");
  c.round = static_cast<double>(c.ranks()) / 2.0 * c.round;
  const Partial first = run_kernel(t, c, 2);
  const Partial second = run_kernel(t, c, 2);
  t.pointwise("copy", 2 * bytes_of(result.out));
  result.statistics = first.statistics;
  result.seed = first.seed;
  result.offset = second.seed;
  kept = second.statistics;
  return result;
}

// Played is the first rank: its second chunk is the sequence's last and reads every key.
Gradients engine_gathered_gradient(Tape& t, Context c) {
  const Group& group = t.options().context;
  const std::int64_t ranks = c.ranks();
  const Tensor dq = t.allocate(c.q, c.dtype, "attention_gradient");
  const Tensor dk = t.allocate(ranks * c.k, c.dtype, "zeros");
  const Tensor dv = t.allocate(ranks * c.v, c.dtype, "zeros");
  const std::vector<Tensor> held = gathered_in_order(t, c);
  c.round = static_cast<double>(ranks) / 2.0 * c.round;
  const Gradients first = run_derivative(t, c, c.q / 2, c.k / 2, c.v / 2);
  const Gradients second = run_derivative(t, c, c.q / 2, ranks * c.k, ranks * c.v);
  t.pointwise("add", 3 * bytes_of(ranks * c.both(), c.dtype));
  Gradients result = {dq};
  for (const Tensor& whole : {dk, dv}) {
    result.push_back(t.allocate(whole.numel / ranks, c.dtype, "reduce_scatter_context"));
    t.communicate(Collective::reduce_scatter, "reduce_scatter_context", bytes_of(whole), group,
                  false);
  }
  return result;
}

}  // namespace

Tensor attention_over_context(Tape& tape, Tensor query, Tensor key, Tensor value,
                              const AttentionDims& dims, bool efficient) {
  const Tensor v = to_compute(tape, std::move(value));
  const Tensor k = to_compute(tape, std::move(key));
  const Tensor q = to_compute(tape, std::move(query));
  tape.begin_operation(OperationKind::attention, {&q, &k, &v});
  const Context c = context_of(q, k, v, dims, efficient);
  const ContextCode code = tape.options().context_code;
  const bool engine = code == ContextCode::engine_ring || code == ContextCode::engine_all_gather;
  const bool gathers =
      code == ContextCode::sdpa_all_gather || code == ContextCode::engine_all_gather;
  Tensor kept;  // what is saved besides, or instead of keys and values
  Partial made;
  if (!engine) {
    made = templated_ring(tape, c, q, k, v, gathers);
  } else {
    made = gathers ? engine_gathered(tape, c, kept) : engine_ring(tape, c, kept);
  }
  if (!tape.tracks({&q, &k, &v})) return made.out;
  std::vector<StorageRef> saved = {q.storage, made.out.storage, made.statistics.storage,
                                   made.seed.storage, made.offset.storage};
  if (kept) saved.push_back(kept.storage);
  if (code != ContextCode::engine_ring) {
    saved.push_back(k.storage);
    saved.push_back(v.storage);
  }
  // Only their layout is needed again.
  const bool dense[2] = {k.dense, v.dense};
  tape.track(made.out, "context_attention", {Tape::edge_of(q), Tape::edge_of(k), Tape::edge_of(v)},
             std::move(saved), [=](Tape& t, const Gradients&) {
               if (code == ContextCode::engine_ring) return engine_ring_gradient(t, c);
               if (engine) return engine_gathered_gradient(t, c);
               Tensor keys = Tape::alias(nullptr, c.k, c.dtype);
               Tensor values = Tape::alias(nullptr, c.v, c.dtype);
               keys.dense = dense[0];
               values.dense = dense[1];
               return templated_ring_gradient(t, c, keys, values, gathers);
             });
  return made.out;
}

}  // namespace steelyard::step
