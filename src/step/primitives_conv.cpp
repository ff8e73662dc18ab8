#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "step/primitives.h"
#include "step/primitives_image.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

// A kernel that wants its input in the order of its shape copies what is not; the copy dies with
// the call (group_norm.cu, Convolution.cpp: .contiguous()).
Tensor copied_if_strided(Tape& tape, const Tensor& x) {
  if (x.dense || tape.options().compiled) return {};
  Tensor copy = tape.allocate(x.numel, x.dtype, "clone");
  tape.pointwise("clone", 2 * bytes_of(x));
  return copy;
}

struct Affine {
  bool weight = false, bias = false;  // which of them wants a gradient
  DType dtype = DType::fp32;
  std::int64_t channels = 1;
};

Affine affine_of(const Tensor& weight, const Tensor& bias, std::int64_t channels) {
  return {weight && weight.requires_grad, bias && bias.requires_grad,
          weight ? weight.dtype : DType::fp32, channels};
}

// Gradients of the input and of the affine parameters, as batch_norm and group_norm return them.
Gradients norm_gradients(Tape& t, const Tensor& dy, bool wants_x, const Affine& affine,
                         std::string_view name) {
  Gradients result(3);
  if (wants_x) result[0] = t.allocate(dy.numel, dy.dtype, name);
  if (affine.weight) result[1] = t.allocate(affine.channels, affine.dtype, name);
  if (affine.bias) result[2] = t.allocate(affine.channels, affine.dtype, name);
  t.pointwise(name, 5 * bytes_of(dy));
  return result;
}

}  // namespace

namespace {

// The matrix products of a convolution.
struct Products {
  enum class Pass { forward, input, weight };
  std::int64_t rows = 1, columns = 1, depth = 1, groups = 1;
  // Of the input's gradient: a row for each pixel of the input, and what of the result's gradient
  // its windows hold on average.
  std::int64_t input_rows = 1, input_columns = 1, input_depth = 1;
  bool strided = false, depthwise = false;  // depthwise: each channel for itself

  void run(Tape& tape, DType dtype, Pass pass, Bytes traffic) const {
    std::string name = depthwise ? "depthwise_convolution" : "convolution";
    switch (pass) {
      case Pass::forward: return tape.gemm(name, dtype, rows, columns, depth, groups, traffic);
      case Pass::input:
        name += strided ? "_strided_input_gradient" : "_input_gradient";
        return tape.gemm(name, dtype, input_rows, input_columns, input_depth, groups, traffic);
      case Pass::weight:
        name += "_weight_gradient";
        return tape.gemm(name, dtype, columns, depth, rows, groups, traffic);
    }
  }
};

Products products_of(const ConvDims& dims, std::int64_t input) {
  Products products;
  products.groups = dims.groups;
  products.columns = dims.outputs / dims.groups;
  products.depth = dims.inputs / dims.groups * dims.window;
  products.rows = checked_multiply(dims.samples, dims.pixels);
  products.depthwise = dims.groups > 1 && dims.groups == dims.inputs;
  if (dims.spread > 0) {  // each pixel of the input is spread over a window
    products.rows = checked_multiply(dims.samples, dims.spread);
    products.columns = dims.outputs / dims.groups * dims.window;
    products.depth = dims.inputs / dims.groups;
    products.input_rows = products.rows;
    products.input_columns = products.depth;
    products.input_depth = products.columns;
    return products;
  }
  products.input_columns = dims.inputs / dims.groups;
  products.input_rows = input / dims.inputs;
  const double products_each = static_cast<double>(products.columns) *
                               static_cast<double>(products.depth) *
                               static_cast<double>(products.rows);
  const double results = static_cast<double>(products.input_rows * products.input_columns);
  products.input_depth = std::max<std::int64_t>(1, std::llround(products_each / results));
  products.strided = products.input_rows >= 2 * products.rows;
  return products;
}

}  // namespace

