// validation/record_vram.py as far as a machine without a GPU goes: its list of jobs, the job files
// it writes (each must be plannable), the cases it writes, and what it says where no GPU is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "support/process.h"

namespace steelyard {
namespace {

using ::testing::HasSubstr;
using testing::Outcome;
using testing::run_shell;

const std::string kProgram = std::string("'") + STEELYARD_PROGRAM + "'";
const std::string kPython = std::string("'") + STEELYARD_PYTHON + "' -B ";
const std::string kFolder = std::string(STEELYARD_SOURCE_DIR) + "/validation";
const std::string kRecorder = kPython + "'" + kFolder + "/record_vram.py' ";

class Recorder : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  const std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("steelyard-record-" + std::to_string(getpid()));
};

TEST_F(Recorder, ListsAtLeastFortyJobs) {
  const Outcome listed = run_shell(kRecorder + "--list");
  EXPECT_EQ(listed.status, 0);
  EXPECT_GE(std::count(listed.out.begin(), listed.out.end(), '\n'), 40);
}

TEST_F(Recorder, SaysThatThereIsNoGpu) {
  const Outcome outcome =
      run_shell("CUDA_VISIBLE_DEVICES= " + kRecorder + "--out '" + folder_.string() + "' 2>&1");
  EXPECT_EQ(outcome.status, 4);
  EXPECT_THAT(outcome.out, HasSubstr("no GPU"));
}

// Amendments that match no case, or that the cases in the folder do not carry, are told.
TEST(ImportCases, TheCasesCarryEveryAmendment) {
  const Outcome checked = run_shell(kPython + "'" + kFolder + "/import_cases.py' --check 2>&1");
  EXPECT_EQ(checked.status, 0) << checked.out;
  EXPECT_EQ(checked.out, "");
}

// `full`: as on a GPU; `tiny`: as on a CPU.
TEST_F(Recorder, EveryJobFileCanBePlanned) {
  for (const std::string size : {"", "--tiny"}) {
    const std::string out = folder_.string() + "/" + (size.empty() ? "full" : "tiny");
    ASSERT_EQ(run_shell(kRecorder + size + " --jobs-only --out '" + out + "'").status, 0);
    int planned = 0;
    for (const auto& file : std::filesystem::directory_iterator(out + "/jobs")) {
      const Outcome plan =
          run_shell(kProgram + " plan '" + file.path().string() + "' --json 2>&1 >/dev/null");
      EXPECT_TRUE(plan.status == 0 || plan.status == 3) << file.path() << "\n" << plan.out;
      ++planned;
    }
    EXPECT_GE(planned, 40);
  }
}

// Counters of a run in its three phases, as cases: `validate` plans the job and compares. The peak
// of device-used memory is the largest that any phase showed.
TEST_F(Recorder, WritesCasesThatValidateReads) {
  const std::string cases = folder_.string() + "/cases.json";
  const std::string lines =
      "import sys, json; sys.path.insert(0, '" + kFolder +
      "'); import record_vram as r\n"
      "jobs, gpus = r.read_jobs('" +
      kFolder +
      "/record_jobs.toml', False)\n"
      "job = dict(jobs['llama-bf16-mixed'], machine=r.machine_of('fake', gpus))\n"
      "row = lambda step, phase, n: {'step': step, 'phase': phase, 'allocated': n,"
      " 'allocated_peak': n + 2**30, 'reserved': n + 2**31, 'reserved_peak': n + 2**31,"
      " 'device_used': n + 2**32}\n"
      "phases = [row(-1, 'setup', 2**30), row(0, 'backward', 5 * 2**30), row(0, 'zero_grad', "
      "2**31)]\n"
      "case = r.case_of('llama-bf16-mixed', job, phases, 'cuda')\n"
      "assert case['measured']['vram_peak_allocated'] == 6 * 2**30\n"
      "assert case['measured']['vram_steady_allocated'] == 2**31\n"
      "assert case['measured']['vram_peak_device_used'] == 9 * 2**30\n"
      "file = {'schema': 'steelyard.cases/1', 'source': {'title': 't', 'where': 'w', 'url': ''},"
      " 'cases': [case]}\n"
      "json.dump(file, open('" +
      cases + "', 'w'))\n";
  ASSERT_EQ(run_shell(kPython + "-c \"" + lines + "\"").status, 0);
  const Outcome compared = run_shell(kProgram + " validate '" + cases + "' --only vram --json");
  EXPECT_EQ(compared.status, 0);
  EXPECT_THAT(compared.out, HasSubstr("recorded/llama-bf16-mixed"));
  for (const char* quantity : {"vram_peak_allocated", "vram_peak_reserved", "vram_peak_device_used",
                               "vram_steady_allocated"}) {
    EXPECT_THAT(compared.out, HasSubstr(quantity));
  }
}

}  // namespace
}  // namespace steelyard
