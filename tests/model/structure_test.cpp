// What holds for the graph of every catalogue model: each tensor is made before it is used, blocks
// fit together, weights are named once. `step` relies on it.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

namespace fs = std::filesystem;

void check_reads(const Operator& op, const Block& block, const Graph& graph,
                 const std::set<std::int32_t>& made) {
  for (const TensorRef input : op.inputs) {
    if (input.shared) {
      EXPECT_LT(input.index, std::ssize(graph.shared)) << op.name;
    } else {
      EXPECT_TRUE(made.contains(input.index)) << block.name << ": " << op.name;
    }
  }
  for (const std::int32_t weight : op.weights) {
    EXPECT_LT(weight, std::ssize(block.weights)) << op.name;
  }
}

// A weight that blocks share without one that owns it by use (Transformer-XL's biases).
bool is_shared(const Graph& graph, const Weight& weight) {
  for (const Segment& segment : graph.segments) {
    for (const Block& block : segment.blocks) {
      for (const Weight& other : block.weights) {
        if (other.tied_to == weight.name) return true;
      }
    }
  }
  return false;
}

// Every tensor of the block is its input or made by exactly one operator, before it is read; every
// weight belongs to exactly one operator; operator names are distinct.
void check_block(const Block& block, const Graph& graph) {
  std::set<std::int32_t> made;
  std::set<std::int32_t> weights;
  std::set<std::string> names;
  if (block.input.index >= 0) made.insert(block.input.index);
  for (const Operator& op : block.operators) {
    check_reads(op, block, graph, made);
    for (const TensorRef output : op.outputs) {
      if (!output.shared) {
        EXPECT_TRUE(made.insert(output.index).second) << op.name;
      }
    }
    for (const std::int32_t weight : op.weights) {
      // A second pass through a module, under a name of its own (DeBERTa's distances).
      const std::string& name = block.weights.at(static_cast<std::size_t>(weight)).name;
      EXPECT_TRUE(weights.insert(weight).second || !name.starts_with(op.name)) << name;
    }
    EXPECT_TRUE(names.insert(op.name).second) << block.name << ": " << op.name;
  }
  EXPECT_EQ(std::ssize(made), std::ssize(block.tensors)) << block.name;
  for (std::int32_t i = 0; i < std::ssize(block.weights); ++i) {
    const Weight& weight = block.weights[static_cast<std::size_t>(i)];
    // Read by nothing, or by a choice outside of autograd.
    const bool apart = weight.unread || !weight.trains;
    EXPECT_TRUE(weights.contains(i) || apart || is_shared(graph, weight)) << weight.name;
  }
  EXPECT_TRUE(made.contains(block.output.index)) << block.name;
}

// Each block receives what the one before puts out; the last one puts out the loss.
void check_chain(const Graph& graph) {
  std::int64_t layers = 0;
  Shape stream;
  for (const Segment& segment : graph.segments) {
    const bool first = &segment == &graph.segments.front();
    const bool last = &segment == &graph.segments.back();
    for (const Block& block : segment.blocks) {
      const auto shape = [&](TensorRef ref) {
        return block.tensors.at(static_cast<std::size_t>(ref.index)).shape;
      };
      if (first) {
        EXPECT_EQ(block.input.index, -1);
      } else {
        EXPECT_EQ(shape(block.input), stream);
      }
      stream = shape(block.output);
      if (segment.repeat > 1) {
        EXPECT_EQ(stream, shape(block.input));
      }
      // Between an encoder and its decoder lies what is no layer.
      if (!first && !last && block.name != "middle") layers += segment.repeat;
    }
  }
  EXPECT_EQ(stream, Shape{});
  // Of a model with pictures beside text `layers` are those of the text.
  if (graph.images > 0) {
    EXPECT_GE(layers, graph.layers);
  } else {
    EXPECT_EQ(layers, graph.layers);
  }
  EXPECT_EQ(graph.segments.front().blocks.front().name, "embed");
  EXPECT_EQ(graph.segments.back().blocks.back().name,
            graph.segments.size() == 1 ? "embed" : "head");
}

const Weight* find_owner(const Graph& graph, const std::string& name) {
  for (const Segment& segment : graph.segments) {
    for (const Block& block : segment.blocks) {
      if (const Weight* weight = find_weight(block, name)) return weight;
    }
  }
  return nullptr;
}

void check_tied(const Graph& graph) {
  for (const Segment& segment : graph.segments) {
    for (const Block& block : segment.blocks) {
      for (const Weight& weight : block.weights) {
        if (weight.tied_to.empty()) continue;
        const Weight* owner = find_owner(graph, weight.tied_to);
        ASSERT_NE(owner, nullptr) << weight.tied_to;
        EXPECT_EQ(owner->shape, weight.shape);
      }
    }
  }
}

// Companions are weights alone: no operators, nothing handed on.
bool is_listing(const Graph& graph) {
  return graph.segments.front().blocks.front().operators.empty();
}

