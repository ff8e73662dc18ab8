// Whole language models against recorded steps of PyTorch 2.6: what one forward pass adds, to the
// byte, and how far the fullest moment of backward is from the recorded one.
//
// The recorded models are the ones that `model` builds, but their loss does not shift the labels:
// Hugging Face's does, into a copy of 8 bytes a token, which every comparison accounts for.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "codec/codec.h"
#include "step/block_trace.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

using facts::Value;

std::int64_t whole(const Value& row, std::string_view key) {
  return *row.find(key)->as_whole();
}
const std::string& text(const Value& row, std::string_view key) {
  return *row.find(key)->as_text();
}
double real(const Value& row, std::string_view key) {
  const Value* value = row.find(key);
  return value->as_real() != nullptr ? *value->as_real() : static_cast<double>(*value->as_whole());
}

facts::ModelSource source_of(const Value& dims) {
  if (text(dims, "family") == "gpt2") {
    const double p = real(dims, "p");
    return {"gpt2",
            facts::Object{{"model_type", "gpt2"},
                          {"vocab_size", whole(dims, "V")},
                          {"n_layer", whole(dims, "L")},
                          {"n_embd", whole(dims, "H")},
                          {"n_head", whole(dims, "nh")},
                          {"n_positions", whole(dims, "S")},
                          {"activation_function",
                           text(dims, "act") == "py" ? "gelu_new" : "gelu_pytorch_tanh"},
                          {"resid_pdrop", p},
                          {"attn_pdrop", p},
                          {"embd_pdrop", p}},
            ""};
  }
  return {"llama",
          facts::Object{{"model_type", "llama"},
                        {"vocab_size", whole(dims, "V")},
                        {"num_hidden_layers", whole(dims, "L")},
                        {"hidden_size", whole(dims, "H")},
                        {"num_attention_heads", whole(dims, "nh")},
                        {"num_key_value_heads", whole(dims, "nkv")},
                        {"intermediate_size", whole(dims, "I")}},
          ""};
}

BlockOptions options_of(const Value& row) {
  BlockOptions options;
  const std::string& mode = text(row, "mode");
  options.tape.kernel_temporaries = false;  // fake tensors run no kernels
  options.tape.sum_in_place = false;
  options.tape.arithmetic.compute = mode == "fp32" ? DType::fp32 : DType::bf16;
  options.tape.arithmetic.autocast = mode == "amp_bf16";
  options.weight_dtype = mode == "bf16" ? DType::bf16 : DType::fp32;
  options.variants.key_value_repeat = KeyValueRepeat::grouped;
  options.variants.attention =
      text(*row.find("dims"), "attn") == "flash" ? AttentionKernel::flash : AttentionKernel::math;
  return options;
}

Tensor outside(std::int64_t numel, DType dtype) {
  Tensor tensor;
  tensor.storage = std::make_shared<Storage>();
  tensor.storage->external = true;
  tensor.storage->bytes = bytes_of(numel, dtype);
  tensor.numel = numel;
  tensor.dtype = dtype;
  return tensor;
}

// Bytes that the forward pass leaves, and the fullest moment of the backward pass, each storage
// rounded up to 512.
struct Traced {
  Bytes forward, backward_peak;
};

class Tracker {
 public:
  explicit Tracker(const Program& program) : program_(program) {}
  void play(const std::vector<Event>& events, std::int64_t instance) {
    for (const Event& event : events) {
      switch (event.kind) {
        case EventKind::allocate: on_allocate({event.index, instance}); break;
        case EventKind::free: on_free({event.index, instance}); break;
        case EventKind::carry:
          carried_ = std::exchange(alive_[{event.index, instance}], Bytes());
          break;
        case EventKind::adopt:
          alive_[{event.index, instance}] = std::exchange(carried_, Bytes());
          break;
        case EventKind::keep_gradient: {  // the first of its layer: handed over
          const Gradient& gradient = program_.gradients[static_cast<std::size_t>(event.index)];
          alive_[{gradient.kept, instance}] =
              std::exchange(alive_[{gradient.fresh, instance}], Bytes());
          break;
        }
        case EventKind::ensure:
        case EventKind::work:
        case EventKind::communicate: break;
      }
    }
  }
  void reset_peak() { peak_ = live_; }
  [[nodiscard]] Bytes live() const { return live_; }
  [[nodiscard]] Bytes peak() const { return peak_; }

 private:
  using Allocation = std::pair<std::int32_t, std::int64_t>;
  void on_allocate(Allocation allocation) {
    const Bytes bytes = program_.slots[static_cast<std::size_t>(allocation.first)].bytes;
    alive_[allocation] = round_up(bytes, Bytes(512));
    live_ += alive_[allocation];
    peak_ = std::max(peak_, live_);
  }
  void on_free(Allocation allocation) { live_ -= std::exchange(alive_[allocation], Bytes()); }

  const Program& program_;
  std::map<Allocation, Bytes> alive_;
  Bytes carried_, live_, peak_;
};

using Traces = std::vector<std::pair<BlockTrace, std::int64_t>>;  // of each segment, and its repeat

