// Every catalogue model is built and has exactly the parameters that transformers counts
// (published_parameters.json; oracle_parameters.py made it) and that its publisher states.
#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <map>
#include <set>

#include "codec/codec.h"
#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = fs::path(STEELYARD_SOURCE_DIR) / "catalog" / "models";
const fs::path kCounts = fs::path(STEELYARD_TESTS_DIR) / "model" / "published_parameters.json";

facts::Value read(const fs::path& file) {
  const auto value = codec::read_value(file);
  if (!value) throw std::runtime_error(to_text(value.error()));
  return *value;
}

Result<Graph> build_from(const facts::Value& entry, SampleShape sample) {
  const auto source = catalogue().model(*entry.find("id")->as_text());
  if (!source) return fail(source.error());
  return build(*source, sample);
}

std::vector<fs::path> model_files() {
  std::vector<fs::path> files;
  for (const auto& item : fs::recursive_directory_iterator(kModels)) {
    if (item.is_regular_file()) files.push_back(item.path());
  }
  return files;
}

TEST(PublishedParameters, AreExactForEveryRow) {
  const facts::Value counts = read(kCounts);
  const facts::Array& rows = *counts.find("rows")->as_array();
  EXPECT_GE(rows.size(), 40u);
  for (const facts::Value& row : rows) {
    const std::string& id = *row.find("id")->as_text();
    SCOPED_TRACE(id);
    const auto graph = build_from(read(kModels / (id + ".json")), {});
    ASSERT_TRUE(graph) << to_text(graph.error());
    EXPECT_EQ(parameter_count(*graph).value(), *row.find("parameters")->as_whole());
  }
}

bool routes(const Graph& graph) {
  for (const Segment& segment : graph.segments) {
    for (const Block& block : segment.blocks) {
      for (const Operator& op : block.operators) {
        if (op.kind == OperatorKind::router) return true;
      }
    }
  }
  return false;
}

// What users call a model that bears this type.
std::string kind_of(const Graph& graph) {
  static const std::map<std::string, std::set<std::string>> kKinds = {
      {"speech", {"hubert", "wav2vec2", "whisper"}},
      {"pictures and text",
       {"clip", "gemma3", "idefics3", "internvl", "llava", "mllama", "paligemma", "qwen2_5_vl",
        "qwen2_vl", "qwen3_5", "qwen3_vl", "siglip", "smolvlm"}},
      {"state space",
       {"bamba", "falcon_h1", "granitemoehybrid", "jamba", "mamba", "mamba2", "nemotron_h"}},
      {"recommender", {"dcn", "dlrm", "wide_deep"}},
      {"vision",
       {"beit", "convnext", "convnextv2", "deit", "dinov2", "dinov2_with_registers", "layers",
        "detr", "efficientnet", "mobilenet_v1", "mobilenet_v2", "regnet", "resnet", "segformer",
        "swin", "swinv2", "vit"}},
      {"encoder",
       {"bart", "bert", "blenderbot", "camembert", "deberta-v2", "distilbert", "electra", "marian",
        "mbart", "modernbert", "mt5", "pegasus", "roberta", "t5", "xlm-roberta"}}};
  const std::string& type = graph.model_type;
  for (const auto& [kind, types] : kKinds) {
    if (types.contains(type)) return kind;
  }
  if (type.starts_with("timm_") || type.starts_with("torchvision_")) return "vision";
  if (type.find("Transformer") != std::string::npos || type.starts_with("UNet")) return "diffusion";
  if (std::isupper(static_cast<unsigned char>(type.front())) != 0) return "companion";
  return routes(graph) ? "experts" : "decoder";
}

