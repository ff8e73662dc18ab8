#include "step/state_scan.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "step/primitives.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

// Multiprocessors, which decide into how many partial sums the gradients of B and C are split
// (_chunk_state_bwd_db): H100's; others differ by a few, and long sequences are not split.
constexpr std::int64_t kMultiprocessors = 132;

// Elements of one rank's tensors of one call.
struct Scan {
  std::int64_t batch = 1, tokens = 1;
  std::int64_t heads = 1, head_dim = 1, groups = 1, state = 1, chunk = 1;
  DType dtype = DType::bf16;

  [[nodiscard]] std::int64_t rows() const { return checked_multiply(batch, tokens); }
  [[nodiscard]] std::int64_t inner() const { return rows() * heads * head_dim; }
  [[nodiscard]] std::int64_t shared() const { return rows() * groups * state; }  // B, or C
  [[nodiscard]] std::int64_t mixed() const { return inner() + 2 * shared(); }    // x, B, C
  [[nodiscard]] std::int64_t whole() const { return inner() + mixed() + steps(); }
  [[nodiscard]] std::int64_t steps() const { return rows() * heads; }  // dt
  [[nodiscard]] std::int64_t chunks() const { return batch * ceil_divide(tokens, chunk); }
  [[nodiscard]] std::int64_t states() const { return chunks() * heads * head_dim * state; }
  [[nodiscard]] std::int64_t scores() const { return chunks() * groups * chunk * chunk; }
  // Heads of a group whose gradients of B and C a program sums by itself.
  [[nodiscard]] std::int64_t splits() const {
    const std::int64_t per_group = std::max<std::int64_t>(1, heads / groups);
    const std::int64_t wanted = ceil_divide(chunks() * heads, kMultiprocessors);
    return ceil_divide(per_group, std::clamp<std::int64_t>(wanted, 1, per_group));
  }
};

Scan scan_of(const OperatorCall& call, std::int64_t ranks) {
  const model::ScanShape& shape = call.op->scan;
  Scan scan;
  scan.batch = call.input_shapes[0].at(0);
  scan.tokens = checked_multiply(call.input_shapes[0].at(1), ranks);
  scan.heads = std::max<std::int64_t>(1, shape.heads / ranks);
  scan.head_dim = shape.head_dim;
  scan.groups = std::max<std::int64_t>(1, shape.groups / ranks);
  scan.state = shape.state;
  scan.chunk = std::max<std::int64_t>(1, shape.chunk);
  return scan;
}

Tensor made(Tape& t, std::int64_t numel, DType dtype, std::string_view name) {
  Tensor tensor = t.allocate(numel, dtype, name);
  t.pointwise(name, bytes_of(tensor));
  return tensor;
}

// --- A rank of a context-parallel group scans all tokens of its share of the heads
// ----------------

void exchange(Tape& t, std::int64_t numel, DType dtype) {
  t.communicate(Collective::all_to_all, "all_to_all_heads", bytes_of(numel, dtype),
                t.options().context, false);
}

// Each of the parts is exchanged by itself (_all_to_all_cp2hp), they are joined and put into the
// sequence's order (_undo_attention_load_balancing); and the other way round.
Tensor exchanged(Tape& t, std::int64_t before, std::int64_t after, DType dtype, bool inward) {
  Tensor arrived;
  if (inward) {
    made(t, before / 2, dtype, "cat");  // the largest part, laid out for sending
    arrived = made(t, after, dtype, "all_to_all_heads");
    exchange(t, before, dtype);
    const Tensor joined = made(t, after, dtype, "cat");
    return made(t, after, dtype, "cat");
  }
  Tensor ordered = made(t, before, dtype, "cat");
  arrived = made(t, before, dtype, "all_to_all_heads");
  exchange(t, before, dtype);
  ordered = Tensor();
  return made(t, after, dtype, "cat");
}

Tensor over_context(Tape& tape, Tensor argument, std::int64_t after, bool inward) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::other, {&x});
  const std::int64_t before = x.numel;
  const DType dtype = x.dtype;
  Tensor y = exchanged(tape, before, after, dtype, inward);
  if (!tape.tracks({&x})) return y;
  tape.track(y, "all_to_all_heads", {Tape::edge_of(x)}, {}, [=](Tape& t, const Gradients&) {
    return Gradients{exchanged(t, after, before, dtype, !inward)};
  });
  return y;
}

