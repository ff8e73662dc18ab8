#include <algorithm>
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

Tensor conv(Tape& tape, const Tensor& x, const Tensor& weight, const Tensor& bias,
            const ConvDims& dims) {
  const Tensor a = to_compute(tape, x);
  const Tensor w = product_weight(tape, weight);
  const Tensor b = bias ? product_weight(tape, bias) : Tensor();  // dies with the call if a cast
  tape.begin_operation(OperationKind::other, {&a, &w, &b});
  const Tensor copy = copied_if_strided(tape, a);
  const bool transposed = dims.input_pixels > 0;
  const std::int64_t per_pixel = checked_multiply(dims.samples, dims.outputs);
  Tensor y = tape.allocate(checked_multiply(per_pixel, dims.pixels), a.dtype, "convolution");
  const std::int64_t rows =
      checked_multiply(dims.samples, transposed ? dims.input_pixels : dims.pixels);
  const std::int64_t columns = dims.outputs / dims.groups * (transposed ? dims.window : 1);
  const std::int64_t depth = dims.inputs / dims.groups * (transposed ? 1 : dims.window);
  const Bytes traffic = bytes_of(a) + bytes_of(w) + bytes_of(y);
  tape.gemm("convolution", a.dtype, rows, columns, depth, dims.groups, traffic);
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
  tape.track(
      y, "convolution", std::move(edges), std::move(saved),
      [=](Tape& t, const Gradients& gradients) {
        const DType dtype = gradients[0].dtype;
        Gradients result(wants_b ? 3 : 2);
        if (wants_x) {
          result[0] = t.allocate(numel_a, dtype, "convolution_backward");
          t.gemm("convolution_input_gradient", dtype, rows, depth, columns, dims.groups, traffic);
        }
        if (wants_w) {
          result[1] = t.allocate(numel_w, dtype, "convolution_backward");
          t.gemm("convolution_weight_gradient", dtype, columns, depth, rows, dims.groups, traffic);
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
  if (!tape.tracks({&x, &weight})) return y;
  const Affine affine = affine_of(weight, bias, channels);
  const bool wants_x = x.requires_grad;
  tape.track(y, "batch_norm", {Tape::edge_of(x), Tape::edge_of(weight), Tape::edge_of(bias)},
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
  if (!tape.tracks({&x, &weight})) return y;
  const Affine affine = affine_of(weight, bias, channels);
  const bool wants_x = x.requires_grad;
  const std::int64_t sums = samples * channels;
  tape.track(y, "group_norm", {Tape::edge_of(x), Tape::edge_of(weight), Tape::edge_of(bias)},
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
