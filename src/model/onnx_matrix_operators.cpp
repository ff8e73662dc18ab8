// Matrix products and recurrent networks.
#include <fmt/format.h>

#include <algorithm>

#include "model/onnx_lowering.h"

namespace steelyard::model {

namespace {

using Wholes = std::vector<std::int64_t>;

bool is_matrix(const OnnxValue& value) {
  return value.is_weight() && value.initializers.size() == 1 && value.rank() == 2 &&
         value.numel() == elements(value.initializers.front()->dims);
}

// x [..., K] times a weight: a linear.
OnnxValue linear(OnnxCall& call, const OnnxValue& x, const OnnxValue& matrix,
                 std::int64_t outputs) {
  const OnnxValue in = x;
  const std::int32_t weight = call.lowering.weight(matrix, WeightRole::matrix);
  Shape shape = in.shape;
  shape.back() = outputs;
  OnnxValue out = call.lowering.emit(OperatorKind::linear, call, {&in}, std::move(shape));
  Operator& op = call.lowering.last();
  op.weights = {weight};
  const std::string& name = matrix.initializers.front()->name;
  constexpr std::string_view kSuffix = ".weight";
  if (name.ends_with(kSuffix)) op.name = name.substr(0, name.size() - kSuffix.size());
  out.differentiable = out.of_data = true;
  return out;
}

// What a linear reads: addmm takes rows that lie apart (x[:, 0]), of more dimensions it copies.
OnnxValue rows_of(const OnnxCall& call, const OnnxValue& x) {
  const bool apart = x.is_tensor() && x.rank() == 2 && x.strides.back() == 1;
  return x.is_weight() || apart ? x : call.lowering.ordered(call, x);
}

// expand().reshape() to [n,rows,columns], which copies where the views do not allow it (ATen,
// _matmul_impl).
OnnxValue batched(OnnxCall& call, const OnnxValue& value, const Shape& batch) {
  Shape shape = batch;
  shape.push_back(value.shape[value.shape.size() - 2]);
  shape.push_back(value.shape.back());
  OnnxValue wide = value;
  if (shape.size() != value.shape.size() || elements(shape) != value.numel()) {
    Shape padded(shape.size() - value.shape.size(), 1);
    BatchPlaces places(padded.size());
    padded.insert(padded.end(), value.shape.begin(), value.shape.end());
    places.insert(places.end(), value.places.begin(), value.places.end());
    places.resize(padded.size());
    wide = call.lowering.viewed(call, value, padded, std::move(places));
    if (elements(shape) != value.numel()) {
      const Shape before = wide.shape;
      Shape strides = wide.is_tensor() ? wide.strides : contiguous_strides(before);
      wide = call.lowering.emit(OperatorKind::expand, call, {&wide}, shape);
      for (std::size_t i = 0; i < shape.size(); ++i) {
        if (before[i] != shape[i]) strides[i] = 0;
      }
      wide.strides = strides;
    }
  }
  if (!wide.is_tensor()) return wide;
  const Shape three = {elements(batch), shape[shape.size() - 2], shape.back()};
  const auto folded = places_of_view(wide.shape, wide.places, three, call.lowering.fixed_batch);
  if (folded && strides_of_view(call.lowering.sized(wide.shape, wide.places), wide.strides,
                                call.lowering.sized(three, *folded))) {
    return wide;
  }
  return call.lowering.ordered(call, wide);
}

// Batches come from both matrices, rows from the first, columns from the second.
BatchPlaces places_of_product(const OnnxValue& a, const OnnxValue& b, std::size_t rank) {
  BatchPlaces places(rank);
  for (std::size_t i = 0; i + 1 < rank && i < a.places.size(); ++i) places[i] = a.places[i];
  for (std::size_t i = 0; i + 2 < rank && i < b.places.size(); ++i) {
    if (!places[i].there()) places[i] = b.places[i];
  }
  if (!b.places.empty()) places.back() = b.places.back();
  return places;
}

void general_product(OnnxCall& call, const OnnxValue& first, const OnnxValue& second) {
  OnnxValue a = first, b = second;
  const bool row = a.rank() == 1, column = b.rank() == 1;
  if (row) a = call.lowering.viewed(call, a, {1, a.shape[0]});
  if (column) b = call.lowering.viewed(call, b, {b.shape[0], 1});
  const Shape batch_a(a.shape.begin(), a.shape.end() - 2);
  const Shape batch_b(b.shape.begin(), b.shape.end() - 2);
  const auto batch = broadcast_of(batch_a, batch_b);
  if (a.shape.back() != b.shape[b.shape.size() - 2] || !batch) {
    return call.refuse("matrices that do not meet", "[...,M,K] and [...,K,N]");
  }
  Shape out = *batch;
  if (!row) out.push_back(a.shape[a.shape.size() - 2]);
  if (!column) out.push_back(b.shape.back());
  if (a.is_constant() && b.is_constant()) {
    call.out[0].shape = out;
    call.out[0].kind = a.kind;
    return;
  }
  const bool folds = b.rank() == 2 && a.rank() > 2;  // rows of all matrices become one matrix
  if (folds) {
    const Shape rows = {a.numel() / std::max<std::int64_t>(a.shape.back(), 1), a.shape.back()};
    a = call.lowering.viewed(call, a, rows);
  } else {
    a = batched(call, a, *batch);
    b = batched(call, b, *batch);
  }
  Shape product = a.shape;
  product.back() = b.shape.back();
  std::vector<OnnxValue> matrices = {a, b};
  constexpr std::size_t kMatrix = 2;  // rows and columns differ
  if (!folds) call.lowering.meet(call, matrices, {.broadcasts = true, .but_for_last = kMatrix});
  OnnxValue result =
      call.lowering.emit(OperatorKind::matmul, call, {&matrices[0], &matrices[1]}, product, a.kind);
  if (call.lowering.moves_batch()) {
    call.lowering.place(result, places_of_product(matrices[0], matrices[1], product.size()));
  }
  call.out[0] = call.lowering.viewed(call, result, out);
}

void lower_matmul(OnnxCall& call) {
  const OnnxValue& a = call.at(0);
  const OnnxValue& b = call.at(1);
  // Rotary frequencies times positions: what is stored meets nothing of the data.
  const auto stands_alone = [](const OnnxValue& value, const OnnxValue& other) {
    return value.is_weight() && !is_matrix(value) && !other.of_data && !other.is_weight();
  };
  if (stands_alone(a, b) || stands_alone(b, a)) {
    OnnxValue left = a, right = b;
    left.initializers.clear();
    right.initializers.clear();
    return general_product(call, left, right);
  }
  if (a.rank() == 0 || b.rank() == 0) return call.refuse("a single number", "matrices");
  const bool meets = b.rank() == 2 && a.shape.back() == b.shape[0];
  if (meets && is_matrix(b) && a.rank() >= 2) {
    call.out[0] = linear(call, rows_of(call, a), b, b.shape[1]);
    return;
  }
  general_product(call, a, b);
}

Shape swapped(const Shape& shape) {
  return {shape[1], shape[0]};
}

void lower_gemm(OnnxCall& call) {
  const OnnxValue& a = call.at(0);
  const OnnxValue& b = call.at(1);
  if (a.rank() != 2 || b.rank() != 2) return call.refuse("no matrices", "[M,K] and [K,N]");
  const bool turns_a = call.whole("transA", 0) != 0;
  const bool turns_b = call.whole("transB", 0) != 0;
  const Shape left = turns_a ? swapped(a.shape) : a.shape;
  const Shape right = turns_b ? swapped(b.shape) : b.shape;
  if (left[1] != right[0]) return call.refuse("matrices that do not meet", "[M,K] and [K,N]");
  const bool biased = call.has(2);
  const bool bias_fits = biased && call.at(2).is_weight() && call.at(2).rank() == 1 &&
                         call.at(2).initializers.size() == 1 &&
                         call.at(2).shape.front() == right[1];
  if (is_matrix(b) && !turns_a && a.is_tensor() && (!biased || bias_fits)) {
    call.out[0] = linear(call, rows_of(call, a), b, right[1]);
    if (!biased) return;
    const std::int32_t bias = call.lowering.weight(call.at(2), WeightRole::bias);
    call.lowering.made_by(call.out[0]).weights.push_back(bias);
    return;
  }
  const auto turned = [&](const OnnxValue& value, const Shape& shape) {
    if (value.shape == shape && value.is_tensor()) return value;
    OnnxValue result = value;
    result.shape = shape;
    if (value.is_tensor()) std::reverse(result.strides.begin(), result.strides.end());
    std::reverse(result.places.begin(), result.places.end());
    return result;
  };
  general_product(call, turns_a ? turned(a, left) : a, turns_b ? turned(b, right) : b);
  if (!biased || !call.well()) return;
  const auto shape = broadcast_of(call.out[0].shape, call.at(2).shape);
  if (!shape || *shape != call.out[0].shape) {
    return call.refuse("a bias that does not fit", "one number for each column");
  }
  const OnnxValue product = call.out[0];
  call.out[0] = call.lowering.emit(OperatorKind::binary, call, {&product, &call.at(2)}, *shape);
}

// --- Einsum: one or two operands, each letter once in each ---

std::vector<std::string> terms_of(std::string equation) {
  std::erase(equation, ' ');
  std::vector<std::string> terms;
  std::string term;
  for (std::size_t i = 0; i < equation.size(); ++i) {
    const bool arrow = equation.compare(i, 2, "->") == 0;
    if (equation[i] != ',' && !arrow) {
      term += equation[i];
      continue;
    }
    terms.push_back(std::exchange(term, ""));
    if (arrow) ++i;
  }
  terms.push_back(term);
  return terms;
}

using LetterPlaces = std::map<char, BatchPlace>;

LetterPlaces letter_places(const OnnxCall& call, const std::vector<std::string>& terms) {
  LetterPlaces letters;
  for (std::size_t i = 0; i < call.in.size(); ++i) {
    const BatchPlaces& places = call.at(i).places;
    for (std::size_t at = 0; at < places.size(); ++at) {
      if (places[at].there()) letters[terms[i][at]] = places[at];
    }
  }
  return letters;
}

// n: of both operands and the result, k: summed over, m and c: of one operand.
char group_of(char letter, const std::vector<std::string>& terms) {
  const auto in = [&](std::size_t i) { return terms[i].find(letter) != std::string::npos; };
  if (in(0) && in(1)) return in(2) ? 'n' : 'k';
  return in(0) ? 'm' : 'c';
}

void lower_einsum(OnnxCall& call) {
  const std::vector<std::string> terms = terms_of(call.text("equation", ""));
  const std::size_t operands = call.in.size();
  std::map<char, std::int64_t> sizes;
  bool fits = terms.size() == operands + 1 && operands <= 2;
  for (std::size_t i = 0; fits && i < operands; ++i) {
    fits = call.has(i) && std::ssize(terms[i]) == call.at(i).rank();
    for (std::size_t at = 0; fits && at < terms[i].size(); ++at) {
      const auto [entry, fresh] = sizes.emplace(terms[i][at], call.at(i).shape[at]);
      const bool once = std::count(terms[i].begin(), terms[i].end(), terms[i][at]) == 1;
      fits = once && (fresh || entry->second == call.at(i).shape[at]);
    }
  }
  Shape out;
  for (std::size_t at = 0; fits && at < terms.back().size(); ++at) {
    const auto found = sizes.find(terms.back()[at]);
    fits = found != sizes.end();
    if (fits) out.push_back(found->second);
  }
  if (!fits) {
    return call.refuse(fmt::format("the equation \"{}\"", call.text("equation", "")),
                       "one or two operands, \"bhqd,bhkd->bhqk\", whose sizes agree");
  }
  if (operands == 1) {
    const OnnxValue& x = call.at(0);
    const bool sums = elements(out) < x.numel();
    call.out[0] =
        call.lowering.emit(sums ? OperatorKind::reduce : OperatorKind::unary, call, {&x}, out);
    BatchPlaces kept;
    const LetterPlaces of_x = letter_places(call, terms);
    for (const char letter : terms.back()) {
      const auto found = of_x.find(letter);
      kept.push_back(found != of_x.end() ? found->second : BatchPlace());
    }
    if (call.lowering.moves_batch()) call.lowering.place(call.out[0], std::move(kept));
    return;
  }
  // torch.einsum permutes both to [n,M,K] and [n,K,N] and multiplies once (Linear.cpp, sumproduct).
  std::int64_t batch = 1, rows = 1, columns = 1, shared = 1;
  for (const auto& [letter, size] : sizes) {
    const char of = group_of(letter, terms);
    std::int64_t& group = of == 'n' ? batch : of == 'k' ? shared : of == 'm' ? rows : columns;
    group = checked_multiply(group, size);
  }
  const OnnxValue a = call.lowering.ordered(call, call.at(0));
  const OnnxValue b = call.lowering.ordered(call, call.at(1));
  const Shape first = {batch, rows, shared}, second = {batch, shared, columns};
  const Shape third = {batch, rows, columns};
  const LetterPlaces letters = letter_places(call, terms);
  const std::int64_t fixed = std::max<std::int64_t>(call.lowering.fixed_batch, 1);
  // Its letters are one dimension of three: only how often the batch is in it counts.
  const auto grouped = [&](const Shape& sizes_of, std::string_view groups) {
    BatchPlaces places(sizes_of.size());
    for (const auto& [letter, place] : letters) {
      const std::size_t at = groups.find(group_of(letter, terms));
      if (at < places.size()) places[at] = {sizes_of[at] / fixed, 1};
    }
    return places;
  };
  const OnnxValue left = call.lowering.viewed(call, a, first, grouped(first, "nmk"));
  const OnnxValue right = call.lowering.viewed(call, b, second, grouped(second, "nkc"));
  OnnxValue product = call.lowering.emit(OperatorKind::matmul, call, {&left, &right}, third);
  if (call.lowering.moves_batch()) call.lowering.place(product, grouped(third, "nmc"));
  BatchPlaces places;
  for (const char letter : terms[2]) {
    const auto found = letters.find(letter);
    places.push_back(found != letters.end() ? found->second : BatchPlace());
  }
  call.out[0] = call.lowering.viewed(call, product, out, std::move(places));
}

// --- Recurrent ---

std::int64_t gates_of(const std::string& type) {
  constexpr std::int64_t kLstm = 4, kGru = 3;
  return type == "LSTM" ? kLstm : type == "GRU" ? kGru : 1;
}

void lower_recurrent(OnnxCall& call) {
  const std::string& type = call.node.op_type;
  const OnnxValue& x = call.at(0);
  const OnnxValue& w = call.at(1);
  const OnnxValue& r = call.at(2);
  const std::int64_t gates = gates_of(type);
  const bool by_sample = call.whole("layout", 0) != 0;
  const bool fits = x.rank() == 3 && w.rank() == 3 && r.rank() == 3 && w.shape[0] == r.shape[0] &&
                    w.shape[2] == x.shape[2] && w.shape[1] == gates * r.shape[2] &&
                    r.shape[1] == w.shape[1] && !x.is_constant();
  if (!fits || by_sample) {
    return call.refuse("shapes that do not fit",
                       "X [S,B,I], W [D,gates*H,I] and R [D,gates*H,H], layout 0");
  }
  const std::int64_t directions = w.shape[0], hidden = r.shape[2];
  std::vector<std::int32_t> weights;
  for (std::size_t i = 1; i <= 3 && i < call.in.size(); ++i) {
    if (!call.has(i)) continue;
    for (const facts::OnnxTensor* tensor : call.at(i).initializers) {
      OnnxValue one;
      one.initializers = {tensor};
      weights.push_back(call.lowering.weight(one, i == 3 ? WeightRole::bias : WeightRole::matrix));
    }
  }
  const OnnxValue in = call.lowering.ordered(call, x);
  const Shape states = {in.shape[0], directions, in.shape[1], hidden};
  OnnxValue all = call.lowering.emit(OperatorKind::recurrent, call, {&in}, states);
  BatchPlaces steps(states.size());
  if (!in.places.empty()) {
    steps[0] = in.places[0];
    steps[2] = in.places[1];
  }
  call.lowering.place(all, steps);
  call.lowering.last().weights = std::move(weights);
  call.lowering.last().groups = gates;
  all.differentiable = all.of_data = true;
  const Shape state = {directions, in.shape[1], hidden};
  std::vector<OnnxValue> outputs = {all};
  for (int i = 0; i < (type == "LSTM" ? 2 : 1); ++i) {
    outputs.push_back(call.lowering.result(call, state));
    call.lowering.place(outputs.back(), {steps[1], steps[2], steps[3]});
  }
  if (call.out.size() > outputs.size()) return call.refuse("too many outputs", "Y, Y_h, Y_c");
  for (std::size_t i = 0; i < call.out.size(); ++i) call.out[i] = outputs[i];
}

// A mask that a gradient reaches is a bias that is learned (relative positions), and one that is
// the same for all rows hides padding: neither hides the future.
bool may_hide_future(const OnnxValue& mask, const OnnxValue& q) {
  if (mask.is_tensor() && mask.differentiable) return false;
  const bool one_row = mask.rank() >= 2 && mask.shape[mask.shape.size() - 2] == 1;
  return !one_row || q.shape[2] == 1;
}

// q, k, v [B,n,S,d], perhaps a mask: one kernel, whose result lies as [B,S,n,d]. What any other
// mask hides is taken as the future: whoever masks otherwise is planned like it.
void lower_attention(OnnxCall& call) {
  const OnnxValue &q = call.at(0), &k = call.at(1), &v = call.at(2);
  const bool meets = q.is_tensor() && k.is_tensor() && v.is_tensor() && q.rank() == 4 &&
                     k.rank() == 4 && v.rank() == 4 && k.shape[3] == q.shape[3] &&
                     v.shape[2] == k.shape[2] && v.shape[1] == k.shape[1] && k.shape[1] > 0 &&
                     q.shape[1] % k.shape[1] == 0;
  const bool apart = q.places.size() == 4 && (q.places[1].there() || q.places[3].there());
  if (!meets || apart) return call.refuse("heads that do not meet", "q, k and v [B,n,S,d]");
  const std::int64_t width = v.shape[3];
  const Shape rows = {q.shape[0], q.shape[2], checked_multiply(q.shape[1], width)};
  OnnxValue out = call.lowering.emit(OperatorKind::attention, call, {&q, &k, &v}, rows);
  const bool masked =
      call.whole("is_causal", 0) != 0 || (call.has(3) && may_hide_future(call.at(3), q));
  call.lowering.last().attention = {.heads = q.shape[1],
                                    .kv_heads = k.shape[1],
                                    .head_dim = q.shape[3],
                                    .value_dim = width == q.shape[3] ? 0 : width,
                                    .causal = masked,
                                    .dropout = call.real("dropout", 0.0)};
  BatchPlaces places;
  if (!q.places.empty()) places = {q.places[0], q.places[2], {}};
  call.lowering.place(out, places);
  if (!places.empty()) places.insert(places.begin() + 2, BatchPlace());
  const OnnxValue heads =
      call.lowering.viewed(call, out, {q.shape[0], q.shape[2], q.shape[1], width}, places);
  OnnxValue& turned = call.out[0];
  turned = call.lowering.emit(OperatorKind::view, call, {&heads},
                              {q.shape[0], q.shape[1], q.shape[2], width});
  if (!places.empty()) std::swap(places[1], places[2]);
  call.lowering.place(turned, places);
  turned.strides = {heads.strides[0], heads.strides[2], heads.strides[1], heads.strides[3]};
  call.lowering.last().transposed = true;
}

}  // namespace

const OnnxOperators& onnx_matrix_operators() {
  static const OnnxOperators kOperators = {
      {"Attention", {lower_attention, 3}}, {"Einsum", {lower_einsum}},
      {"GRU", {lower_recurrent, 3}},       {"Gemm", {lower_gemm, 2}},
      {"LSTM", {lower_recurrent, 3}},      {"MatMul", {lower_matmul, 2}},
      {"RNN", {lower_recurrent, 3}},
  };
  return kOperators;
}

}  // namespace steelyard::model