template <class Check>
void for_each_model(const Check& check) {
  int models = 0;
  for (const auto& item :
       fs::recursive_directory_iterator(fs::path(STEELYARD_SOURCE_DIR) / "catalog/models")) {
    if (!item.is_regular_file()) continue;
    const std::string id = model_id(item.path());
    SCOPED_TRACE(id);
    const auto entry = catalogue().model(id);
    ASSERT_TRUE(entry) << to_text(entry.error());
    auto graph = build(*entry, {.batch = 2, .sequence = 48});
    // Pictures that are tokens of the sample need more of them than that.
    if (!graph && graph.error().subject == "train.sequence_length") {
      graph = build(*entry, {.batch = 2, .sequence = 640});
    }
    ASSERT_TRUE(graph) << to_text(graph.error());
    if (!is_listing(*graph)) check(*graph);
    ++models;
  }
  EXPECT_GT(models, 0);
}

TEST(Structure, TensorsAreMadeOnceAndBeforeTheyAreRead) {
  for_each_model([](const Graph& graph) {
    for (const Segment& segment : graph.segments) {
      for (const Block& block : segment.blocks) check_block(block, graph);
    }
  });
}

TEST(Structure, BlocksHandOnTheResidualStream) {
  for_each_model(check_chain);
}

TEST(Structure, TiedWeightsNameAWeightOfTheSameShape) {
  for_each_model(check_tied);
}

// Dimensions of the shared table that the block reads; 0: none.
std::int64_t turning_of(const Block& block) {
  std::int64_t dims = 0;
  for (const Operator& op : block.operators) {
    const bool latent = op.kind == OperatorKind::latent_heads;
    if (op.kind == OperatorKind::rotary_table && !op.inputs.empty() && op.inputs[0].shared) {
      dims = block.tensors.at(static_cast<std::size_t>(op.outputs.front().index)).shape[2];
    }
    if (op.kind != OperatorKind::rotary && !latent) continue;
    if (!op.inputs.at(latent ? 3 : 2).shared) continue;  // a table of the layer's own
    // Halves that turn apart: half as many in each table.
    dims = op.turns_halves ? op.rotary_dims / 2 : op.rotary_dims;
  }
  return dims;
}

TEST(Structure, RotaryModelsShareTheirTableAndOnlyThey) {
  for_each_model([](const Graph& graph) {
    if (graph.library == "diffusers") return;  // theirs stand behind the batch's tensors
    std::int64_t dims = 0;
    for (const Segment& segment : graph.segments) {
      for (const Block& block : segment.blocks) dims = std::max(dims, turning_of(block));
    }
    const auto table = std::find_if(graph.shared.begin(), graph.shared.end(),
                                    [](const TensorInfo& info) { return info.name == "cos"; });
    EXPECT_EQ(table != graph.shared.end(), dims > 0);
    if (table == graph.shared.end()) return;
    // Pictures have tables of their own, and their places in the text three dimensions.
    if (graph.images > 0) return;
    EXPECT_EQ(table->shape, (Shape{1, graph.sequence, dims}));
    if (table == graph.shared.begin() + 1) {
      const bool local = graph.shared.size() > 3 && graph.shared[3].name == "local_cos";
      EXPECT_EQ(graph.shared.size(), local ? 5u : 3u);
    }
  });
}

// Of text, of patches, of the rows of a picture, of a text that a picture attends to.
TEST(Structure, AttentionReadsHeadsOfItsOwnShape) {
  for_each_model([](const Graph& graph) {
    for (const Segment& segment : graph.segments) {
      for (const Block& block : segment.blocks) {
        const auto shape = [&](TensorRef ref) {
          return block.tensors.at(static_cast<std::size_t>(ref.index)).shape;
        };
        for (const Operator& op : block.operators) {
          if (op.kind != OperatorKind::attention) continue;
          const AttentionShape& a = op.attention;
          const std::int64_t queries = shape(op.inputs[0]).at(2);
          const std::int64_t keys = shape(op.inputs[1]).at(2);
          const std::int64_t samples = shape(op.inputs[0]).at(0);  // or their windows
          if (a.packed == 0) {  // else pictures of all samples lie in one row
            EXPECT_EQ(samples % graph.batch, 0);
          }
          EXPECT_EQ(shape(op.inputs[0]), (Shape{samples, a.heads, queries, a.head_dim}));
          EXPECT_EQ(shape(op.inputs[1]), (Shape{samples, a.kv_heads, keys, a.head_dim}));
          const std::int64_t value = a.value_dim > 0 ? a.value_dim : a.head_dim;
          EXPECT_EQ(shape(op.inputs[2]), (Shape{samples, a.kv_heads, keys, value}));
          EXPECT_EQ(shape(op.outputs[0]), (Shape{samples, queries, a.heads * value}));
          if (graph.image_height == 0) {
            const bool decodes = graph.audio_samples > 0 && queries == graph.decoder_sequence;
            EXPECT_EQ(queries, decodes ? graph.decoder_sequence : graph.sequence);
            EXPECT_TRUE(keys == graph.sequence || (decodes && keys == queries)) << keys;
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace steelyard::model