Tensor conv(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias,
            const ConvDims& dims) {
  const Tensor a = to_compute(tape, x);
  const Tensor w = dims.computed ? to_compute(tape, weight) : product_weight(tape, weight);
  const Tensor b = bias ? product_weight(tape, bias) : Tensor();  // dies with the call if a cast
  tape.begin_operation(OperationKind::other, {&a, &w, &b});
  const Tensor copy = copied_if_strided(tape, a);
  const std::int64_t rows = checked_multiply(dims.samples, dims.pixels);
  Tensor y = tape.allocate(checked_multiply(rows, dims.outputs), a.dtype, "convolution");
  const Bytes traffic = bytes_of(a) + bytes_of(w) + bytes_of(y);
  const Products products = products_of(dims, a.numel);
  products.run(tape, a.dtype, Products::Pass::forward, traffic);
  if (!tape.tracks({&a, &w}) && !(b && tape.tracks({&b}))) return y;
  std::vector<StorageRef> saved;
  if (w.requires_grad) saved.push_back(a.storage);
  if (a.requires_grad) saved.push_back(w.storage);
  const bool wants_x = a.requires_grad;
  const bool wants_w = w.requires_grad;
  const bool wants_b = b && b.requires_grad;
  const std::int64_t numel_a = a.numel;
  const std::int64_t numel_w = w.numel;
  std::vector<Edge> edges = {Tape::edge_of(a), Tape::edge_of(w)};
  if (b) edges.push_back(Tape::edge_of(b));
  tape.track(y, "convolution", std::move(edges), std::move(saved),
             [=](Tape& t, const Gradients& gradients) {
               const DType dtype = gradients[0].dtype;
               Gradients result(wants_b ? 3 : 2);
               if (wants_x) {
                 result[0] = t.allocate(numel_a, dtype, "convolution_backward");
                 products.run(t, dtype, Products::Pass::input, traffic);
               }
               if (wants_w) {
                 result[1] = t.allocate(numel_w, dtype, "convolution_backward");
                 products.run(t, dtype, Products::Pass::weight, traffic);
               }
               if (wants_b) {
                 result[2] = t.allocate(dims.outputs, dtype, "sum");
                 t.pointwise("sum", bytes_of(gradients[0]));
               }
               return result;
             });
  return y;
}

Tensor batch_norm(Tape& tape, Tensor argument, const Tensor& weight, const Tensor& bias,
                  std::int64_t channels) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::reduction, {&x, &weight, &bias});
  Tensor y = tape.allocate(x.numel, x.dtype, "batch_norm");
  // Statistics in fp32 even for 16-bit input (Normalization.cu).
  const Tensor mean = tape.allocate(channels, DType::fp32, "batch_norm");
  const Tensor deviation = tape.allocate(channels, DType::fp32, "batch_norm");
  tape.pointwise("batch_norm", 2 * bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x}) && !(weight && tape.tracks({&weight}))) return y;
  const Affine affine = affine_of(weight, bias, channels);
  const bool wants_x = x.requires_grad;
  const Edge of_weight = weight ? Tape::edge_of(weight) : Edge();
  tape.track(y, "batch_norm", {Tape::edge_of(x), of_weight, bias ? Tape::edge_of(bias) : Edge()},
             {x.storage, mean.storage, deviation.storage},
             [=](Tape& t, const Gradients& gradients) {
               return norm_gradients(t, gradients[0], wants_x, affine, "batch_norm_backward");
             });
  return y;
}

Tensor group_norm(Tape& tape, Tensor argument, const Tensor& weight, const Tensor& bias,
                  std::int64_t samples, std::int64_t channels, std::int64_t groups) {
  const Tensor x = to_fp32_if_autocast(tape, std::move(argument));
  tape.begin_operation(OperationKind::reduction, {&x, &weight, &bias});
  const Tensor copy = copied_if_strided(tape, x);
  Tensor y = tape.allocate(x.numel, x.dtype, "group_norm");
  const std::int64_t rows = samples * groups;
  const Tensor mean = tape.allocate(rows, x.dtype, "group_norm");
  const Tensor deviation = tape.allocate(rows, x.dtype, "group_norm");
  const bool temporaries = tape.options().kernel_temporaries;
  {
    // group_norm_kernel.cu: scale and shift of each sample and channel, in fp32.
    const Tensor scale =
        temporaries ? tape.allocate(samples * channels, DType::fp32, "group_norm") : Tensor();
    const Tensor shift =
        temporaries ? tape.allocate(samples * channels, DType::fp32, "group_norm") : Tensor();
    tape.pointwise("group_norm", 2 * bytes_of(x) + bytes_of(y));
  }
  if (!tape.tracks({&x}) && !(weight && tape.tracks({&weight}))) return y;
  const Affine affine = affine_of(weight, bias, channels);
  const bool wants_x = x.requires_grad;
  const std::int64_t sums = samples * channels;
  const Edge of_weight = weight ? Tape::edge_of(weight) : Edge();
  tape.track(y, "group_norm", {Tape::edge_of(x), of_weight, bias ? Tape::edge_of(bias) : Edge()},
             {x.storage, mean.storage, deviation.storage},
             [=](Tape& t, const Gradients& gradients) {
               Gradients held;
               for (int i = 0; temporaries && i < 2; ++i) {
                 held.push_back(t.allocate(sums, DType::fp32, "group_norm_backward"));
               }
               return norm_gradients(t, gradients[0], wants_x, affine, "group_norm_backward");
             });
  return y;
}

