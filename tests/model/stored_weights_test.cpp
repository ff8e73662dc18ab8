// Graphs from a config.json against the headers of the safetensors files that transformers wrote
// beside it (safetensors_headers.json, recorded by oracle_safetensors.py).
#include "model/stored_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/codec.h"
#include "codec/safetensors.h"
#include "codec/temporary_folder.h"
#include "model/model.h"

namespace steelyard::model {
namespace {

using ::testing::HasSubstr;

const facts::Array& recorded() {
  static const facts::Value kRecord = codec::read_value(std::filesystem::path(STEELYARD_TESTS_DIR) /
                                                        "model/safetensors_headers.json")
                                          .value();
  return *kRecord.find("models")->as_array();
}

// The file of a header, its weights all zero.
std::string file_of(const facts::Value& header) {
  const std::string text = codec::to_json(header, 0);
  std::int64_t data = 0;
  for (const auto& [name, entry] : *header.as_object()) {
    const facts::Value* offsets = entry.find("data_offsets");
    if (offsets != nullptr) data = std::max(data, *offsets->as_array()->at(1).as_whole());
  }
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(text.size() >> (8 * i) & 0xff);
  return bytes + text + std::string(static_cast<std::size_t>(data), '\0');
}

std::shared_ptr<const facts::StoredTensors> stored_of(const facts::Value& row) {
  const TemporaryFolder folder;
  std::filesystem::path last;
  for (const auto& [name, header] : *row.find("files")->as_object()) {
    last = folder.write(name, file_of(header));
  }
  const facts::Value* index = row.find("index");
  const auto stored = index != nullptr && !index->is_null()
                          ? codec::read_safetensors_index(folder.write(
                                "model.safetensors.index.json", codec::to_json(*index)))
                          : codec::read_safetensors(last);
  EXPECT_TRUE(stored) << (stored ? "" : to_text(stored.error()));
  return stored.value_or(nullptr);
}

facts::ModelSource source_of(const facts::Value& row, const facts::StoredTensors& stored) {
  return {.name = *row.find("name")->as_text(),
          .config = *row.find("config"),
          .stored = std::make_shared<const facts::StoredTensors>(stored)};
}

// Fine-tuning's usual beginning: weights of the encoder, a configuration that asks for a
// classifier.
TEST(StoredWeights, ANewHeadMayBeMissing) {
  const facts::Value config = facts::Object{
      {"model_type", "bert"},         {"hidden_size", 16},       {"num_hidden_layers", 1},
      {"num_attention_heads", 2},     {"intermediate_size", 32}, {"vocab_size", 50},
      {"max_position_embeddings", 16}};
  const auto of_class = [&](const char* name) {
    facts::ModelSource source{.name = "bert", .config = config};
    source.config.set("architectures", facts::Array{name});
    return source;
  };
  const auto tokens = build(of_class("BertForTokenClassification"), {2, 8});
  ASSERT_TRUE(tokens);
  facts::StoredTensors encoder{.file = "model.safetensors", .tensors = {}};
  for (const auto& [name, shape] : state_dict_of(*tokens)) {
    if (name.starts_with("bert.")) encoder.tensors.push_back({name.substr(5), "F32", shape, 0});
  }
  facts::ModelSource source = of_class("BertForSequenceClassification");
  source.stored = std::make_shared<const facts::StoredTensors>(encoder);
  const auto graph = build(source, {2, 8});
  ASSERT_TRUE(graph) << to_text(graph.error());
  EXPECT_THAT(newly_made(*graph, encoder), ::testing::Contains("classifier.weight"));
  // A layer that is missing is no head.
  encoder.tensors.erase(encoder.tensors.begin() + 8);
  source.stored = std::make_shared<const facts::StoredTensors>(encoder);
  EXPECT_FALSE(build(source, {2, 8}));
}

TEST(StoredWeights, RealFilesFitTheirConfigurations) {
  ASSERT_GE(recorded().size(), 40u);
  for (const facts::Value& row : recorded()) {
    const auto stored = stored_of(row);
    ASSERT_TRUE(stored);
    const auto graph = build(source_of(row, *stored), {.batch = 1});
    EXPECT_TRUE(graph) << *row.find("name")->as_text() << ": " << to_text(graph.error());
    if (!graph) continue;
    EXPECT_EQ(parameter_count(*graph).value(), *row.find("parameters")->as_whole()) << graph->name;
  }
}

std::string refusal(facts::StoredTensors stored) {
  const auto graph = build(source_of(recorded().front(), stored), {1, 16, 0, 0});
  return graph ? "accepted" : to_text(graph.error());
}

TEST(StoredWeights, DifferencesAreNamed) {
  const auto stored = stored_of(recorded().front());  // a llama
  ASSERT_TRUE(stored);
  facts::StoredTensors changed = *stored;
  changed.tensors.front().shape.front() += 1;
  EXPECT_THAT(refusal(changed), HasSubstr("other shapes: " + stored->tensors.front().name));
  changed = *stored;
  changed.tensors.pop_back();
  EXPECT_THAT(refusal(changed),
              HasSubstr("weights that the file lacks: " + stored->tensors.back().name));
  changed = *stored;
  changed.tensors.push_back({"model.layers.2.mlp.up_proj.weight", "F32", {64, 32}, 8192});
  EXPECT_THAT(refusal(changed), HasSubstr("does not have: model.layers.2.mlp.up_proj.weight"));
  changed = *stored;
  for (facts::StoredTensor& tensor : changed.tensors) tensor.dtype = "I8";
  EXPECT_THAT(refusal(changed), HasSubstr("does not train"));
  EXPECT_EQ(refusal(*stored), "accepted");
}

}  // namespace
}  // namespace steelyard::model
