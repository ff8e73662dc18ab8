// The program as a process: its exit status, and what it does with a terminal, a pipe and a full
// disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "support/process.h"

namespace steelyard {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::Outcome;
using testing::run_shell;

const std::string kProgram = std::string("'") + STEELYARD_PROGRAM + "'";
const std::string kPlan =
    kProgram + " plan '" + STEELYARD_SOURCE_DIR + "/examples/llama-3.1-8b-fsdp.toml'";

// The same line with a terminal for standard output.
Outcome run_on_terminal(const std::string& environment, const std::string& line) {
  const std::string python =
      "import pty,sys; s=pty.spawn([\"sh\",\"-c\",sys.argv[1]]); sys.exit(s>>8)";
  std::string quoted;
  for (const char c : line) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return run_shell("env -u NO_COLOR TERM=xterm " + environment + " '" + STEELYARD_PYTHON +
                   "' -c '" + python + "' '" + quoted + "' </dev/null");
}

TEST(Process, ColoursOnlyOnATerminalThatWantsThem) {
  EXPECT_THAT(run_on_terminal("", kPlan).out, HasSubstr("\x1b["));
  EXPECT_THAT(run_on_terminal("NO_COLOR=1", kPlan).out, Not(HasSubstr("\x1b[")));
  EXPECT_THAT(run_on_terminal("NO_COLOR=1", kPlan).out, HasSubstr("FITS"));
  EXPECT_THAT(run_on_terminal("NO_COLOR=", kPlan).out, HasSubstr("\x1b["));
  EXPECT_THAT(run_on_terminal("TERM=dumb", kPlan).out, Not(HasSubstr("\x1b[")));
  EXPECT_THAT(run_shell(kPlan).out, Not(HasSubstr("\x1b[")));
}

TEST(Process, ExitStatusIsTheContract) {
  EXPECT_EQ(run_shell(kPlan).status, 0);
  const Outcome too_large = run_shell(kPlan + " --set train.micro_batch=64");
  EXPECT_EQ(too_large.status, 3);
  EXPECT_THAT(too_large.out, HasSubstr("DOES NOT FIT"));
  const Outcome wrong = run_shell(kPlan + " --set train.micro_batch=x 2>/dev/null");
  EXPECT_EQ(wrong.status, 2);
  EXPECT_THAT(wrong.out, IsEmpty());
}

TEST(Process, OutputThatCannotBeWrittenIsAnError) {
  const Outcome full = run_shell(kPlan + " 2>&1 >/dev/full");
  EXPECT_EQ(full.status, 1);
  EXPECT_THAT(full.out, HasSubstr("standard output could not be written"));
}

}  // namespace
}  // namespace steelyard
