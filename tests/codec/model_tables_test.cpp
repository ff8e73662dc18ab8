// [[model]]: one policy, the others by their role, whose complaints keep their lines.
#include <gtest/gtest.h>

#include "codec/codec.h"
#include "codec/temporary_folder.h"

namespace steelyard::codec {
namespace {

Result<facts::Job> job(const std::string& toml) {
  const TemporaryFolder folder;
  return read_job(folder.write("a job.toml", toml), {});
}

constexpr const char* kTwo = R"([[model]]
role = "reference"
offload = "cpu"

[[model]]
config = "gpt2"
role = "policy"
)";

TEST(ModelTables, ThePolicyIsTheModel) {
  const auto read = job(kTwo);
  ASSERT_TRUE(read) << to_text(read.error());
  EXPECT_EQ(std::get<std::string>(read->model.config), "gpt2");
  ASSERT_EQ(read->model.roles.size(), 1U);
  EXPECT_EQ(read->model.roles[0].role, facts::Role::reference);
  EXPECT_EQ(read->model.roles[0].offload, facts::OffloadTo::cpu);
  EXPECT_EQ(read->origins.at("model.config").line, 6);
  EXPECT_EQ(read->origins.at("model.roles[0].offload").line, 3);
}

// What `explain` writes is read again.
TEST(ModelTables, BothSpellingsAreRead) {
  const auto read = job("[model]\nconfig = 'gpt2'\nroles = [{ role = 'critic' }]\n");
  ASSERT_TRUE(read) << to_text(read.error());
  EXPECT_EQ(read->model.roles.at(0).role, facts::Role::critic);
  const auto again = job(explained(*read));
  ASSERT_TRUE(again) << to_text(again.error());
  EXPECT_EQ(again->model.roles.size(), 1U);
}

TEST(ModelTables, OneTableIsEnough) {
  const auto read = job("[[model]]\nconfig = 'gpt2'\n");
  ASSERT_TRUE(read) << to_text(read.error());
  EXPECT_TRUE(read->model.roles.empty());
}

TEST(ModelTables, MistakesNameTheirLine) {
  const auto two = job("[[model]]\nconfig = 'gpt2'\n[[model]]\nconfig = 'gpt2'\n");
  ASSERT_FALSE(two);
  EXPECT_EQ(two.error().found, "a second policy");
  EXPECT_EQ(two.error().line, 3);
  const auto none = job("[[model]]\nrole = 'critic'\n");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().found, "no policy");
  const auto misspelt =
      job("[[model]]\nconfig = 'gpt2'\n[[model]]\nrole = 'reference'\nofload = 1\n");
  ASSERT_FALSE(misspelt);
  EXPECT_EQ(misspelt.error().subject, "model.roles[0].ofload");
  EXPECT_EQ(misspelt.error().line, 5);
}

// Parts of a pipeline stand beside the model, and keep their lines too.
TEST(ModelTables, PartsOfAPipelineAreCompanions) {
  const char* text =
      "[[model]]\nconfig = 'flux.1-dev'\n"
      "[[model]]\nrole = 'text_encoder_2'\nconfig = 't5'\nheld = 'cpu'\nprecision = 'fp32'\n"
      "[[model]]\nrole = 'vae'\nconfig = 'vae'\n";
  const auto read = job(text);
  ASSERT_TRUE(read) << to_text(read.error());
  ASSERT_EQ(read->model.companions.size(), 2U);
  EXPECT_EQ(read->model.companions[0].config, "t5");
  EXPECT_EQ(read->model.companions[0].held, facts::CompanionHeld::cpu);
  EXPECT_EQ(read->model.companions[0].precision, facts::ShortPrecision::fp32);
  EXPECT_EQ(read->model.companions[1].held, facts::CompanionHeld::always);
  EXPECT_TRUE(read->model.roles.empty());
  const auto wrong = job(std::string(text) + "hold = 'cpu'\n");
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().line, 11);
}

}  // namespace
}  // namespace steelyard::codec