Tensor max_pool(Tape& tape, Tensor argument, std::int64_t numel) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::other, {&x});
  Tensor y = tape.allocate(numel, x.dtype, "max_pool2d");
  const Tensor indices = tape.allocate(numel, DType::int64, "max_pool2d");
  tape.pointwise("max_pool2d", bytes_of(x) + bytes_of(y) + bytes_of(indices));
  if (!tape.tracks({&x})) return y;
  const std::int64_t before = x.numel;
  tape.track(y, "max_pool2d", {Tape::edge_of(x)}, {x.storage, indices.storage},
             [before](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(before, gradients[0].dtype, "max_pool2d_backward");
               t.pointwise("max_pool2d_backward", bytes_of(dx) + 5 * bytes_of(gradients[0]));
               return Gradients{dx};
             });
  return y;
}

Tensor average_pool(Tape& tape, Tensor argument, std::int64_t numel) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::other, {&x});
  Tensor y = tape.allocate(numel, x.dtype, "avg_pool2d");
  tape.pointwise("avg_pool2d", bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x})) return y;
  const std::int64_t before = x.numel;
  tape.track(y, "avg_pool2d", {Tape::edge_of(x)}, {x.storage},
             [before](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(before, gradients[0].dtype, "avg_pool2d_backward");
               t.pointwise("avg_pool2d_backward", bytes_of(dx) + bytes_of(gradients[0]));
               return Gradients{dx};
             });
  return y;
}

namespace {

// A copy of other places or sizes, and its gradient, a copy back.
Tensor copied(Tape& tape, std::string_view name, Tensor argument, std::int64_t numel) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::other, {&x});
  Tensor y = tape.allocate(numel, x.dtype, name);
  tape.pointwise(name, bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x})) return y;
  const std::int64_t before = x.numel;
  const std::string back = std::string(name) + "_backward";
  tape.track(y, name, {Tape::edge_of(x)}, {}, [=](Tape& t, const Gradients& gradients) {
    Tensor dx = t.allocate(before, gradients[0].dtype, back);
    t.pointwise(back, bytes_of(gradients[0]) + bytes_of(dx));
    return Gradients{dx};
  });
  return y;
}

}  // namespace

Tensor roll(Tape& tape, Tensor x) {
  const std::int64_t numel = x.numel;
  return copied(tape, "roll", std::move(x), numel);
}

Tensor pad(Tape& tape, Tensor x, std::int64_t numel) {
  return copied(tape, "constant_pad_nd", std::move(x), numel);
}

Tensor drop_path(Tape& tape, Tensor argument, std::int64_t samples) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  const Tensor factor = tape.allocate(samples, x.dtype, "bernoulli_");
  Tensor y = tape.allocate(x.numel, x.dtype, "mul");
  y.dense = x.dense;
  tape.pointwise("mul", bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x})) return y;
  tape.track(y, "mul", {Tape::edge_of(x)}, {factor.storage},
             [](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(gradients[0].numel, gradients[0].dtype, "mul");
               t.pointwise("mul", 2 * bytes_of(dx));
               return Gradients{dx};
             });
  return y;
}

