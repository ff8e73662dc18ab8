// What stands for the symbols in the shapes of an ONNX graph's inputs. Nothing in the format says
// which dimension is a batch; exporters put it first, and models read pictures as [B,C,h,w] and
// text as [B,S].
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "model/onnx_lowering.h"
#include "model/speech_parts.h"

namespace steelyard::model {

namespace {

using facts::OnnxDimension;
using facts::OnnxGraph;
using facts::OnnxValueInfo;

// Where neither the file nor the job says one.
constexpr std::int64_t kUsualSequence = 128;
constexpr std::int64_t kUsualSide = 224;      // pixels
constexpr std::int64_t kUsualSound = 16'000;  // samples: a second of speech
constexpr std::size_t kPictureRank = 4;

class Inputs {
 public:
  Inputs(OnnxLowering& lowering, const SampleShape& sample)
      : lowering_(lowering), sample_(sample) {}

  void find_fixed_batch(const std::vector<const OnnxValueInfo*>& inputs);
  [[nodiscard]] Shape shape_of(const OnnxValueInfo& input);

 private:
  void refuse(const OnnxValueInfo& input, std::string found, std::string accepted,
              std::string hint = "");
  std::int64_t size_of(const OnnxValueInfo& input, std::size_t axis);
  std::int64_t by_position(const OnnxValueInfo& input, std::size_t axis);
  void check_fixed(const OnnxValueInfo& input, std::size_t axis, std::int64_t size);

