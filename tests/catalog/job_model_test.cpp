#include <string>

#include "catalog/catalog.h"
#include "catalog_fixture.h"
#include "codec/codec.h"

namespace steelyard::catalog {
namespace {

// A catalogue with one model, "tiny-8b".
class JobModel : public ::testing::Test {
 protected:
  JobModel() {
    catalog_.write("models/tiny-8b.json", R"({"source": ["card", "paper"],
      "config": {"model_type": "llama", "num_hidden_layers": 32,
                 "hidden_size": 4096, "vocab_size": 32000,
                 "rope_scaling": {"factor": 8.0}}})");
    catalog_.write("models/hub/small.json", R"({"config": {"model_type": "gpt2", "n_embd": 768,
                                               "n_layer": 12, "vocab_size": 50257}})");
  }

  Result<facts::ModelSource> of(const std::string& name) {
    facts::Job job;
    job.model.config = name;
    job.model.set = set_;
    return Catalog::at(catalog_.path()).model_of(job, jobs_.path());
  }

  facts::Value set_;
  TemporaryFolder catalog_;
  TemporaryFolder jobs_;
};

std::int64_t whole(const facts::Value& config, std::string_view key) {
  const facts::Value* value = config.find(key);
  return value == nullptr || value->as_whole() == nullptr ? -1 : *value->as_whole();
}

TEST_F(JobModel, ACatalogueIdBringsItsSource) {
  const facts::ModelSource model = value_of(of("tiny-8b"));
  EXPECT_EQ(model.name, "tiny-8b");
  EXPECT_EQ(whole(model.config, "num_hidden_layers"), 32);
  EXPECT_EQ(model.source, "card; paper");
}

TEST_F(JobModel, AnIdMayHaveAFolder) {
  EXPECT_EQ(value_of(of("hub/small")).name, "hub/small");
}

TEST_F(JobModel, AFileIsRelativeToTheJob) {
  jobs_.write("mine/config.json", R"({"model_type": "qwen2", "num_hidden_layers": 3,
                                     "hidden_size": 64, "vocab_size": 100})");
  EXPECT_EQ(whole(value_of(of("mine/config.json")).config, "num_hidden_layers"), 3);
}

TEST_F(JobModel, AFolderIsItsConfigJson) {
  jobs_.write("mine/config.json", R"({"model_type": "qwen2", "num_hidden_layers": 3,
                                     "hidden_size": 64, "vocab_size": 100})");
  EXPECT_EQ(whole(value_of(of("mine")).config, "num_hidden_layers"), 3);
  EXPECT_EQ(whole(value_of(of("./mine")).config, "num_hidden_layers"), 3);
}

// timm's file on the Hub names a function of timm; a tag behind the dot names weights.
TEST_F(JobModel, TimmsOwnFilesAndTags) {
  catalog_.write("models/timm/resnet50.json",
                 R"({"config": {"model_type": "timm_resnet", "num_classes": 1000}})");
  jobs_.write("hub/config.json", R"({"architecture": "resnet50", "num_classes": 10,
                                     "pretrained_cfg": {"tag": "a1_in1k"}})");
  const facts::ModelSource read = value_of(of("hub"));
  EXPECT_EQ(*read.config.find("model_type")->as_text(), "timm_resnet");
  EXPECT_EQ(whole(read.config, "num_classes"), 10);
  EXPECT_EQ(whole(value_of(of("timm/resnet50.a1_in1k")).config, "num_classes"), 1000);
  const Error other = error_of(of("timm/resnet50.augreg_in21k"));
  EXPECT_EQ(other.code, ErrorCode::not_supported);
  EXPECT_NE(other.hint.find("timm/resnet50"), std::string::npos);
  const Error unknown = error_of(of("timm/eva02.mim_in22k"));  // whatever its weights, no network
  EXPECT_EQ(unknown.code, ErrorCode::unknown_name);
  EXPECT_EQ(unknown.found, "timm/eva02.mim_in22k");
  jobs_.write("hub/config.json", R"({"architecture": "resnet51"})");
  EXPECT_EQ(error_of(of("hub")).code, ErrorCode::unknown_name);
}

// Weights that the Hub holds in fp8, mxfp4 or nf4 are trained all the same.
TEST_F(JobModel, AQuantizedFileIsRead) {
  jobs_.write("mine/config.json", R"({"model_type": "qwen2", "num_hidden_layers": 3,
                                     "hidden_size": 64, "vocab_size": 100,
                                     "quantization_config": {"quant_method": "fp8"}})");
  EXPECT_EQ(whole(value_of(of("mine")).config, "hidden_size"), 64);
}

TEST_F(JobModel, AFolderWithoutConfigJsonSaysSo) {
  jobs_.write("mine/other.txt", "x");
  const Error error = error_of(of("mine"));
  EXPECT_EQ(error.code, ErrorCode::unreadable);
  EXPECT_NE(error.found.find("without config.json"), std::string::npos);
}

TEST_F(JobModel, AnObjectIsTheConfiguration) {
  facts::Job job;
  job.model.config = value_of(codec::parse(R"({"hidden_size": 64})", codec::Format::json, "t"));
  const facts::ModelSource model =
      value_of(Catalog::at(catalog_.path()).model_of(job, jobs_.path()));
  EXPECT_EQ(model.name, "inline");
  EXPECT_EQ(whole(model.config, "hidden_size"), 64);
}

