// `steelyard probe` from the command line to a plan on the machine file that it wrote.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "cli/cli.h"
#include "codec/codec.h"

namespace steelyard::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class ProbeCommand : public testing::Test {
 protected:
  ProbeCommand() : folder_(fs::path(testing::TempDir()) / ("probe." + std::to_string(getpid()))) {
    fs::create_directories(folder_);
    file_ = folder_ / "machine.json";
  }
  ~ProbeCommand() override {
    for (const char* name : {"STEELYARD_NVML", "STEELYARD_CUDA", "FAKE_GPUS", "FAKE_CUDA"}) {
      unsetenv(name);
    }
    fs::remove_all(folder_);
  }
  ProbeCommand(const ProbeCommand&) = delete;
  ProbeCommand& operator=(const ProbeCommand&) = delete;

  ExitStatus ran(const std::vector<std::string>& arguments) {
    out_.str("");
    err_.str("");
    return run(arguments, Terminal{.out = out_, .err = err_, .program = {}});
  }

  fs::path folder_, file_;
  std::ostringstream out_, err_;
};

const std::string kRecorded = std::string(STEELYARD_TESTS_DIR) + "/probe/machines/kvm-2cpu";

TEST_F(ProbeCommand, AMachineFileOfARecordedMachineIsRead) {
  ASSERT_EQ(ran({"probe", "--root", kRecorded, "-o", file_}), ExitStatus::success) << err_.str();
  const auto machine = codec::machine_from(codec::read_value(file_).value(), "machine.json");
  ASSERT_TRUE(machine) << to_text(machine.error());
  EXPECT_EQ(machine->host.cores.value, 2);
  EXPECT_EQ(machine->host.memory.from, facts::Provenance::measured);
  EXPECT_EQ(machine->gpu.vendor, "host");
  ran({"plan", "--model", "gpt2", "--machine", file_, "--set", "train.micro_batch=1"});
  EXPECT_THAT(out_.str(), HasSubstr("host memory 23.5 GiB")) << err_.str();
}

TEST_F(ProbeCommand, MeasuredFiguresOfAGpuReachThePlan) {
  setenv("STEELYARD_NVML", FAKE_NVML, 1);
  setenv("STEELYARD_CUDA", FAKE_CUDA, 1);
  setenv("FAKE_GPUS", "count=2", 1);
  setenv("FAKE_CUDA", "count=2 to=50 from=40", 1);
  ASSERT_EQ(ran({"probe", "--quick", "--only", "gpu", "-o", file_}), ExitStatus::success)
      << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("NVIDIA H100 80GB HBM3"));
  EXPECT_THAT(out_.str(), HasSubstr("host to GPU, pinned"));
  const auto machine = codec::machine_from(codec::read_value(file_).value(), "machine.json");
  ASSERT_TRUE(machine) << to_text(machine.error());
  EXPECT_EQ(machine->gpus, 2);
  EXPECT_EQ(machine->gpu.id, "h100-sxm-80gb") << "the catalogue knows the name";
  EXPECT_TRUE(machine->gpu.memory_bandwidth) << "and what was not measured";
  EXPECT_NEAR(machine->gpu.host_link->value(), 40e9, 1e7);
  ran({"plan", "--model", "gpt2", "--machine", file_, "--set", "train.micro_batch=1"});
  EXPECT_THAT(out_.str(), HasSubstr("host to GPU 40 GB/s")) << err_.str();
}

TEST_F(ProbeCommand, JsonIsWhatTheSchemaSays) {
  ASSERT_EQ(ran({"probe", "--root", kRecorded, "--json"}), ExitStatus::success) << err_.str();
  const auto value = codec::parse(out_.str(), codec::Format::json, "probe");
  ASSERT_TRUE(value);
  EXPECT_EQ(*value->find("schema")->as_text(), "steelyard.probe/1");
  EXPECT_TRUE(value->find("measurements")->is_null()) << "nothing is measured of a recorded one";
  const facts::Value* limits = value->find("topology")->find("limits");
  ASSERT_NE(limits, nullptr);
  EXPECT_EQ(*limits->find("threads")->find("from")->as_text(), "measured");
  ASSERT_EQ(ran({"schema", "probe"}), ExitStatus::success);
  const auto schema = codec::parse(out_.str(), codec::Format::json, "schema");
  for (const auto& [key, member] : *value->find("topology")->as_object()) {
    EXPECT_NE(schema->find("properties")->find("topology")->find("properties")->find(key), nullptr)
        << key;
  }
}

TEST_F(ProbeCommand, AFileThatCannotBeWrittenIsAnError) {
  EXPECT_EQ(ran({"probe", "--root", kRecorded, "-o", folder_ / "none" / "machine.json"}),
            ExitStatus::bad_input);
  EXPECT_THAT(err_.str(), HasSubstr("--output"));
  EXPECT_EQ(out_.str(), "");
}

TEST_F(ProbeCommand, GatheredFilesReadAsTheMachine) {
  const fs::path copy = folder_ / "copy";
  ASSERT_EQ(ran({"probe", "--root", kRecorded, "--gather", copy}), ExitStatus::success);
  ran({"probe", "--root", kRecorded});
  const std::string first = out_.str();
  ran({"probe", "--root", copy});
  EXPECT_EQ(out_.str(), first);
  EXPECT_EQ(ran({"probe", "--root", kRecorded, "--gather", copy}), ExitStatus::bad_input);
}

}  // namespace
}  // namespace steelyard::cli
