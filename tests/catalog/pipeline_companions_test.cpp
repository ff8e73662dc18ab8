// A pipeline's folder brings the models beside its denoiser, unless the job lists its own.
#include "catalog/pipeline_companions.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "catalog/catalog.h"

namespace steelyard::catalog {
namespace {

namespace fs = std::filesystem;

class PipelineFolder : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("pipeline_companions_" + std::to_string(getpid()));
    write("pipe/model_index.json",
          R"({"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DDIMScheduler"],
              "text_encoder": ["transformers", "CLIPTextModel"], "text_encoder_2": [null, null],
              "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet"],
              "vae": ["diffusers", "AutoencoderKL"]})");
    write("pipe/vae/config.json", R"({"_class_name": "AutoencoderKL"})");
    write("pipe/text_encoder/config.json",
          R"({"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"})");
    write("pipe/text_encoder_2/config.json", "{}");
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& file, const std::string& text) const {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  [[nodiscard]] std::vector<facts::Companion> found(const facts::Job& job) const {
    auto companions = pipeline_companions(job, root_);
    EXPECT_TRUE(companions) << (companions ? "" : to_text(companions.error()));
    return companions.value_or(std::vector<facts::Companion>());
  }

  fs::path root_;
};

TEST_F(PipelineFolder, BringsItsEncodersAndItsAutoencoder) {
  facts::Job job;
  for (const char* named : {"pipe", "pipe/model_index.json"}) {
    job.model.config = std::string(named);
    const std::vector<facts::Companion> companions = found(job);
    ASSERT_EQ(companions.size(), 2U);
    EXPECT_EQ(companions[0].config, "pipe/text_encoder");
    EXPECT_EQ(companions[1].config, "pipe/vae");
    EXPECT_EQ(companions[0].held, facts::CompanionHeld::always);
    EXPECT_FALSE(companions[0].trainable);
    job.model.companions = companions;
    const Catalog catalog = Catalog::at(fs::path(STEELYARD_SOURCE_DIR) / "catalog");
    const auto sources = catalog.companions_of(job, root_);
    ASSERT_TRUE(sources) << to_text(sources.error());
    EXPECT_EQ(*sources->at(1).config.find("_class_name")->as_text(), "AutoencoderKL");
    job.model.companions.clear();
  }
}

TEST_F(PipelineFolder, LeavesListsOfTheJobAlone) {
  facts::Job job;
  job.model.config = std::string("pipe");
  job.origins["model.companions"] = {facts::Origin::job, {}};
  EXPECT_TRUE(found(job).empty());
  facts::Job other;
  other.model.config = std::string("gpt2");
  EXPECT_TRUE(found(other).empty());
}

TEST_F(PipelineFolder, HoldsPartsAsTheJobSays) {
  facts::Job job;
  job.model.config = std::string("pipe");
  job.model.pipeline = facts::Object{{"text_encoder", "cpu"}, {"vae", "load"}};
  const std::vector<facts::Companion> companions = found(job);
  ASSERT_EQ(companions.size(), 2U);
  EXPECT_EQ(companions[0].held, facts::CompanionHeld::cpu);
  EXPECT_EQ(companions[1].held, facts::CompanionHeld::load);
  job.model.pipeline = facts::Object{{"text_encoder", "none"}};
  ASSERT_EQ(found(job).size(), 1U);
  EXPECT_EQ(found(job).front().config, "pipe/vae");
}

TEST_F(PipelineFolder, RefusesPartsThatAreNotThere) {
  const auto complaint = [&](const char* config, facts::Object wishes) {
    facts::Job job;
    job.model.config = std::string(config);
    job.model.pipeline = std::move(wishes);
    const auto companions = pipeline_companions(job, root_);
    return companions ? std::string() : to_text(companions.error());
  };
  EXPECT_NE(complaint("pipe", {{"text_encoder_2", "cpu"}}).find("text_encoder or vae"),
            std::string::npos);
  EXPECT_NE(complaint("pipe", {{"vae", "gpu"}}).find("always, load, cpu or none"),
            std::string::npos);
  EXPECT_NE(complaint("pipe", {{"vae", 1}}).find("model.pipeline.vae"), std::string::npos);
  EXPECT_NE(complaint("gpt2", {{"vae", "cpu"}}).find("folder of a diffusers pipeline"),
            std::string::npos);
}

}  // namespace
}  // namespace steelyard::catalog