// --- Mamba-2
// ---------------------------------------------------------------------------------------

// 2 x rows x columns x depth of `many` products.
void products(Tape& t, std::string_view name, const Scan& s, std::int64_t many, std::int64_t m,
              std::int64_t n, std::int64_t k) {
  const Bytes traffic = bytes_of(many * (m * k + k * n + m * n), s.dtype);
  t.gemm(name, s.dtype, m, n, k, many, traffic);
}

// Of dt: its softplus and the decay, both fp32.
std::vector<Tensor> decays(Tape& t, const Scan& s) {
  Tensor dt = made(t, s.steps(), DType::fp32, "chunk_cumsum");
  Tensor decay = made(t, s.steps(), DType::fp32, "chunk_cumsum");
  return {std::move(dt), std::move(decay)};
}

Tensor chunk_states(Tape& t, const Scan& s) {
  Tensor states = t.allocate(s.states(), DType::fp32, "chunk_state");
  products(t, "chunk_state", s, s.chunks() * s.heads, s.head_dim, s.state, s.chunk);
  return states;
}

// What every chunk starts from, in place of what it adds.
Tensor passed_states(Tape& t, const Scan& s, const Tensor& own, DType dtype) {
  Tensor passed = t.allocate(s.states(), dtype, "state_passing");
  t.pointwise("state_passing", bytes_of(own) + bytes_of(passed));
  const Tensor last =
      t.allocate(s.batch * s.heads * s.head_dim * s.state, DType::fp32, "state_passing");
  return passed;
}

Tensor chunk_scores(Tape& t, const Scan& s) {
  Tensor scores = t.allocate(s.scores(), DType::fp32, "bmm_chunk");
  products(t, "bmm_chunk", s, s.chunks() * s.groups, s.chunk, s.chunk, s.state);
  return scores;
}

Tensor convolution(Tape& t, const Scan& s) {
  Tensor mixed = t.allocate(s.mixed(), s.dtype, "causal_conv1d");
  t.pointwise("causal_conv1d", 2 * bytes_of(mixed));
  return mixed;
}

struct ScanResult {
  Tensor out;     // behind the gate, where the scan itself applies it
  Tensor before;  // the gate: what is saved
};

// _mamba_chunk_scan_combined_fwd
ScanResult chunk_scan(Tape& t, const Scan& s, bool gates) {
  const Tensor mixed = convolution(t, s);
  const std::vector<Tensor> decay = decays(t, s);
  Tensor states = chunk_states(t, s);
  states = passed_states(t, s, states, s.dtype);
  const Tensor scores = chunk_scores(t, s);
  ScanResult result;
  result.out = t.allocate(s.inner(), s.dtype, "chunk_scan");
  result.before = gates ? t.allocate(s.inner(), s.dtype, "chunk_scan") : result.out;
  products(t, "chunk_scan", s, s.chunks() * s.heads, s.chunk, s.head_dim, s.chunk);
  products(t, "chunk_scan", s, s.chunks() * s.heads, s.chunk, s.head_dim, s.state);
  return result;
}

