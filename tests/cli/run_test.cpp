// The command line by value: what each command prints and with which status it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "support/files.h"

namespace steelyard::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

const fs::path kRoot = STEELYARD_SOURCE_DIR;
const std::string kExample = (kRoot / "examples/llama-3.1-8b-fsdp.toml").string();

struct Outcome {
  ExitStatus status = ExitStatus::success;
  std::string out, err;
};

Outcome ran(const std::vector<std::string>& arguments, bool colour = false) {
  std::ostringstream out, err;
  const Terminal terminal{.out = out, .err = err, .colour = colour, .columns = 100, .program = {}};
  const ExitStatus status = run(arguments, terminal);
  return {status, out.str(), err.str()};
}

void expect_bad_input(const std::vector<std::string>& arguments, const std::string& message) {
  const Outcome outcome = ran(arguments);
  EXPECT_EQ(outcome.status, ExitStatus::bad_input);
  EXPECT_THAT(outcome.out, IsEmpty());
  EXPECT_THAT(outcome.err, StartsWith("steelyard: "));
  EXPECT_THAT(outcome.err, HasSubstr(message));
}

TEST(Cli, AloneItSaysHowToStart) {
  const Outcome outcome = ran({});
  EXPECT_EQ(outcome.status, ExitStatus::success);
  EXPECT_THAT(outcome.out, HasSubstr("steelyard plan examples/llama-3.1-8b-fsdp.toml"));
}

TEST(Cli, Version) {
  EXPECT_THAT(ran({"--version"}).out, ::testing::MatchesRegex("steelyard [0-9.]+\n"));
}

TEST(Cli, EveryCommandHasHelpWithExamples) {
  EXPECT_THAT(ran({"--help"}).out, HasSubstr("Examples:"));
  for (const char* command :
       {"plan", "explain", "list", "show", "schema", "validate", "completion"}) {
    const Outcome outcome = ran({command, "--help"});
    EXPECT_EQ(outcome.status, ExitStatus::success) << command;
    EXPECT_THAT(outcome.out, HasSubstr("Examples:\n")) << command;
    EXPECT_THAT(outcome.err, IsEmpty()) << command;
  }
}

TEST(Cli, AMisspeltCommandSuggests) {
  expect_bad_input({"plna", "job.toml"}, "did you mean \"plan\"?");
  expect_bad_input({"frobnicate"}, "accepted: plan, why, compare, limits, search, ratio, share");
  expect_bad_input({kExample}, "to plan that file: steelyard plan " + kExample);
}

TEST(Cli, AMisspeltOptionSuggests) {
  expect_bad_input({"plan", kExample, "--jsn"}, "did you mean \"--json\"?");
  expect_bad_input({"validate", "x", "--sorce=a"}, "did you mean \"--source\"?");
}

TEST(Cli, AMisspeltChoiceSuggests) {
  expect_bad_input({"list", "gpu"}, "did you mean \"gpus\"?");
  expect_bad_input({"schema", "jobs"}, "did you mean \"job\"?");
  expect_bad_input({"completion", "tcsh"}, "accepted: bash, zsh or fish");
  expect_bad_input({"validate", "x", "--only", "vrm"}, "did you mean \"vram\"?");
}

TEST(Cli, MissingAndSurplusArguments) {
  expect_bad_input({"plan"}, "accepted: a job file, or --model with --gpu or --machine");
  expect_bad_input({"list"}, "steelyard list");
  expect_bad_input({"plan", kExample, "b"}, "one argument too many");
  expect_bad_input({"plan", kExample, "--set", "train.micro_batch=1", "train.recompute=full"},
                   "each key takes its own --set: --set train.recompute=full");
  expect_bad_input({"plan", "no/such/job.toml"}, "no/such/job.toml");
  expect_bad_input({"plan", kExample, "--catalog", "/no/such"}, "--catalog");
  expect_bad_input({"plan", kExample, "--set", "train.micro_batchs=2"}, "train.micro_batch");
  expect_bad_input({"plan", kExample, "--gpus", "many"}, "many");
  expect_bad_input({"show", "gpu", "h100-sxm-80g"}, "h100-sxm-80gb");
}

