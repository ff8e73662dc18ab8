#include <algorithm>
#include <utility>

#include "step/primitives.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

DType promoted(DType a, DType b) {
  const auto real = [](DType t) { return t != DType::boolean && t != DType::int64; };
  if (!real(a)) return b;
  if (!real(b)) return a;
  return facts::bytes_of(a) >= facts::bytes_of(b) ? a : b;
}

// A kernel with one input whose derivative is one kernel too: gradient times something.
Tensor unary(Tape& tape, std::string_view name, Tensor argument, bool saves_input,
             bool saves_output) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(x.numel, x.dtype, name);
  y.dense = x.dense;
  tape.pointwise(name, bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x})) return y;
  std::vector<StorageRef> saved;
  if (saves_input) saved.push_back(x.storage);
  if (saves_output) saved.push_back(y.storage);
  const std::string backward_name = std::string(name) + "_backward";
  const std::int64_t reads = 1 + (saves_input || saves_output ? 1 : 0);
  tape.track(y, name, {Tape::edge_of(x)}, std::move(saved),
             [backward_name, reads](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Tensor dx = t.allocate(dy.numel, dy.dtype, backward_name);
               dx.dense = dy.dense;
               t.pointwise(backward_name, (reads + 1) * bytes_of(dy));
               return Gradients{dx};
             });
  return y;
}

// Sums a gradient down to the shape of a broadcast operand.
Tensor reduced_to(Tape& tape, Tensor gradient, std::int64_t numel) {
  if (gradient.numel == numel) return gradient;
  Tensor small = tape.allocate(numel, gradient.dtype, "sum");
  tape.pointwise("sum", bytes_of(gradient) + bytes_of(small));
  return small;
}

Tensor cast_back(Tape& tape, Tensor gradient, DType dtype) {
  if (gradient.dtype == dtype) return gradient;
  Tensor cast = tape.allocate(gradient.numel, dtype, "to");
  cast.dense = gradient.dense;
  tape.pointwise("to", bytes_of(gradient) + bytes_of(cast));
  return cast;
}

// A kernel whose derivative is an expression of three operations; its temporaries live until its
// end.
Tensor of_temporaries(Tape& tape, std::string_view name, const Tensor& x, bool saves_input) {
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(x.numel, x.dtype, name);
  y.dense = x.dense;
  tape.pointwise(name, bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x})) return y;
  const std::string backward_name = std::string(name) + "_backward";
  tape.track(y, name, {Tape::edge_of(x)}, {saves_input ? x.storage : y.storage},
             [backward_name](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               const Tensor power = t.allocate(dy.numel, dy.dtype, backward_name);
               t.pointwise(backward_name, 2 * bytes_of(dy));
               const Tensor factor = t.allocate(dy.numel, dy.dtype, backward_name);
               t.pointwise(backward_name, 2 * bytes_of(dy));
               Tensor dx = t.allocate(dy.numel, dy.dtype, backward_name);
               dx.dense = dy.dense;
               t.pointwise(backward_name, 3 * bytes_of(dy));
               return Gradients{dx};
             });
  return y;
}

}  // namespace

Tensor to(Tape& tape, Tensor argument, DType dtype) {
  if (argument.dtype == dtype) return argument;
  const Tensor x = std::move(argument);
  Tensor y = tape.known_cast(x, dtype);
  if (!y) {
    tape.begin_operation(OperationKind::pointwise, {&x});
    y = tape.allocate(x.numel, dtype, "to");
    tape.pointwise("to", bytes_of(x) + bytes_of(y));
    tape.remember_cast(x, y);
  }
  y.dense = x.dense;
  if (tape.tracks({&x})) {
    const DType before = x.dtype;
    tape.track(y, "to", {Tape::edge_of(x)}, {}, [before](Tape& t, const Gradients& gradients) {
      return Gradients{cast_back(t, gradients[0], before)};
    });
  }
  return y;
}

Tensor to_compute(Tape& tape, Tensor x) {
  return tape.arithmetic().autocast ? to(tape, std::move(x), tape.arithmetic().compute) : x;
}

Tensor to_fp32_if_autocast(Tape& tape, Tensor x) {
  return tape.arithmetic().autocast ? to(tape, std::move(x), DType::fp32) : x;
}

Tensor view(Tensor x, bool dense) {
  x.dense = dense;
  return x;
}

