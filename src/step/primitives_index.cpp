#include <utility>

#include "step/primitives.h"
#include "step/primitives_image.h"

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

}  // namespace

Tensor expand(Tape& tape, const Tensor& weight, std::int64_t times) {
  Tensor y = weight;
  y.numel = checked_multiply(weight.numel, times);
  y.dense = false;
  if (!tape.tracks({&weight})) return y;
  const std::int64_t numel = weight.numel;
  tape.track(y, "expand", {Tape::edge_of(weight)}, {},
             [numel](Tape& t, const Gradients& gradients) {
               Tensor sum = t.allocate(numel, gradients[0].dtype, "sum");
               t.pointwise("sum", bytes_of(gradients[0]) + bytes_of(sum));
               return Gradients{sum};
             });
  return y;
}

TopK topk(Tape& tape, Tensor argument, std::int64_t last, std::int64_t k) {
  const Tensor x = std::move(argument);
  const std::int64_t rows = x.numel / last;
  tape.begin_operation(OperationKind::other, {&x});
  TopK best;
  best.values = tape.allocate(rows * k, x.dtype, "topk");
  best.indices = tape.allocate(rows * k, DType::int64, "topk");
  tape.pointwise("topk", bytes_of(x) + bytes_of(best.values) + bytes_of(best.indices));
  if (!tape.tracks({&x})) return best;
  const std::int64_t numel = x.numel;
  tape.track(best.values, "topk", {Tape::edge_of(x)}, {best.indices.storage},
             [numel](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(numel, gradients[0].dtype, "scatter");
               t.pointwise("scatter", bytes_of(dx) + 2 * bytes_of(gradients[0]));
               return Gradients{dx};
             });
  return best;
}

Tensor sum_last(Tape& tape, Tensor argument, std::int64_t last) {
  const Tensor x = std::move(argument);
  tape.begin_operation(OperationKind::reduction, {&x});
  Tensor y = tape.allocate(x.numel / last, x.dtype, "sum");
  tape.pointwise("sum", bytes_of(x) + bytes_of(y));
  if (!tape.tracks({&x})) return y;
  const std::int64_t numel = x.numel;
  tape.track(y, "sum", {Tape::edge_of(x)}, {}, [numel](Tape&, const Gradients& gradients) {
    Tensor dx = view(gradients[0], false);  // expand: a view
    dx.numel = numel;
    return Gradients{dx};
  });
  return y;
}

Tensor index(Tape& tape, const Tensor& x, const std::vector<Tensor>& indices, std::int64_t numel) {
  tape.begin_operation(OperationKind::pointwise, {&x});
  Tensor y = tape.allocate(numel, x.dtype, "index");
  tape.pointwise("index", 2 * bytes_of(y));
  if (!tape.tracks({&x})) return y;
  std::vector<StorageRef> saved;
  for (const Tensor& each : indices) saved.push_back(each.storage);
  const std::int64_t whole = x.numel;
  tape.track(y, "index", {Tape::edge_of(x)}, std::move(saved),
             [whole](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(whole, gradients[0].dtype, "index_put");
               t.pointwise("index_put", bytes_of(dx) + 2 * bytes_of(gradients[0]));
               return Gradients{dx};
             });
  return y;
}

Tensor gather(Tape& tape, const Tensor& x, const Tensor& indices, std::int64_t numel) {
  tape.begin_operation(OperationKind::other, {&x, &indices});
  Tensor y = tape.allocate(numel, x.dtype, "gather");
  tape.pointwise("gather", 2 * bytes_of(y));
  if (!tape.tracks({&x})) return y;
  const std::int64_t whole = x.numel;
  tape.track(y, "gather", {Tape::edge_of(x)}, {x.storage, indices.storage},
             [whole](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(whole, gradients[0].dtype, "scatter_add");
               t.pointwise("scatter_add", bytes_of(dx) + 2 * bytes_of(gradients[0]));
               return Gradients{dx};
             });
  return y;
}

Tensor index_add_in_place(Tape& tape, Tensor first, const Tensor& rows, Tensor second) {
  const Tensor into = std::move(first);
  const Tensor source = std::move(second);
  tape.begin_operation(OperationKind::other, {&into, &rows, &source});
  tape.pointwise("index_add_", 3 * bytes_of(source));
  Tensor y = into;
  if (!tape.tracks({&into, &source})) return y;
  const bool wants_into = into.requires_grad;
  const std::int64_t numel = source.numel;
  // The source is saved whole, though only its shape is used.
  tape.track(y, "index_add_", {Tape::edge_of(into), Tape::edge_of(source)},
             {rows.storage, source.storage}, [=](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Gradients result(2);
               if (wants_into) result[0] = dy;
               result[1] = t.allocate(numel, dy.dtype, "index_select");
               t.pointwise("index_select", 2 * bytes_of(result[1]));
               return result;
             });
  return y;
}

