#include "codec/settings.h"

#include <gtest/gtest.h>

#include "codec/codec.h"

namespace steelyard::codec {
namespace {

using facts::Array;
using facts::Object;
using facts::Value;

TEST(SettingValue, ReadsTomlSyntaxAndBareWords) {
  struct {
    const char* text;
    Value expected;
  } const cases[] = {
      {"4", 4},
      {" 4 ", 4},
      {"1_000", 1000},
      {"0.5", 0.5},
      {"5e8", 5e8},
      {"true", true},
      {"\"quoted\"", "quoted"},
      {"'literal'", "literal"},
      {"\"\"", ""},
      {"[1, 2]", Array{1, 2}},
      {"{ every = 2 }", Object{{"every", 2}}},
      {"bf16-mixed", "bf16-mixed"},
      {"1f1b", "1f1b"},
      {"llama-3.1-8b", "llama-3.1-8b"},
      {"./models/config.json", "./models/config.json"},
      {"meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"},
      {"two words", "two words"},
      {"2024-05-01", "2024-05-01"},
      {"a = b", "a = b"},
  };
  for (const auto& c : cases) {
    const auto value = setting_value(c.text);
    ASSERT_TRUE(value) << c.text << ": " << to_text(value.error());
    EXPECT_EQ(*value, c.expected) << c.text;
  }
}

TEST(SettingValue, RefusesBrokenTomlAndSmuggledLines) {
  for (const char* text :
       {"", "  ", "[1, 2", "{ a = ", "\"open", "'open", "1\n[machine]\nnodes = 9"}) {
    const auto value = setting_value(text);
    EXPECT_FALSE(value) << text;
  }
}

Result<Value> applied(const char* job, std::vector<std::string> settings) {
  Value value = *parse(job, Format::toml, "x");
  std::set<std::string, std::less<>> given;
  STEELYARD_CHECK(apply_settings(value, settings, given));
  EXPECT_EQ(given.size(), settings.size());  // the keys of these tests are distinct
  return value;
}

TEST(ApplySettings, CreatesTablesReplacesValuesAndKeepsTheRest) {
  const auto value = applied("name = 'x'\n[train]\nmicro_batch = 1\ncompile = true\n",
                             {"train.micro_batch=8", "machine.nodes=2", "name=y"});
  ASSERT_TRUE(value);
  const Object expected{{"name", "y"},
                        {"train", Object{{"micro_batch", 8}, {"compile", true}}},
                        {"machine", Object{{"nodes", 2}}}};
  EXPECT_EQ(*value, Value(expected));
}

TEST(ApplySettings, TheLastOneWins) {
  const auto value = applied("", {"machine.nodes=2", "machine.gpus=4"});
  ASSERT_TRUE(value);
  Value twice = *value;
  std::set<std::string, std::less<>> given;
  const std::vector<std::string> settings = {"machine.nodes=3", "machine.nodes=5"};
  ASSERT_TRUE(apply_settings(twice, settings, given));
  EXPECT_EQ(*twice.find("machine")->find("nodes"), Value(5));
}

TEST(ApplySettings, OpensTheShortFormsOfOptimizerAndRecompute) {
  const auto value = applied("[train]\noptimizer = 'lion'\nrecompute = 'full'\n",
                             {"train.optimizer.fused=true", "train.recompute.every=2"});
  ASSERT_TRUE(value);
  const Object optimizer{{"name", "lion"}, {"fused", true}};
  EXPECT_EQ(*value->find("train")->find("optimizer"), Value(optimizer));
  EXPECT_EQ(*value->find("train")->find("recompute"), Value(Object{{"every", 2}}));
}

TEST(ApplySettings, RefusesAKeyInsideOfAValue) {
  const auto value = applied("[model]\nconfig = 'gpt2'\n", {"model.config.hidden_size=8"});
  ASSERT_FALSE(value);
  EXPECT_EQ(value.error().subject, "model.config.hidden_size");
  EXPECT_EQ(value.error().file, "--set");
  EXPECT_NE(value.error().hint.find("model.set"), std::string::npos);
}

TEST(ApplySettings, RefusesWhatIsNoKeyAndValue) {
  for (const char* setting : {"", "train.micro_batch", "=4", ".a=1", "a.=1", "a..b=1"}) {
    const auto value = applied("", {setting});
    ASSERT_FALSE(value) << setting;
    EXPECT_EQ(value.error().file, "--set");
  }
}

}  // namespace
}  // namespace steelyard::codec