TEST_F(JobModel, SetReplacesAddsAndReachesIntoTables) {
  set_ = value_of(codec::parse(
      R"({"num_hidden_layers": 16, "rope_scaling.factor": 2.0, "text_config": {"a": 1}})",
      codec::Format::json, "t"));
  const facts::Value config = value_of(of("tiny-8b")).config;
  EXPECT_EQ(whole(config, "num_hidden_layers"), 16);
  EXPECT_EQ(*config.find("rope_scaling")->find("factor")->as_real(), 2.0);
  EXPECT_EQ(whole(*config.find("text_config"), "a"), 1);
  EXPECT_EQ(*config.find("model_type")->as_text(), "llama");
}

TEST_F(JobModel, AKeyWithEndlessDotsIsRefused) {
  set_.set(std::string(100'000, '.'), 1);
  EXPECT_EQ(error_of(of("tiny-8b")).code, ErrorCode::too_large);
}

TEST_F(JobModel, NoModelAtAllSaysWhatToGive) {
  const Error error = error_of(Catalog::at(catalog_.path()).model_of(facts::Job{}, "."));
  EXPECT_EQ(error.code, ErrorCode::missing_value);
  EXPECT_NE(error.hint.find("steelyard list models"), std::string::npos);
}

TEST_F(JobModel, AMisspeltIdSuggests) {
  for (const char* name : {"tiny-8B", "tinny-8b", "some-one/Tiny-8B"}) {
    const Error error = error_of(of(name));
    EXPECT_EQ(error.code, ErrorCode::unknown_name) << name;
    EXPECT_NE(error.hint.find("did you mean tiny-8b"), std::string::npos) << error.hint;
  }
}

TEST_F(JobModel, OtherWeightsAreNotAConfiguration) {
  jobs_.write("model.gguf", "x");
  for (const char* name : {"model.gguf", "missing.pt", "pytorch_model.bin.index.json"}) {
    const Error error = error_of(of(name));
    EXPECT_EQ(error.code, ErrorCode::not_supported) << name;
    EXPECT_NE(error.hint.find("config.json"), std::string::npos);
  }
}

TEST_F(JobModel, MissingFilesAreSaidToBeMissing) {
  for (const char* name : {"missing.onnx", "missing.safetensors"}) {
    EXPECT_EQ(error_of(of(name)).code, ErrorCode::unreadable) << name;
  }
}

// One tensor of four bytes.
const std::string kWeights = std::string("\x38\0\0\0\0\0\0\0", 8) +
                             R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  )" + "wwww";

TEST_F(JobModel, WeightsNeedTheirConfigurationBeside) {
  jobs_.write("model.safetensors", kWeights);
  const Error error = error_of(of("model.safetensors"));
  EXPECT_EQ(error.code, ErrorCode::missing_value) << to_text(error);
  EXPECT_NE(error.found.find("1 tensors, and no config.json"), std::string::npos);
  jobs_.write("config.json",
              R"({"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "vocab_size": 9})");
  const facts::ModelSource source = value_of(of("model.safetensors"));
  EXPECT_NE(source.stored, nullptr);
  EXPECT_EQ(whole(source.config, "n_embd"), 8);
}

TEST_F(JobModel, AnOnnxFileTakesNoOverrides) {
  jobs_.write("model.onnx", std::string("\x08\x08\x3a\x00", 4));
  EXPECT_NE(value_of(of("model.onnx")).onnx, nullptr);
  set_ = facts::Value(facts::Object{{"layers", 3}});
  EXPECT_EQ(error_of(of("model.onnx")).code, ErrorCode::impossible_combination);
}

TEST_F(JobModel, AListIsNoConfiguration) {
  jobs_.write("list.json", "[1, 2]");
  const Error error = error_of(of("list.json"));
  EXPECT_EQ(error.code, ErrorCode::bad_input);
  EXPECT_EQ(error.found, "a list");
  EXPECT_NE(error.file.find("list.json"), std::string::npos);
}

TEST_F(JobModel, TruncatedJsonNamesTheFile) {
  jobs_.write("cut.json", R"({"model_type": "lla)");
  EXPECT_NE(to_text(error_of(of("cut.json"))).find("cut.json"), std::string::npos);
}

TEST_F(JobModel, NamesCannotLeaveTheCatalogue) {
  jobs_.write("secret.json", R"({"config": {}})");
  const std::string escape = "../" + jobs_.path().filename().string() + "/secret";
  EXPECT_FALSE(Catalog::at(catalog_.path()).model(escape).has_value());
}

TEST_F(JobModel, ACatalogueModelWithoutConfigIsDamaged) {
  catalog_.write("models/hollow.json", R"({"source": "x"})");
  const Error error = error_of(of("hollow"));
  EXPECT_EQ(error.code, ErrorCode::bad_input);
  EXPECT_NE(error.file.find("hollow.json"), std::string::npos);
}

TEST_F(JobModel, AConfigurationWithoutItsSizesIsRefused) {
  jobs_.write("cut/config.json", R"({"model_type": "llama", "num_hidden_layers": 3})");
  const Error error = error_of(of("cut/config.json"));
  EXPECT_EQ(error.code, ErrorCode::missing_value);
  EXPECT_NE(error.subject.find("hidden_size"), std::string::npos) << error.subject;
}

}  // namespace
}  // namespace steelyard::catalog