Tensor smooth_l1_loss(Tape& tape, Tensor first, Tensor second) {
  const Tensor prediction = to_fp32_if_autocast(tape, std::move(first));
  const Tensor target = to_fp32_if_autocast(tape, std::move(second));
  tape.begin_operation(OperationKind::pointwise, {&prediction, &target});
  Tensor y = tape.allocate(prediction.numel, prediction.dtype, "smooth_l1_loss");
  tape.pointwise("smooth_l1_loss", 3 * bytes_of(y));
  if (!tape.tracks({&prediction})) return y;
  tape.track(y, "smooth_l1_loss", {Tape::edge_of(prediction)}, {prediction.storage, target.storage},
             [](Tape& t, const Gradients& gradients) {
               const Tensor& dy = gradients[0];
               Tensor dx = t.allocate(dy.numel, dy.dtype, "smooth_l1_loss_backward");
               t.pointwise("smooth_l1_loss_backward", 4 * bytes_of(dx));
               return Gradients{dx};
             });
  return y;
}

Tensor cross_entropy_of_rows(Tape& tape, Tensor argument, const Tensor& labels) {
  const Tensor logits = std::move(argument);
  const std::int64_t rows = labels.numel;
  tape.begin_operation(OperationKind::reduction, {&logits, &labels});
  Tensor kept = tape.allocate(logits.numel, logits.dtype, "log_softmax");
  tape.pointwise("log_softmax", bytes_of(logits) + bytes_of(kept));
  if (tape.tracks({&logits})) {
    tape.track(kept, "log_softmax", {Tape::edge_of(logits)}, {kept.storage},
               [](Tape& t, const Gradients& gradients) {
                 const Tensor& dy = gradients[0];
                 Tensor dx = t.allocate(dy.numel, dy.dtype, "log_softmax_backward");
                 t.pointwise("log_softmax_backward", 3 * bytes_of(dy));
                 return Gradients{dx};
               });
  }
  const Tensor wide = to_fp32_if_autocast(tape, kept);
  kept = Tensor();
  tape.begin_operation(OperationKind::reduction, {&wide, &labels});
  Tensor losses = tape.allocate(rows, wide.dtype, "nll_loss");
  tape.pointwise("nll_loss", bytes_of(labels) + 2 * bytes_of(losses));
  if (!tape.tracks({&wide})) return losses;
  const std::int64_t numel = wide.numel;
  tape.track(losses, "nll_loss", {Tape::edge_of(wide)}, {wide.storage, labels.storage},
             [numel](Tape& t, const Gradients& gradients) {
               Tensor dx = t.allocate(numel, gradients[0].dtype, "nll_loss_backward");
               t.pointwise("nll_loss_backward", bytes_of(dx));
               return Gradients{dx};
             });
  return losses;
}

Tensor mse_loss(Tape& tape, Tensor first, Tensor second) {
  const Tensor prediction = to_fp32_if_autocast(tape, std::move(first));
  const Tensor target = to_fp32_if_autocast(tape, std::move(second));
  tape.begin_operation(OperationKind::reduction, {&prediction, &target});
  Tensor loss;
  {  // the mean of the squares, which are a tensor of their own
    const Tensor squares = tape.allocate(prediction.numel, prediction.dtype, "mse_loss");
    loss = tape.allocate(1, prediction.dtype, "mse_loss");
    tape.pointwise("mse_loss", bytes_of(prediction) + bytes_of(target) + 2 * bytes_of(squares));
  }
  if (!tape.tracks({&prediction})) return loss;
  const std::int64_t numel = prediction.numel;
  const DType dtype = prediction.dtype;
  tape.track(loss, "mse_loss", {Tape::edge_of(prediction)}, {prediction.storage, target.storage},
             [numel, dtype](Tape& t, const Gradients&) {
               Tensor dx = t.allocate(numel, dtype, "mse_loss_backward");
               t.pointwise("mse_loss_backward", 3 * bytes_of(dx));
               return Gradients{dx};
             });
  return loss;
}

}  // namespace steelyard::step
