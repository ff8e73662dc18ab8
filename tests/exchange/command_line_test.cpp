#include "exchange/command_line.h"

#include <gtest/gtest.h>

#include "exchange/yaml.h"

namespace steelyard::exchange {
namespace {

using facts::Value;

Value arguments_of(const std::string& text) {
  const auto parsed = parse_command_line(text, "test");
  EXPECT_TRUE(parsed) << (parsed ? "" : to_text(parsed.error()));
  return parsed.value_or(Value());
}

TEST(CommandLine, BeginsBehindTheScript) {
  const Value found = arguments_of(
      "torchrun --nproc_per_node 8 pretrain_gpt.py \\\n  --num-layers 32 --swiglu "
      "--lr=1.5e-4 # a comment --hidden-size 1\n --split '949,50,1' --modules a b");
  EXPECT_EQ(found.find("nproc_per_node"), nullptr);
  EXPECT_EQ(*found.find("num-layers"), Value(32));
  EXPECT_EQ(*found.find("swiglu"), Value(true));
  EXPECT_EQ(*found.find("lr"), Value(1.5e-4));
  EXPECT_EQ(found.find("hidden-size"), nullptr);
  EXPECT_EQ(*found.find("split"), Value("949,50,1"));
  EXPECT_EQ(*found.find("modules"), Value(facts::Array{Value("a"), Value("b")}));
}

TEST(CommandLine, TheLastOfTwoCounts) {
  EXPECT_EQ(*arguments_of("--seed 1 --seed 2").find("seed"), Value(2));
}

TEST(CommandLine, ReadsNegativeNumbersAsValues) {
  EXPECT_EQ(*arguments_of("--null-tokenizer-pad-id -1").find("null-tokenizer-pad-id"), Value(-1));
}

TEST(CommandLine, ExecutesNothing) {
  for (const char* text : {"--a $B", "--a `b`", "--a \"$B\"", "--a b | c", "--a b > c", "--a 'b"}) {
    EXPECT_FALSE(parse_command_line(text, "test")) << text;
  }
}

TEST(Yaml, ReadsMappingsSequencesAndScalars) {
  const auto parsed = parse_yaml(
      "MODEL_ARGS:\n  --num-layers: 12\n  --bf16: true\n  --lr: .5\n  --name: '12'\n"
      "  --modules: [moe, mlp]\nempty:\n",
      "test");
  ASSERT_TRUE(parsed);
  const Value* arguments = parsed->find("MODEL_ARGS");
  ASSERT_NE(arguments, nullptr);
  EXPECT_EQ(*arguments->find("--num-layers"), Value(12));
  EXPECT_EQ(*arguments->find("--bf16"), Value(true));
  EXPECT_EQ(*arguments->find("--lr"), Value(0.5));
  EXPECT_EQ(*arguments->find("--name"), Value("12"));
  EXPECT_EQ(*arguments->find("--modules"), Value(facts::Array{Value("moe"), Value("mlp")}));
  EXPECT_TRUE(parsed->find("empty")->is_null());
}

TEST(Yaml, SaysWhereItIsWrong) {
  const auto twice = parse_yaml("a: 1\nb: 2\na: 3\n", "two.yaml");
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().file, "two.yaml");
  EXPECT_EQ(twice.error().line, 3);
  EXPECT_FALSE(parse_yaml("a: [1, 2\n", "open.yaml"));
  EXPECT_FALSE(parse_yaml("a: &x 1\nb: *x\n", "alias.yaml"));
  EXPECT_FALSE(parse_yaml(std::string(1000, '['), "deep.yaml"));
}

}  // namespace
}  // namespace steelyard::exchange