Tensor cat(Tape& tape, std::vector<Tensor> parts) {
  if (parts.size() == 2) return cat(tape, std::move(parts[0]), std::move(parts[1]));
  tape.begin_operation(OperationKind::other);
  std::int64_t numel = 0;
  DType dtype = parts.front().dtype;  // the widest
  bool tracks = false;
  std::vector<Edge> edges;
  std::vector<std::int64_t> numels;
  for (const Tensor& part : parts) {
    numel += part.numel;
    if (facts::bytes_of(part.dtype) > facts::bytes_of(dtype)) dtype = part.dtype;
    tracks |= tape.tracks({&part});
    edges.push_back(Tape::edge_of(part));
    numels.push_back(part.numel);
  }
  Tensor y = tape.allocate(numel, dtype, "cat");
  tape.pointwise("cat", 2 * bytes_of(y));
  if (!tracks) return y;
  tape.track(y, "cat", std::move(edges), {}, [numels](Tape&, const Gradients& gradients) {
    Gradients result;
    for (const std::int64_t own : numels) {  // narrow: views of the gradient
      result.push_back(view(gradients[0], false));
      result.back().numel = own;
    }
    return result;
  });
  return y;
}

Tensor upsample_nearest(Tape& tape, Tensor argument, std::int64_t numel) {
  const Tensor x = to_fp32_if_autocast(tape, std::move(argument));
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(numel, x.dtype, "upsample_nearest2d");
  tape.pointwise("upsample_nearest2d", bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x})) return y;
  const std::int64_t before = x.numel;
  tape.track(y, "upsample_nearest2d", {Tape::edge_of(x)}, {},
             [before](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(before, gradients[0].dtype, "upsample_nearest2d_backward");
               t.pointwise("upsample_nearest2d_backward", bytes_of(dx) + bytes_of(gradients[0]));
               return Gradients{dx};
             });
  return y;
}

Tensor relu_in_place(Tape& tape, Tensor argument) {
  if (tape.options().compiled) return relu(tape, std::move(argument));  // made functional
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  tape.pointwise("relu_", 2 * bytes_of(x));
  Tensor y = x;
  if (!tape.tracks({&x})) return y;
  tape.track(y, "relu_", {Tape::edge_of(x)}, {x.storage}, [](Tape& t, const Gradients& gradients) {
    const Tensor& dy = gradients[0];
    Tensor dx = t.allocate(dy.numel, dy.dtype, "threshold_backward");
    t.pointwise("threshold_backward", 3 * bytes_of(dy));
    return Gradients{dx};
  });
  return y;
}

Tensor activation_in_place(Tape& tape, std::string_view name, Tensor argument) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::pointwise, {&x});
  const bool tracks = tape.tracks({&x});
  const Tensor before = tracks ? tape.allocate(x.numel, x.dtype, "clone") : Tensor();
  tape.pointwise(name, (tracks ? 4 : 2) * bytes_of(x));
  Tensor y = x;
  if (!tracks) return y;
  tape.track(
      y, name, {Tape::edge_of(x)}, {before.storage}, [](Tape& t, const Gradients& gradients) {
        Tensor dx = t.allocate(gradients[0].numel, gradients[0].dtype, "activation_backward");
        t.pointwise("activation_backward", 3 * bytes_of(dx));
        return Gradients{dx};
      });
  return y;
}

Tensor add_in_place(Tape& tape, Tensor first, Tensor second) {
  if (tape.options().compiled) return add(tape, std::move(first), std::move(second));
  const Tensor into = std::move(first);
  const Tensor other = std::move(second);
  tape.begin_operation(OperationKind::pointwise, {&into, &other});
  tape.pointwise("add_", 2 * bytes_of(into) + bytes_of(other));
  Tensor y = into;
  if (!tape.tracks({&into, &other})) return y;
  const bool wants_other = other.requires_grad;
  const std::int64_t numel = other.numel;
  const DType dtype = other.dtype;
  tape.track(y, "add_", {Tape::edge_of(into), Tape::edge_of(other)}, {},
             [=](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Gradients result = {dy, Tensor()};
               if (!wants_other) return result;
               result[1] = dy;
               if (dy.numel == numel && dy.dtype == dtype) return result;
               result[1] = t.allocate(numel, dtype, "sum");
               t.pointwise("sum", bytes_of(dy) + bytes_of(result[1]));
               return result;
             });
  return y;
}

}  // namespace steelyard::step
