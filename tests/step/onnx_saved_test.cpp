// What the networks of recorded ONNX files keep for backward, against what torch kept of the module
// that was exported (tests/model/onnx, recorded by oracle_onnx.py).
#include <gtest/gtest.h>

#include <cmath>

#include "codec/onnx.h"
#include "codec/temporary_folder.h"
#include "model/onnx.h"
#include "model/onnx_exports.h"
#include "step/block_trace.h"

namespace steelyard::step {
namespace {

// Scalars (a loss's total weight) are not in the rows.
std::int64_t own_bytes(const BlockTrace& trace) {
  std::int64_t sum = 0;
  for (const SavedStorage& storage : trace.saved) {
    const bool scalar = storage.bytes <= Bytes(4);
    if (!storage.external && !storage.borrowed && !scalar) sum += storage.bytes.value();
  }
  return sum;
}

std::int64_t saved_bytes(const model::Graph& graph) {
  BlockOptions options;
  options.tape.kernel_temporaries = false;
  options.tape.arithmetic.compute = DType::fp32;
  options.tape.arithmetic.ambient = DType::fp32;
  options.variants.dropout = false;
  SharedTensors shared;
  Program program;
  std::int64_t sum = 0;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      const bool last = &segment == &graph.segments.back();
      sum += own_bytes(trace_block(program, graph, block, options, shared,
                                   &segment == &graph.segments.front(), last));
    }
  }
  return sum;
}

Result<model::Graph> graph_of(const model::OnnxExport& exported, std::int64_t batch) {
  const TemporaryFolder folder;
  const auto model = codec::read_onnx(folder.write("model.onnx", exported.bytes));
  if (!model) return fail(model.error());
  return model::build_onnx(**model, exported.name, {.batch = batch, .sequence = exported.sequence});
}

// A share of what torch kept. Ids and masks that the exporter made constants are kept as indices,
// which torch has as buffers: more in these tiny models than in large ones.
double bound_of(const std::string& name) {
  if (name.starts_with("llama")) return 0.04;     // six masks of [S,S] that torch adds and drops
  if (name.starts_with("wav2vec2")) return 0.06;  // the weight norm, which that export carries out
  if (name.starts_with("denoising_unet")) return 0.02;  // sizes of pooled embeddings
  if (name == "weight_norm") return 0.07;               // the same, of two small convolutions
  if (name == "standardized") return 0.006;             // numbers for each channel, in tiny maps
  if (name == "vit_dynamo") return 0.02;
  if (name == "deberta") return 0.35;  // copies of the distances' keys for each sample
  return 0.005;
}

TEST(OnnxSaved, IsWhatTorchKept) {
  int compared = 0, exact = 0;
  for (const auto& file : model::onnx_exports()) {
    const model::OnnxExport exported = model::read_export(file);
    if (exported.saved_bytes == 0) continue;
    const auto graph = graph_of(exported, exported.batch);
    EXPECT_TRUE(graph) << exported.name << ": " << to_text(graph.error());
    if (!graph) continue;
    const std::int64_t saved = saved_bytes(*graph);
    const double error = static_cast<double>(saved - exported.saved_bytes) /
                         static_cast<double>(exported.saved_bytes);
    EXPECT_LE(std::abs(error), bound_of(exported.name))
        << exported.name << " " << 100 * error << " %";
    exact += saved == exported.saved_bytes ? 1 : 0;
    ++compared;
  }
  EXPECT_GE(compared, 50);
  EXPECT_GE(exact, 25);
}

// A file that fixes its batch, of 1 too, keeps at another one what that with an open batch keeps.
TEST(OnnxSaved, OfAFixedBatchIsThatOfAnOpenOne) {
  int compared = 0;
  for (const auto& file : model::onnx_exports()) {
    const model::OnnxExport fixed = model::read_export(file);
    const std::size_t end = fixed.name.rfind('_');
    const std::string ending = end == std::string::npos ? "" : fixed.name.substr(end);
    if (ending != "_fixed" && ending != "_batch1") continue;
    const auto base = file.parent_path() / (fixed.name.substr(0, end) + ".json");
    if (!std::filesystem::exists(base)) continue;
    SCOPED_TRACE(fixed.name);
    const auto open = model::read_export(base);
    for (const std::int64_t batch : {1, 2, 7}) {
      const auto moved = graph_of(fixed, batch);
      EXPECT_TRUE(moved) << to_text(moved.error());
      if (!moved) continue;
      const auto graph = graph_of(open, batch);
      ASSERT_TRUE(graph) << to_text(graph.error());
      // What is made of constants alone (ids of token types, drop path) keeps its size.
      const auto kept = static_cast<double>(saved_bytes(*graph));
      EXPECT_NEAR(static_cast<double>(saved_bytes(*moved)), kept, 1e-3 * kept) << batch;
      EXPECT_EQ(forward_flops(*moved).value(), forward_flops(*graph).value()) << batch;
    }
    ++compared;
  }
  EXPECT_GE(compared, 10);
}

}  // namespace
}  // namespace steelyard::step