Tensor split_heads(Tape& tape, Tensor argument, std::int64_t heads) {
  const Tensor x = std::move(argument);
  Tensor y = view(x, false);
  if (heads == 1 || tape.options().compiled || !tape.tracks({&x})) return y;
  tape.track(y, "view", {Tape::edge_of(x)}, {}, [](Tape& t, const Gradients& gradients) {
    const Tensor& dy = gradients[0];
    if (!dy.dense) return Gradients{view(dy, true)};
    Tensor dx = t.allocate(dy.numel, dy.dtype, "clone");
    t.pointwise("clone", 2 * bytes_of(dx));
    return Gradients{dx};
  });
  return y;
}

std::vector<Tensor> split(Tape& tape, const Tensor& x, const std::vector<std::int64_t>& numels) {
  std::vector<Tensor> parts;
  NodeRef node;
  if (tape.tracks({&x})) {
    const std::int64_t whole = x.numel;
    const DType dtype = x.dtype;
    node =
        tape.make_node("split", {Tape::edge_of(x)}, {}, [whole, dtype](Tape& t, const Gradients&) {
          Tensor dx = t.allocate(whole, dtype, "cat");
          t.pointwise("cat", 2 * bytes_of(dx));
          return Gradients{dx};
        });
  }
  for (std::size_t i = 0; i < numels.size(); ++i) {
    Tensor part = x;
    part.numel = numels[i];
    part.dense = false;
    part.leaf = kNoLeaf;
    part.node = node;
    part.output = static_cast<int>(i);
    part.requires_grad = node != nullptr;
    parts.push_back(std::move(part));
  }
  return parts;
}

Tensor slice(Tape& tape, const Tensor& x, std::int64_t numel) {
  Tensor part = x;
  part.numel = numel;
  part.dense = false;
  if (tape.tracks({&x})) {
    const std::int64_t whole = x.numel;
    tape.track(part, "slice", {Tape::edge_of(x)}, {}, [whole](Tape& t, const Gradients& gradients) {
      Tensor dx = t.allocate(whole, gradients[0].dtype, "slice_backward");
      t.pointwise("slice_backward", bytes_of(dx) + 2 * bytes_of(gradients[0]));
      return Gradients{dx};
    });
  }
  return part;
}

Tensor contiguous(Tape& tape, Tensor argument) {
  if (argument.dense) return argument;
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(x.numel, x.dtype, "clone");
  tape.pointwise("clone", 2 * bytes_of(x));
  if (tape.tracks({&x})) {
    tape.track(y, "clone", {Tape::edge_of(x)}, {},
               [](Tape&, const Gradients& gradients) { return Gradients{gradients[0]}; });
  }
  return y;
}

Tensor cat(Tape& tape, Tensor first, Tensor second) {
  const Tensor a = std::move(first);
  const Tensor b = std::move(second);
  tape.begin_operation(OperationKind::pointwise, {&a, &b});
  Tensor y = tape.allocate(a.numel + b.numel, promoted(a.dtype, b.dtype), "cat");
  tape.pointwise("cat", 2 * bytes_of(y));
  if (tape.tracks({&a, &b})) {
    const std::int64_t numel_a = a.numel;
    const std::int64_t numel_b = b.numel;
    tape.track(y, "cat", {Tape::edge_of(a), Tape::edge_of(b)}, {},
               [numel_a, numel_b](Tape&, const Gradients& gradients) {
                 Tensor da = view(gradients[0], false);  // narrow: views of the gradient
                 Tensor db = da;
                 da.numel = numel_a;
                 db.numel = numel_b;
                 return Gradients{da, db};
               });
  }
  return y;
}

Tensor repeat(Tape& tape, Tensor argument, std::int64_t times) {
  if (times == 1) return argument;
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(x.numel * times, x.dtype, "clone");
  tape.pointwise("clone", bytes_of(x) + bytes_of(y));
  if (tape.tracks({&x})) {
    const std::int64_t numel = x.numel;
    tape.track(y, "expand", {Tape::edge_of(x)}, {}, [numel](Tape& t, const Gradients& gradients) {
      return Gradients{reduced_to(t, gradients[0], numel)};
    });
  }
  return y;
}