// _mamba_chunk_scan_combined_bwd; the gradients of x, B, C, dt and the gate are written into
// tensors that exist. `gates`: the gate's derivative makes a gradient of the scan's result.
void chunk_scan_gradient(Tape& t, const Scan& s, bool gates) {
  const Tensor steps = made(t, s.steps(), s.dtype, "clone");
  const std::vector<Tensor> decay = decays(t, s);
  const Tensor scores = chunk_scores(t, s);
  Tensor states = chunk_states(t, s);
  states = passed_states(t, s, states, DType::fp32);
  Tensor gated;
  if (gates) gated = made(t, s.inner(), s.dtype, "chunk_scan_gradient");
  const std::int64_t many = s.chunks() * s.heads;
  Tensor back = t.allocate(s.states(), DType::fp32, "chunk_scan_gradient");
  products(t, "chunk_scan_gradient", s, many, s.head_dim, s.state, s.chunk);
  {
    Tensor passed = t.allocate(s.states(), s.dtype, "state_passing_gradient");
    Tensor narrow = t.allocate(s.states(), s.dtype, "state_passing_gradient");
    t.pointwise("state_passing_gradient", bytes_of(states) + bytes_of(back) + 2 * bytes_of(passed));
    states = std::move(narrow);
    back = std::move(passed);
  }
  const Tensor step_gradient = made(t, s.steps(), DType::fp32, "chunk_scan_gradient");
  products(t, "chunk_scan_gradient", s, many, s.chunk, s.head_dim, s.chunk);
  products(t, "chunk_scan_gradient", s, many, s.chunk, s.head_dim, s.state);
  std::vector<Tensor> held;
  for (int i = 0; i < 2; ++i) {  // of B, then of C: partial sums in fp32, and a decay's gradient
    held.push_back(made(t, s.steps(), DType::fp32, "chunk_scan_gradient"));
    Tensor partial = t.allocate(s.splits() * s.shared(), DType::fp32, "chunk_scan_gradient");
    products(t, "chunk_scan_gradient", s, many, s.chunk, s.state, s.head_dim);
    held.push_back(made(t, s.shared(), DType::fp32, "sum"));
  }
  Tensor partial = t.allocate(s.splits() * s.scores(), DType::fp32, "chunk_scan_gradient");
  products(t, "chunk_scan_gradient", s, many, s.chunk, s.chunk, s.head_dim);
  const Tensor of_scores = made(t, s.scores(), DType::fp32, "sum");
  partial = Tensor();
  for (int i = 0; i < 2; ++i) {
    products(t, "bmm_chunk_gradient", s, s.chunks() * s.groups, s.chunk, s.state, s.chunk);
  }
  const Tensor decay_gradient = made(t, 4 * s.steps(), DType::fp32, "chunk_scan_gradient");
  products(t, "chunk_scan_gradient", s, many, s.chunk, s.chunk, s.head_dim);
}

// A result per row and group in fp32 beside the normed rows.
struct Normed {
  Tensor out, statistics;
};

Normed gated_norm(Tape& t, const Scan& s) {
  Normed normed;
  normed.out = t.allocate(s.inner(), s.dtype, "gated_rms_norm");
  normed.statistics = t.allocate(s.rows() * s.groups, DType::fp32, "gated_rms_norm");
  t.pointwise("gated_rms_norm", 3 * bytes_of(normed.out));
  return normed;
}

void projection(Tape& t, const Scan& s, std::string_view name, std::int64_t width) {
  const std::int64_t inner = s.heads * s.head_dim;
  t.gemm(name, s.dtype, s.rows(), width, inner, 1,
         bytes_of(s.inner() + s.rows() * width + inner * width, s.dtype));
}

// Weights behind A_log and D.
struct Parts {
  Tensor norm, project;
  std::int64_t width = 0;  // of the projection's result
};

Parts parts_of(const OperatorCall& call) {
  Parts parts;
  const std::int64_t inner = call.op->scan.channels();
  parts.width = call.output_shapes[0].back();
  for (std::size_t i = 3; i < call.weights.size(); ++i) {  // behind the convolution and dt's bias
    const Tensor& weight = call.weights[i];
    if (weight.numel == inner && inner != call.op->scan.heads) parts.norm = weight;
    if (weight.numel == inner * parts.width) parts.project = weight;
  }
  return parts;
}

// One gradient per weight of the operator, in its own type.
void add_weight_gradients(Tape& t, const std::vector<Tensor>& weights, Gradients& result) {
  for (const Tensor& weight : weights) {
    result.push_back(weight.requires_grad ? t.allocate(weight.numel, weight.dtype, "scan_weight")
                                          : Tensor());
  }
}

// Handles that a node may hold: sizes and types without their storages.
std::vector<Tensor> without_storage(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> bare = tensors;
  for (Tensor& tensor : bare) {
    tensor.storage.reset();
    tensor.node.reset();
  }
  return bare;
}