  OnnxLowering& lowering_;
  const SampleShape& sample_;
  std::map<std::string, std::int64_t, std::less<>> symbols_;
};

void Inputs::refuse(const OnnxValueInfo& input, std::string found, std::string accepted,
                    std::string hint) {
  lowering_.refuse({.code = ErrorCode::bad_input,
                    .subject = fmt::format("{}: input {}", lowering_.name(), input.name),
                    .found = std::move(found),
                    .accepted = std::move(accepted),
                    .hint = std::move(hint)});
}

// A first dimension that is a number in every input is a batch that the exporter wrote down; where
// they differ, the first input says which.
void Inputs::find_fixed_batch(const std::vector<const OnnxValueInfo*>& inputs) {
  for (const OnnxValueInfo* input : inputs) {
    if (input->dims.empty()) continue;
    const OnnxDimension& first = input->dims.front();
    if (!first.value) {
      lowering_.fixed_batch = 0;
      if (!first.symbol.empty()) symbols_[first.symbol] = sample_.batch;
      return;
    }
    if (lowering_.fixed_batch > 0) continue;
    lowering_.fixed_batch = *first.value;
    lowering_.batch_input = input->name;
  }
}

std::int64_t Inputs::by_position(const OnnxValueInfo& input, std::size_t axis) {
  if (axis == 0) return sample_.batch;
  const bool real = kind_of_onnx(input.element) == ElementKind::real;
  if (real && input.dims.size() == kPictureRank && axis >= 2) {
    const std::int64_t own = axis == 2 ? sample_.height : sample_.width;
    return own > 0 ? own : kUsualSide;
  }
  const bool features = real && (input.dims.size() == 2 || input.dims.size() == kPictureRank);
  const std::int64_t asked = sample_.sequence;
  if (!features) {
    const std::int64_t steps = asked > 0 ? asked : kUsualSequence;
    // [B,C,t] and [B,t,C]: the sample's length, which a job may state as that of a text.
    if (real && lowering_.graph.sequence == 1) lowering_.graph.sequence = steps;
    return steps;
  }
  // Of real numbers, a sample with one open dimension is a sound.
  if (input.dims.size() == 2) {
    if (asked > 0) return asked;
    return lowering_.graph.audio_samples = audio_samples_of(sample_, kUsualSound);
  }
  refuse(input, fmt::format("a dimension {} without a number", axis),
         "numbers for all but the batch, the sequence and the picture's sides",
         "export with that dimension fixed");
  return 1;
}

// A size that the file fixes and the job states otherwise.
void Inputs::check_fixed(const OnnxValueInfo& input, std::size_t axis, std::int64_t size) {
  const bool real = kind_of_onnx(input.element) == ElementKind::real;
  std::int64_t asked = 0;
  const char* key = "";
  if (real && input.dims.size() == kPictureRank && axis >= 2) {
    asked = axis == 2 ? sample_.height : sample_.width;
    key = "train.image_size";
  } else if (!real && input.dims.size() == 2 && axis == 1 && lowering_.graph.sequence == 1) {
    asked = sample_.sequence;
    key = "train.sequence_length";
  }
  if (asked == 0 || asked == size) return;
  refuse(input, fmt::format("{} = {}, where the file fixes {}", key, asked, size),
         fmt::format("{}", size), "torch.onnx.export(..., dynamic_axes=...) leaves a size open");
}

std::int64_t Inputs::size_of(const OnnxValueInfo& input, std::size_t axis) {
  const OnnxDimension& dim = input.dims[axis];
  if (dim.value) {
    check_fixed(input, axis, *dim.value);
    return *dim.value;
  }
  if (dim.symbol.empty()) return by_position(input, axis);
  const auto known = symbols_.find(dim.symbol);
  if (known != symbols_.end()) return known->second;
  return symbols_[dim.symbol] = by_position(input, axis);
}

Shape Inputs::shape_of(const OnnxValueInfo& input) {
  Shape shape;
  if (!input.is_tensor || !input.has_shape) {
    refuse(input, input.is_tensor ? "no shape" : "no tensor", "a tensor with its dimensions",
           input.is_tensor ? "" : "of a sequence the file does not say how many tensors it has");
    return shape;
  }
  for (std::size_t axis = 0; axis < input.dims.size(); ++axis)
    shape.push_back(size_of(input, axis));
  return shape;
}

}  // namespace

std::vector<OnnxValue> onnx_inputs(OnnxLowering& lowering, const OnnxGraph& onnx,
                                   const SampleShape& sample) {
  std::set<std::string, std::less<>> stored;  // old files list their weights among the inputs
  for (const facts::OnnxTensor& tensor : onnx.initializers) stored.insert(tensor.name);
  std::vector<const OnnxValueInfo*> fed;
  for (const OnnxValueInfo& input : onnx.inputs) {
    if (!stored.contains(input.name)) fed.push_back(&input);
  }
  Inputs inputs(lowering, sample);
  inputs.find_fixed_batch(fed);
  Graph& graph = lowering.graph;
  graph.batch = sample.batch;
  std::vector<OnnxValue> values;
  for (const OnnxValueInfo* input : fed) {
    OnnxValue value;
    value.name = input->name;
    value.kind = kind_of_onnx(input->element);
    value.shape = inputs.shape_of(*input);
    if (!lowering.well()) return {};
    const std::int64_t first = value.shape.empty() ? 0 : value.shape.front();
    if (lowering.moves_batch() && first == lowering.fixed_batch) {
      value.places.resize(value.shape.size());
      value.places.front() = {1, 1};
    }
    value.strides = contiguous_strides(lowering.sized(value.shape, value.places));
    const bool real = value.kind == ElementKind::real;
    value.of_data = real;
    value.ref = {true, static_cast<std::int32_t>(graph.shared.size())};
    graph.shared.push_back(
        {input->name, value.shape, real ? ElementKind::pixels : ElementKind::token_ids});
    if (real && value.rank() == 4 && graph.image_height == 0) {
      graph.image_height = value.shape[2];
      graph.image_width = value.shape[3];
    }
    if (!real && value.rank() == 2 && graph.sequence == 1) graph.sequence = value.shape[1];
    values.push_back(std::move(value));
  }
  if (graph.image_height > 0) graph.sequence = 1;
  graph.batch_tensors = graph.shared;
  return values;
}

}  // namespace steelyard::model