Tensor add(Tape& tape, Tensor first, Tensor second) {
  const Tensor a = std::move(first);
  const Tensor b = std::move(second);
  tape.begin_operation(OperationKind::pointwise, {&a, &b});
  Tensor y = tape.allocate(std::max(a.numel, b.numel), promoted(a.dtype, b.dtype), "add");
  y.dense = a.numel >= b.numel ? a.dense : b.dense;
  tape.pointwise("add", bytes_of(a) + bytes_of(b) + bytes_of(y));
  if (tape.tracks({&a, &b})) {
    const bool wants_a = a.requires_grad;
    const bool wants_b = b.requires_grad;
    tape.track(
        y, "add", {Tape::validated_edge_of(a), Tape::validated_edge_of(b)}, {},
        [=](Tape&, const Gradients& gradients) {
          return Gradients{wants_a ? gradients[0] : Tensor(), wants_b ? gradients[0] : Tensor()};
        });
  }
  return y;
}

Tensor add_constant(Tape& tape, Tensor argument) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(x.numel, x.dtype, "add");
  y.dense = x.dense;
  tape.pointwise("add", bytes_of(x) + bytes_of(y));
  if (tape.tracks({&x})) {
    tape.track(y, "add", {Tape::edge_of(x)}, {},
               [](Tape&, const Gradients& gradients) { return Gradients{gradients[0]}; });
  }
  return y;
}

Tensor mul(Tape& tape, Tensor first, Tensor second) {
  const Tensor a = std::move(first);
  const Tensor b = std::move(second);
  tape.begin_operation(OperationKind::pointwise, {&a, &b});
  Tensor y = tape.allocate(std::max(a.numel, b.numel), promoted(a.dtype, b.dtype), "mul");
  y.dense = a.numel >= b.numel ? a.dense : b.dense;
  tape.pointwise("mul", bytes_of(a) + bytes_of(b) + bytes_of(y));
  if (!tape.tracks({&a, &b})) return y;
  std::vector<StorageRef> saved;  // each operand is needed for the other's gradient only
  const bool both = tape.options().product_saves_both;
  if (b.requires_grad || both) saved.push_back(a.storage);
  if (a.requires_grad || both) saved.push_back(b.storage);
  const bool wants[2] = {a.requires_grad, b.requires_grad};
  const DType types[2] = {a.dtype, b.dtype};
  tape.track(y, "mul", {Tape::validated_edge_of(a), Tape::validated_edge_of(b)}, std::move(saved),
             [=](Tape& t, const Gradients& gradients) {
               Gradients result(2);
               const Tensor& dy = gradients[0];
               for (const std::size_t i : {1, 0}) {  // by the arguments' names: other, self
                 if (!wants[i]) continue;
                 result[i] = t.allocate(dy.numel, promoted(dy.dtype, types[1 - i]), "mul");
                 result[i].dense = dy.dense;
                 t.pointwise("mul", 2 * bytes_of(dy) + bytes_of(result[i]));
               }
               return result;
             });
  return y;
}

Tensor mul_constant(Tape& tape, Tensor x) {
  return unary(tape, "mul", std::move(x), false, false);
}

// pow_backward (FunctionsManual.cpp): grad * (exponent * self.pow(exponent - 1))
Tensor pow(Tape& tape, Tensor argument) {
  const Tensor x = to_fp32_if_autocast(tape, std::move(argument));
  return of_temporaries(tape, "pow", x, true);
}

Tensor mean(Tape& tape, Tensor argument, std::int64_t last) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::reduction, {&x});
  Tensor y = tape.allocate(x.numel / last, x.dtype, "mean");
  tape.pointwise("mean", bytes_of(x) + bytes_of(y));
  if (tape.tracks({&x})) {
    std::vector<StorageRef> saved;
    if (tape.options().mean_saves_input) saved.push_back(x.storage);
    const std::int64_t numel = x.numel;
    tape.track(y, "mean", {Tape::edge_of(x)}, std::move(saved),
               [numel](Tape& t, const Gradients& gradients) {
                 // expand is a view; the division by the count materialises it
                 Tensor dx = t.allocate(numel, gradients[0].dtype, "div");
                 t.pointwise("div", bytes_of(gradients[0]) + bytes_of(dx));
                 return Gradients{dx};
               });
  }
  return y;
}

// -0.5 * grad * result.pow(3)
Tensor rsqrt(Tape& tape, Tensor argument) {
  const Tensor x = to_fp32_if_autocast(tape, std::move(argument));
  return of_temporaries(tape, "rsqrt", x, false);
}
Tensor tanh(Tape& tape, Tensor x) {
  return unary(tape, "tanh", std::move(x), false, true);
}
Tensor sigmoid(Tape& tape, Tensor x) {
  return unary(tape, "sigmoid", std::move(x), false, true);
}
Tensor relu(Tape& tape, Tensor x) {
  const bool input = tape.options().relu_saves_input;
  return unary(tape, "relu", std::move(x), input, !input);
}
Tensor saving_input(Tape& tape, std::string_view name, Tensor x) {
  return unary(tape, name, std::move(x), true, false);
}
Tensor gelu(Tape& tape, Tensor x) {
  return unary(tape, "gelu", std::move(x), true, false);
}

