#include <algorithm>
#include <string>

#include "catalog/catalog.h"
#include "catalog_fixture.h"

namespace steelyard::catalog {
namespace {

std::string summary_of(const std::vector<Entry>& entries, std::string_view id) {
  for (const Entry& entry : entries) {
    if (entry.id == id) return entry.summary;
  }
  return "(not listed)";
}

TEST(Listing, AGpuLineSaysMemoryBandwidthAndArithmetic) {
  const auto entries = value_of(own_catalog().list(Kind::gpus));
  EXPECT_EQ(summary_of(entries, "h100-sxm-80gb"),
            "H100 SXM5 80GB, 79.1 GiB, 3.35 TB/s, 989 TFLOP/s bf16");
  // No bf16: the rate of another type is named as such, never as bf16.
  EXPECT_NE(summary_of(entries, "v100-sxm-32gb").find("125 TFLOP/s fp16"), std::string::npos);
  EXPECT_NE(summary_of(entries, "p100-pcie-16gb").find("arithmetic unknown"), std::string::npos);
}

TEST(Listing, AMachineLineSaysGpusRamRatioAndPrice) {
  const auto entries = value_of(own_catalog().list(Kind::machines));
  EXPECT_EQ(entries.size(), 165U);
  EXPECT_EQ(summary_of(entries, "aws:p5.48xlarge"),
            "AWS, 8 x H100 SXM5 80GB, 2.0 TiB RAM, RAM:VRAM 3.2, 55.04 USD/h");
  const std::string unknown = summary_of(entries, "vast:8x-RTX_4090");
  EXPECT_NE(unknown.find("RAM unknown"), std::string::npos) << unknown;
  EXPECT_NE(unknown.find("RAM:VRAM unknown"), std::string::npos) << unknown;
}

TEST(Listing, ModelsSayTypeLayersAndWidth) {
  const TemporaryFolder folder;
  folder.write("models/b.json",
               R"({"config": {"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096},
                   "parameters": 8030261248, "confidence": "high"})");
  folder.write("models/a.json",
               R"({"config": {"model_type": "gpt2", "n_layer": 12, "n_embd": 768}})");
  const auto entries = value_of(Catalog::at(folder.path()).list(Kind::models));
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].id, "a");
  EXPECT_EQ(entries[0].summary, "gpt2, 12 layers, hidden 768");
  EXPECT_EQ(entries[1].summary, "llama, 8.03 B parameters, 32 layers, hidden 4096");
  EXPECT_EQ(entries[1].confidence, "high");
}

TEST(Listing, DatasetsSaySamplesAndSizes) {
  const auto entries = value_of(own_catalog().list(Kind::datasets));
  EXPECT_GE(entries.size(), 15U);
  const std::string imagenet = summary_of(entries, "imagenet-1k");
  EXPECT_NE(imagenet.find("1,281,167 samples"), std::string::npos) << imagenet;
  EXPECT_NE(imagenet.find("111.3 KiB each"), std::string::npos) << imagenet;
}

TEST(Listing, EveryDatasetHasASourceAndAKindOfTheContract) {
  const Catalog catalog = own_catalog();
  for (const Entry& entry : value_of(catalog.list(Kind::datasets))) {
    SCOPED_TRACE(entry.id);
    const facts::Value dataset = value_of(catalog.dataset(entry.id));
    EXPECT_EQ(*dataset.find("id")->as_text(), entry.id);
    EXPECT_TRUE(facts::from_name<facts::DataKind>(*dataset.find("kind")->as_text()).has_value());
    EXPECT_TRUE(
        facts::from_name<facts::DataLayout>(*dataset.find("layout")->as_text()).has_value());
    EXPECT_FALSE(dataset.find("source")->as_array()->empty());
    EXPECT_FALSE(entry.confidence.empty());
  }
  EXPECT_NE(error_of(catalog.dataset("imagenet")).hint.find("imagenet-1k"), std::string::npos);
}

TEST(Listing, EveryModelLoadsWithASource) {
  const Catalog catalog = own_catalog();
  const auto entries = value_of(catalog.list(Kind::models));
  EXPECT_GE(entries.size(), 60U);
  for (const Entry& entry : entries) {
    SCOPED_TRACE(entry.id);
    EXPECT_FALSE(entry.summary.empty());
    const facts::ModelSource model = value_of(catalog.model(entry.id));
    EXPECT_FALSE(model.source.empty());
  }
}

TEST(Listing, MatchLooksAtIdAndSummaryWhateverTheCase) {
  const auto entries = value_of(own_catalog().list(Kind::machines, "GB200"));
  EXPECT_GE(entries.size(), 3U);
  for (const Entry& entry : entries) {
    EXPECT_TRUE((entry.id + entry.summary).find("GB200") != std::string::npos ||
                entry.id.find("gb200") != std::string::npos)
        << entry.id;
  }
  EXPECT_TRUE(value_of(own_catalog().list(Kind::gpus, "no such thing")).empty());
}

TEST(Listing, LinesAreSortedById) {
  for (const Kind kind : {Kind::gpus, Kind::machines, Kind::models, Kind::datasets}) {
    const auto entries = value_of(own_catalog().list(kind));
    EXPECT_TRUE(std::is_sorted(entries.begin(), entries.end(),
                               [](const Entry& a, const Entry& b) { return a.id < b.id; }));
  }
}

}  // namespace
}  // namespace steelyard::catalog
