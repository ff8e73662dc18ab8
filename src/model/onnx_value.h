// What is known of one value of an ONNX graph while it is lowered.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "facts/onnx.h"
#include "model/graph.h"
#include "model/onnx_batch.h"

namespace steelyard::model {

struct OnnxValue {
  Shape shape;
  ElementKind kind = ElementKind::real;  // real, boolean or index
  // Known values, at most kMostFolded: shapes and what is computed from them.
  std::optional<std::vector<std::int64_t>> wholes;
  std::optional<std::vector<double>> reals;
  // Where it comes from. A tensor: `ref`; weights: the initializers it is made of, perhaps
  // transposed, cut or joined; neither: a constant.
  TensorRef ref;
  std::vector<const facts::OnnxTensor*> initializers;
  // Of a tensor: elements from one index to the next, per dimension.
  Shape strides;
  // The operator that made it, and the name under which; -1: none.
  std::int64_t producer = -1;
  std::string name;
  bool differentiable = false;  // a gradient could pass to a weight
  bool unknown = false;         // its size depends on data, or is made of what does
  bool of_data = false;         // made of the batch's real numbers, or of weights
  std::shared_ptr<const std::vector<OnnxValue>> sequence;  // the parts, of SplitToSequence
  // Of a tensor, where the file's batch is a number and the job wants another one.
  BatchPlaces places;

  [[nodiscard]] bool is_tensor() const { return ref.index >= 0; }
  [[nodiscard]] bool is_weight() const { return !is_tensor() && !initializers.empty(); }
  [[nodiscard]] bool is_constant() const { return !is_tensor() && initializers.empty(); }
  [[nodiscard]] std::int64_t rank() const { return static_cast<std::int64_t>(shape.size()); }
  [[nodiscard]] std::int64_t numel() const { return elements(shape); }
};

constexpr std::int64_t kMostFolded = 4096;

[[nodiscard]] Shape contiguous_strides(const Shape& shape);
[[nodiscard]] bool lies_in_order(const Shape& shape, const Shape& strides);
// Each element has a place of its own and none is left out, in whatever order.
[[nodiscard]] bool lies_densely(const Shape& shape, const Shape& strides);
// The strides of the same elements under another shape, where no copy is needed (ATen's
// computeStride).
[[nodiscard]] std::optional<Shape> strides_of_view(const Shape& shape, const Shape& strides,
                                                   const Shape& other);
// numpy's rule; nothing where they do not meet.
[[nodiscard]] std::optional<Shape> broadcast_of(const Shape& a, const Shape& b);
// Known values of another arrangement of the same tensor: from `offset`, a step along each
// dimension.
[[nodiscard]] std::vector<std::int64_t> rearranged(const std::vector<std::int64_t>& values,
                                                   const Shape& shape, const Shape& strides,
                                                   std::int64_t offset);
// "[2,3,64]".
[[nodiscard]] std::string text_of(const Shape& shape);

}  // namespace steelyard::model