Gradients scan_gradient(Tape& t, const Scan& s, bool norms, std::int64_t width,
                        const std::vector<Tensor>& weights) {
  Tensor again;  // the normed rows, for the projection's weight
  if (width > 0) again = t.allocate(s.inner(), s.dtype, "gated_rms_norm");
  const Tensor mixed = convolution(t, s);
  Tensor dx = t.allocate(s.whole(), s.dtype, "scan_gradient");
  const Tensor of_mixed = t.allocate(s.mixed(), s.dtype, "scan_gradient");
  Tensor arriving;
  if (width > 0) {
    arriving = t.allocate(s.inner(), s.dtype, "mm");
    projection(t, s, "mm", width);
  }
  if (norms) {
    arriving = made(t, s.inner(), s.dtype, "gated_rms_norm_gradient");
    t.pointwise("gated_rms_norm_gradient", 4 * bytes_of(arriving));
  }
  chunk_scan_gradient(t, s, !norms);
  if (width > 0) projection(t, s, "mm_weight_gradient", width);
  t.pointwise("causal_conv1d_gradient", 3 * bytes_of(of_mixed));
  Gradients result = {dx};
  add_weight_gradients(t, weights, result);
  return result;
}

}  // namespace

Tensor state_scan(Tape& tape, const OperatorCall& call) {
  const std::int64_t ranks = tape.options().context.ranks;
  Scan s = scan_of(call, ranks);
  Tensor x = to_compute(tape, call.inputs[0]);
  s.dtype = x.dtype;
  const bool copies = call.op->scan.tokens_first && s.batch > 1;
  if (ranks > 1) x = over_context(tape, std::move(x), s.whole(), true);
  if (copies) x = contiguous(tape, view(std::move(x), false));
  Parts parts = parts_of(call);
  // F.linear of a copy in the compute type, which the node keeps.
  if (parts.project && parts.project.dtype != s.dtype) {
    const std::int64_t numel = parts.project.numel;
    parts.project = made(tape, numel, s.dtype, "to");
  }
  tape.begin_operation(OperationKind::other, {&x});
  const bool norms = static_cast<bool>(parts.norm);
  ScanResult scanned = chunk_scan(tape, s, !norms);
  std::vector<StorageRef> saved = {x.storage, scanned.before.storage};
  Tensor y = std::exchange(scanned.out, Tensor());
  if (norms) {
    const Normed normed = gated_norm(tape, s);
    saved.push_back(normed.statistics.storage);
    y = normed.out;
  }
  const std::int64_t width = parts.project ? parts.width : 0;
  if (width > 0) {
    saved.push_back(parts.project.storage);
    const Tensor normed = std::exchange(y, Tensor());
    y = tape.allocate(s.rows() * width, s.dtype, "mm");
    projection(tape, s, "mm", width);
  }
  std::vector<Edge> edges = {Tape::edge_of(x)};
  for (const Tensor& weight : call.weights) edges.push_back(Tape::edge_of(weight));
  const std::vector<Tensor> weights = without_storage(call.weights);
  scanned = ScanResult();
  x = Tensor();
  tape.track(y, "state_scan", std::move(edges), std::move(saved),
             [=](Tape& t, const Gradients&) { return scan_gradient(t, s, norms, width, weights); });
  if (copies) y = contiguous(tape, view(std::move(y), false));
  if (ranks > 1) y = over_context(tape, std::move(y), s.inner(), false);
  return y;
}

Tensor grouped_rms_norm(Tape& tape, Tensor argument, const Tensor& weight, std::int64_t groups) {
  const Tensor x = std::move(argument);
  const std::int64_t rows = x.numel / weight.numel;
  tape.begin_operation(OperationKind::reduction, {&x, &weight});
  Tensor y = tape.allocate(x.numel, x.dtype, "rms_norm");
  const Tensor statistics = tape.allocate(rows * groups, DType::fp32, "rms_norm");
  tape.pointwise("rms_norm", bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x, &weight})) return y;
  const std::int64_t numel = weight.numel;
  const DType affine = weight.dtype;
  tape.track(y, "rms_norm", {Tape::edge_of(x), Tape::edge_of(weight)},
             {x.storage, statistics.storage}, [=](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Tensor dx = t.allocate(dy.numel, dy.dtype, "rms_norm_backward");
               t.pointwise("rms_norm_backward", 3 * bytes_of(dy));
               return Gradients{dx, t.allocate(numel, affine, "rms_norm_backward")};
             });
  return y;
}

}  // namespace steelyard::step