Traces traces_of(Program& program, const model::Graph& graph, BlockOptions options) {
  SharedTensors shared;
  shared.mask = outside(graph.sequence * graph.sequence, DType::boolean);
  const Recompute recompute = options.recompute;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Weight& weight : segment.blocks[0].weights) {
      if (!weight.tied_to.empty()) options.graded.insert(weight.tied_to);
    }
  }
  Traces traces;
  for (std::size_t s = 0; s < graph.segments.size(); ++s) {
    const model::Segment& segment = graph.segments[s];
    const bool first = s == 0;
    const bool last = s + 1 == graph.segments.size();
    options.recompute = first || last ? Recompute::none : recompute;
    traces.emplace_back(
        trace_block(program, graph, segment.blocks[0], options, shared, first, last),
        segment.repeat);
  }
  return traces;
}

Traced traced(const model::Graph& graph, const BlockOptions& options) {
  Program program;
  const Traces traces = traces_of(program, graph, options);
  const bool masked = options.variants.attention == AttentionKernel::math;
  const Bytes mask =
      masked ? round_up(Bytes(graph.sequence * graph.sequence), Bytes(512)) : Bytes();
  Tracker tracker(program);
  for (const auto& [trace, repeat] : traces) {
    for (std::int64_t i = 0; i < repeat; ++i) tracker.play(trace.forward, i);
  }
  for (const auto& [trace, repeat] : traces) {
    for (std::int64_t i = 0; i < repeat; ++i) tracker.play(trace.after_forward, i);
  }
  Traced result;
  result.forward = tracker.live() + mask;
  tracker.reset_peak();
  for (auto at = traces.rbegin(); at != traces.rend(); ++at) {
    for (std::int64_t i = at->second - 1; i >= 0; --i) tracker.play(at->first.backward, i);
  }
  result.backward_peak = tracker.peak() + mask;
  return result;
}

std::vector<Value> rows_of(bool checkpointed) {
  const auto file = codec::read_value(std::filesystem::path(STEELYARD_TESTS_DIR) / "vectors" /
                                      "data" / "saved_tensors.json");
  EXPECT_TRUE(file) << (file ? "" : to_text(file.error()));
  std::vector<Value> rows;
  if (!file) return rows;
  for (const Value& row : *file->find("timeline")->as_array()) {
    if (*row.find("dims")->find("ckpt")->as_bool() == checkpointed) rows.push_back(row);
  }
  return rows;
}

model::Graph recorded_graph(const Value& row) {
  const Value& dims = *row.find("dims");
  const auto graph = model::build(source_of(dims), {whole(dims, "B"), whole(dims, "S")});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph.value_or(model::Graph());
}

std::string name_of_row(const Value& row) {
  return codec::to_json(*row.find("dims"), -1) + " " + text(row, "mode") + " " +
         text(row, "optimizer");
}

// The copy of the labels that the recorded loss does not make; the backward pass of the loss frees
// it.
Bytes shifted_labels(const model::Graph& graph) {
  return round_up(Bytes(8 * graph.batch * graph.sequence), Bytes(512));
}

Bytes recorded(const Value& row, std::string_view phase, std::string_view key) {
  const Value& first = (*row.find("steps")->as_array())[0];
  return Bytes(whole(*first.find(phase), key) - whole(row, "init"));
}

TEST(Timeline, OneForwardAddsWhatPyTorchAdds) {
  const std::vector<Value> rows = rows_of(false);
  EXPECT_GE(rows.size(), 11u);
  for (const Value& row : rows) {
    const model::Graph graph = recorded_graph(row);
    EXPECT_EQ(model::parameter_count(graph).value(), whole(row, "params"));
    const Bytes ours = traced(graph, options_of(row)).forward - shifted_labels(graph);
    EXPECT_EQ(ours.value(), whole(row, "formula_forward")) << name_of_row(row);
    EXPECT_EQ(ours, recorded(row, "forward", "live")) << name_of_row(row);
  }
}

// The fullest moment is the gradient of log_softmax; the shifted labels are gone by then.
TEST(Timeline, BackwardIsAsFullAsRecorded) {
  for (const Value& row : rows_of(false)) {
    const Bytes ours = traced(recorded_graph(row), options_of(row)).backward_peak;
    EXPECT_EQ(ours, recorded(row, "backward", "peak")) << name_of_row(row);
  }
}

// The recorded GPT-2 makes its causal mask for flash attention too, and each checkpointed layer
// keeps it among its arguments.
Bytes unused_mask(const Value& row) {
  const Value& dims = *row.find("dims");
  if (text(dims, "family") != "gpt2" || text(dims, "attn") != "flash") return {};
  return round_up(Bytes(whole(dims, "S") * whole(dims, "S")), Bytes(512));
}

// As above where the head is the fullest moment. In one row it is the embedding's gradient, behind
// the last layer: there the rotary tables that this room frees with the micro-batch are gone
// already.
TEST(Timeline, CheckpointedStepsAddAndHoldWhatIsRecorded) {
  const std::vector<Value> rows = rows_of(true);
  EXPECT_GE(rows.size(), 7u);
  for (const Value& row : rows) {
    const model::Graph graph = recorded_graph(row);
    BlockOptions options = options_of(row);
    options.recompute = Recompute::everything;
    const Traced ours = traced(graph, options);
    EXPECT_EQ(ours.forward - shifted_labels(graph) + unused_mask(row),
              recorded(row, "forward", "live"))
        << name_of_row(row);
    const Value& first = (*row.find("steps")->as_array())[0];
    if (text(*first.find("backward"), "at") != "aten._log_softmax_backward_data.default") continue;
    EXPECT_EQ(ours.backward_peak + unused_mask(row), recorded(row, "backward", "peak"))
        << name_of_row(row);
  }
}

}  // namespace
}  // namespace steelyard::step