TEST(PublishedParameters, CoverEveryKindOfModel) {
  std::map<std::string, int> counts;
  const facts::Value published = read(kCounts);
  for (const facts::Value& row : *published.find("rows")->as_array()) {
    const std::string& id = *row.find("id")->as_text();
    const auto graph = build_from(read(kModels / (id + ".json")), {});
    ASSERT_TRUE(graph) << id << ": " << to_text(graph.error());
    ++counts[kind_of(*graph)];
  }
  const std::map<std::string, int> least = {
      {"decoder", 30},          {"experts", 12},    {"encoder", 10},
      {"vision", 40},           {"diffusion", 10},  {"speech", 6},
      {"pictures and text", 6}, {"state space", 3}, {"recommender", 4}};
  for (const auto& [kind, count] : least) {
    EXPECT_GE(counts[kind], count) << kind;
  }
}

// Figures that everybody can look up, here once more so that no data file can drift from them.
TEST(PublishedParameters, OfWellKnownModels) {
  const std::vector<std::pair<std::string, std::int64_t>> known = {
      {"gpt2", 124'439'808},
      {"llama-2-7b", 6'738'415'616},
      {"llama-3.1-8b", 8'030'261'248},
      {"llama-3.1-405b", 405'853'388'800},
      {"mistral-7b-v0.1", 7'241'732'096},
      {"qwen2.5-7b", 7'615'616'512},
      {"gemma-2-9b", 9'241'705'984},
      {"phi-2", 2'779'683'840},
      {"bloom-176b", 176'247'271'424},
      {"pythia-12b", 11'846'072'320},
      {"opt-6.7b", 6'658'473'984},
      {"falcon-7b", 6'921'720'704},
      {"mamba-2.8b", 2'768'345'600},
      {"nemotron-h-8b", 8'100'852'736},
  };
  for (const auto& [id, parameters] : known) {
    const auto graph = build_from(read(kModels / (id + ".json")), {});
    ASSERT_TRUE(graph) << to_text(graph.error());
    EXPECT_EQ(parameter_count(*graph).value(), parameters) << id;
  }
}

TEST(CatalogueModels, AreManyAndCoverEveryFamily) {
  std::set<std::string> families;
  for (const fs::path& file : model_files()) {
    const auto entry = catalogue().model(model_id(file));
    ASSERT_TRUE(entry) << to_text(entry.error());
    const facts::Value* type = entry->config.find("model_type");
    if (type == nullptr) type = entry->config.find("_class_name");
    // Encoders taken out of a larger model: by their class.
    const facts::Value* classes = entry->config.find("architectures");
    const facts::Value* own = classes != nullptr ? &classes->as_array()->front() : nullptr;
    if (own != nullptr && own->as_text()->find("Encoder") != std::string::npos) type = own;
    if (own != nullptr && own->as_text()->starts_with("CLIPText")) type = own;
    families.insert(*type->as_text());
  }
  // Towers of those that are there, and files that hold one of them.
  families.insert({"clip_vision_model", "llama4", "siglip_vision_model"});
  families.insert(
      {"megatron_gpt", "megatron_t5"});  // written by imports, not found in the catalogue
  const std::vector<std::string> known = known_model_types();
  EXPECT_EQ(families, std::set<std::string>(known.begin(), known.end()));
  EXPECT_GE(model_files().size(), 60u);
}

TEST(CatalogueModels, BuildAsTheyStandAndStateTheirSource) {
  for (const fs::path& file : model_files()) {
    SCOPED_TRACE(file.stem().string());
    const facts::Value entry = read(file);
    EXPECT_EQ(*entry.find("id")->as_text(), model_id(file));
    EXPECT_EQ(*entry.find("schema")->as_text(), "steelyard.model/1");
    EXPECT_FALSE(entry.find("source")->as_text()->empty());
    const std::string& confidence = *entry.find("confidence")->as_text();
    EXPECT_TRUE(confidence == "high" || confidence == "medium") << confidence;
    const auto graph = build_from(entry, {});
    ASSERT_TRUE(graph) << to_text(graph.error());
    EXPECT_LE(graph->sequence, 2048);
    if (const facts::Value* published = entry.find("published_parameters")) {
      EXPECT_EQ(parameter_count(*graph).value(), *published->as_whole());
    }
  }
}

}  // namespace
}  // namespace steelyard::model