TEST(Cli, PlanSaysWhetherTheJobFits) {
  const Outcome fits = ran({"plan", kExample});
  EXPECT_EQ(fits.status, ExitStatus::success) << fits.err;
  EXPECT_THAT(fits.out, HasSubstr("\nFITS   "));
  const Outcome too_large = ran({"plan", kExample, "--set", "train.micro_batch=64"});
  EXPECT_EQ(too_large.status, ExitStatus::does_not_fit) << too_large.err;
  EXPECT_THAT(too_large.out, HasSubstr("\nDOES NOT FIT   "));
}

TEST(Cli, PlanInAsciiAndColour) {
  for (const char c : ran({"plan", kExample, "--ascii"}).out) {
    EXPECT_TRUE(c == '\n' || (c >= ' ' && c <= '~'));
  }
  EXPECT_THAT(ran({"plan", kExample}, true).out, HasSubstr("\x1b["));
  EXPECT_THAT(ran({"plan", kExample, "--no-colour"}, true).out, Not(HasSubstr("\x1b[")));
  EXPECT_THAT(ran({"plan", kExample, "--json"}, true).out, Not(HasSubstr("\x1b[")));
}

TEST(Cli, PlanWithoutAJobFile) {
  const std::string config = (kRoot / "examples/own-model/config.json").string();
  const Outcome outcome = ran({"plan", "--model", config, "--gpu", "h100-sxm-80gb"});
  EXPECT_THAT(outcome.err, IsEmpty());
  EXPECT_THAT(outcome.out, HasSubstr("349 M parameters"));
}

TEST(Cli, ShortcutsOverrideTheJobFile) {
  const Outcome outcome = ran({"plan", kExample, "--model", "llama-3.2-1b", "--gpus", "2"});
  EXPECT_THAT(outcome.err, IsEmpty());
  EXPECT_THAT(outcome.out, HasSubstr("1.24 B parameters"));
  EXPECT_THAT(outcome.out, HasSubstr("with 2 "));
}

TEST(Cli, AnAbsurdAmountIsBadInputAndNoCrash) {
  expect_bad_input({"plan", kExample, "--set", "train.micro_batch=999999999999999999"}, "");
  expect_bad_input({"plan", kExample, "--set", "model.set.hidden_size=4611686018427387904"}, "");
}

TEST(Cli, ExplainShowsWhereValuesComeFrom) {
  const Outcome outcome = ran({"explain", kExample});
  EXPECT_EQ(outcome.status, ExitStatus::success) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("# job"));
  EXPECT_THAT(outcome.out, HasSubstr("# default"));
}

TEST(Cli, ListAndShow) {
  EXPECT_THAT(ran({"list", "gpus", "--match", "H100"}).out, HasSubstr("h100-sxm-80gb"));
  EXPECT_THAT(ran({"list", "models"}).out, HasSubstr("llama-3.1-8b"));
  EXPECT_THAT(ran({"list", "machines", "--json"}).out, HasSubstr("\"id\": \"dgx-h100\""));
  EXPECT_THAT(ran({"list", "datasets", "--match", "nothing like it"}).out,
              HasSubstr("No datasets"));
  EXPECT_THAT(ran({"show", "model", "llama-3.1-8b"}).out, HasSubstr("8,030,261,248"));
  EXPECT_THAT(ran({"show", "gpu", "h100-sxm-80gb"}).out, HasSubstr("memory bandwidth"));
  EXPECT_THAT(ran({"show", "machine", "dgx-h100"}).out, HasSubstr("host memory"));
  EXPECT_THAT(ran({"show", "gpu", "h100-sxm-80gb", "--json"}).out, StartsWith("{"));
}

TEST(Cli, SchemasAreJson) {
  for (const char* what : {"job", "plan", "machine", "cases"}) {
    EXPECT_THAT(ran({"schema", what}).out, HasSubstr("\"$schema\"")) << what;
  }
}

TEST(Cli, ValidateAFolder) {
  const Outcome outcome = ran({"validate", (kRoot / "tests/cli/measured").string()});
  EXPECT_EQ(outcome.status, ExitStatus::success) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("made_up"));
  EXPECT_THAT(outcome.out, HasSubstr("Not planned"));
  EXPECT_THAT(ran({"validate", (kRoot / "tests/cli/measured").string(), "--json"}).out,
              HasSubstr("\"schema\": \"steelyard.validation/1\""));
  expect_bad_input({"validate", kRoot / "src"}, "no *.json file in it");
}

}  // namespace
}  // namespace steelyard::cli
