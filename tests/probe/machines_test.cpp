// Machines of all kinds, as their kernels show them (make_machines.py; machines/kvm-2cpu was saved
// by `steelyard probe --gather`), against readings that were written by hand
// (machines/expected.json).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "codec/codec.h"
#include "machine_readings.h"
#include "probe/gather.h"
#include "probe/hwloc_view.h"
#include "probe/topology.h"
#include "sense/environment.h"

namespace steelyard::probe {
namespace {

const std::filesystem::path kHere = std::filesystem::path(STEELYARD_TESTS_DIR) / "probe";

const facts::Object& expected_machines() {
  static const facts::Value kAll = codec::read_value(kHere / "machines/expected.json").value();
  return *kAll.as_object();
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& [name, readings] : expected_machines()) all.push_back(name);
  return all;
}

// Thousands of small files are slow on some disks: in memory where there is room for them.
std::filesystem::path quick_folder() {
  constexpr std::uintmax_t kRoom = std::uintmax_t{256} << 20;
  std::error_code failed;
  const auto space = std::filesystem::space("/dev/shm", failed);
  const bool roomy = !failed && space.available >= kRoom && access("/dev/shm", W_OK) == 0;
  return roomy ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path();
}

class MachinesTest : public testing::TestWithParam<std::string> {
 protected:
  MachinesTest() : folder_(quick_folder() / fmt::format("machine.{}.{}", GetParam(), getpid())) {
    std::filesystem::create_directories(folder_);
    const std::filesystem::path recorded = kHere / "machines" / GetParam();
    made_ = std::filesystem::is_directory(recorded);
    if (made_) {
      std::filesystem::copy(
          recorded, folder_,
          std::filesystem::copy_options::recursive | std::filesystem::copy_options::copy_symlinks);
      return;
    }
    const std::string command = fmt::format("{} {}/make_machines.py {} {}", STEELYARD_PYTHON,
                                            kHere.string(), GetParam(), folder_.string());
    made_ = std::system(command.c_str()) == 0;
  }
  ~MachinesTest() override { std::filesystem::remove_all(folder_); }
  MachinesTest(const MachinesTest&) = delete;
  MachinesTest& operator=(const MachinesTest&) = delete;

  [[nodiscard]] facts::Topology read(const std::filesystem::path& root) const {
    const sense::Tree tree(root);
    facts::Topology found = topology(tree, sense::environment_of(tree));
    warn(found);
    return found;
  }

  std::filesystem::path folder_;
  bool made_ = false;
};

void check_warnings(const facts::Value& wanted, const std::vector<std::string>& warnings) {
  ASSERT_EQ(warnings.size(), wanted.as_array()->size()) << testing::PrintToString(warnings);
  for (std::size_t i = 0; i < warnings.size(); ++i) {
    EXPECT_THAT(warnings[i], testing::HasSubstr(*(*wanted.as_array())[i].as_text()));
  }
}

void check_readings(const facts::Value& wanted, const facts::Topology& found) {
  Readings readings = readings_of(found);
  for (const auto& [key, value] : *wanted.as_object()) {
    if (key == "warnings") {
      check_warnings(value, found.warnings);
    } else {
      EXPECT_EQ(codec::to_json(readings[key], -1), codec::to_json(value, -1)) << key;
    }
  }
}

// The trees have thousands of files: each is written once and looked at in every way.
TEST_P(MachinesTest, ReadsAsAPersonWouldReadIt) {
  ASSERT_TRUE(made_);
  const facts::Topology found = read(folder_);
  for (const auto& [name, machine] : expected_machines()) {
    if (name == GetParam()) check_readings(machine, found);
  }
  if (GetParam() == "broken") return;  // hwloc invents a processor there
  const auto view = hwloc_view(folder_.string());
  ASSERT_TRUE(view);
  EXPECT_THAT(differences(*view, found), testing::IsEmpty());
}

// What is gathered from a tree reads as the tree does. The small machines have all kinds of files.
class GatherTest : public MachinesTest {};

TEST_P(GatherTest, GatheredAgainItReadsTheSame) {
  ASSERT_TRUE(made_);
  const std::filesystem::path copy = folder_ / "gathered";
  const auto gathered = gather(sense::Tree(folder_), copy);
  ASSERT_TRUE(gathered) << to_text(gathered.error());
  EXPECT_GT(gathered->files, 0);
  const facts::Topology first = read(folder_), second = read(copy);
  EXPECT_EQ(readings_of(first), readings_of(second));
  EXPECT_EQ(first.warnings, second.warnings);
  EXPECT_EQ(first.mounts.size(), second.mounts.size());
  EXPECT_FALSE(gather(sense::Tree(folder_), copy)) << "it is not empty any more";
}

std::string name_of_case(const testing::TestParamInfo<std::string>& machine) {
  std::string name = machine.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, MachinesTest, testing::ValuesIn(names()), name_of_case);
INSTANTIATE_TEST_SUITE_P(Small, GatherTest,
                         testing::Values("workstation-no-gpu", "docker-v1", "aws-t4", "kvm-2cpu",
                                         "broken"),
                         name_of_case);

}  // namespace
}  // namespace steelyard::probe