Tensor scripted_gelu(Tape& tape, Tensor argument, std::vector<Tensor>* captured) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  const bool tracks = tape.tracks({&x});
  std::vector<StorageRef> saved;
  for (const char* kept : {"div", "mul", "add"}) {
    if (!tracks) break;
    Tensor intermediate = tape.allocate(x.numel, x.dtype, kept);
    if (captured != nullptr) {
      captured->push_back(std::move(intermediate));
    } else {
      saved.push_back(intermediate.storage);
    }
  }
  Tensor y = tape.allocate(x.numel, x.dtype, "gelu");
  y.dense = x.dense;
  tape.pointwise("gelu", (tracks ? 5 : 2) * bytes_of(x));
  if (!tracks) return y;
  tape.track(y, "gelu", {Tape::edge_of(x)}, std::move(saved),
             [](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Tensor dx = t.allocate(dy.numel, dy.dtype, "gelu_backward");
               dx.dense = dy.dense;
               t.pointwise("gelu_backward", 5 * bytes_of(dy));
               return Gradients{dx};
             });
  return y;
}

namespace {

// sigmoid = x.sigmoid(); return grad * sigmoid * (1.0 + x * (1.0 - sigmoid)): the temporaries of an
// expression live until its end.
Gradients composite_silu_backward(Tape& tape, const Tensor& dy) {
  std::vector<Tensor> temporaries;
  for (int i = 0; i < 5; ++i) {
    temporaries.push_back(tape.allocate(dy.numel, dy.dtype, "silu_backward"));
    tape.pointwise("silu_backward", 3 * bytes_of(dy));
  }
  return {tape.allocate(dy.numel, dy.dtype, "silu_backward")};
}

}  // namespace

Tensor silu(Tape& tape, Tensor argument) {
  if (!tape.options().composite_silu_backward) {
    return unary(tape, "silu", std::move(argument), true, false);
  }
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(x.numel, x.dtype, "silu");
  tape.pointwise("silu", bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x})) return y;
  tape.track(y, "silu", {Tape::edge_of(x)}, {x.storage}, [](Tape& t, const Gradients& gradients) {
    return composite_silu_backward(t, gradients[0]);
  });
  return y;
}

Tensor dropout(Tape& tape, Tensor argument, double probability) {
  if (probability <= 0.0) return argument;
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(x.numel, x.dtype, "native_dropout");
  // Dropout.cpp, is_fused_kernel_acceptable: on CUDA the mask is one byte per element.
  const Tensor mask = tape.allocate(x.numel, DType::boolean, "native_dropout");
  tape.pointwise("native_dropout", 2 * bytes_of(x) + bytes_of(mask));
  tape.materialise_random(mask, y);
  if (tape.tracks({&x})) {
    tape.track(y, "native_dropout", {Tape::edge_of(x)}, {mask.storage},
               [](Tape& t, const Gradients& gradients) {
                 const Tensor& dy = gradients[0];
                 Tensor dx = t.allocate(dy.numel, dy.dtype, "native_dropout_backward");
                 t.pointwise("native_dropout_backward", 2 * bytes_of(dy) + Bytes(dy.numel));
                 return Gradients{dx};
               });
  }
  return y;
}

Tensor where(Tape& tape, const Tensor& mask, Tensor argument) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&mask, &x});
  Tensor y = tape.allocate(x.numel, x.dtype, "where");
  tape.pointwise("where", 2 * bytes_of(x) + bytes_of(mask));
  if (tape.tracks({&x})) {
    tape.track(y, "where", {Tape::edge_of(x)}, {mask.storage},
               [](Tape& t, const Gradients& gradients) {
                 const Tensor& dy = gradients[0];
                 // where(mask, dy, 0): the number becomes a tensor (at::where with a Scalar)
                 const Tensor zero = t.allocate(1, dy.dtype, "scalar_tensor");
                 Tensor dx = t.allocate(dy.numel, dy.dtype, "where");
                 t.pointwise("where", 2 * bytes_of(dy));
                 return Gradients{dx};
               });
  }
  return y;
}

}  // namespace steelyard::step
