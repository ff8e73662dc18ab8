// `steelyard share` beside `steelyard plan`: jobs that touch nothing in common are as alone, figure
// by figure, with the real planner.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "codec/codec.h"

namespace steelyard::cli {
namespace {

namespace fs = std::filesystem;

facts::Value json_of(const std::vector<std::string>& arguments) {
  std::ostringstream out, err;
  const Terminal terminal{.out = out, .err = err, .colour = false, .columns = 100, .program = {}};
  const ExitStatus status = run(arguments, terminal);
  EXPECT_EQ(status, ExitStatus::success) << err.str();
  const auto value = codec::parse(out.str(), codec::Format::json, "output");
  return value ? *value : facts::Value();
}

facts::Value at(const facts::Value& value, const std::vector<std::string>& path) {
  const facts::Value* found = &value;
  for (const std::string& key : path) {
    if (found != nullptr) found = found->find(key);
  }
  return found == nullptr ? facts::Value() : *found;
}

struct Folder {
  fs::path path =
      fs::path(::testing::TempDir()) / ("steelyard_share." + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { fs::remove_all(path); }
  [[nodiscard]] std::string job(const std::string& name, const std::string& text) const {
    const fs::path file = path / (name + ".toml");
    std::ofstream(file) << "name = \"" << name << "\"\nmachine.name = \"dgx-h100\"\n"
                        << "machine.gpus = 2\n"
                        << text;
    return file;
  }
};

TEST(ShareCommand, JobsThatTouchNothingInCommonAreAsTheirOwnPlans) {
  const Folder folder;
  const std::vector<std::string> jobs = {
      folder.job("text",
                 "model.config = \"gpt2\"\ntrain.micro_batch = 4\n"
                 "train.sequence_length = 512\n"),
      folder.job("pictures",
                 "model.config = \"resnet-50\"\ntrain.micro_batch = 64\n"
                 "train.image_size = [224, 224]\ndata.kind = \"jpeg\"\n"
                 "data.samples = 1_000_000\ndata.bytes_per_sample = 110_000\n"
                 "data.workers = 8\n"),
      folder.job("saver",
                 "model.config = \"gpt2\"\ntrain.micro_batch = 2\n"
                 "train.sequence_length = 512\nparallel.sharding = \"fsdp\"\n")};
  std::vector<std::string> arguments = {"share", "dgx-h100", "--json"};
  arguments.insert(arguments.end(), jobs.begin(), jobs.end());
  const facts::Value shared = json_of(arguments);
  const facts::Value placed = at(shared, {"jobs"});
  ASSERT_NE(placed.as_array(), nullptr);
  ASSERT_EQ(placed.as_array()->size(), jobs.size());
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const facts::Value plan = json_of({"plan", jobs[i], "--json"});
    const facts::Value& job = (*placed.as_array())[i];
    const auto text = [](const facts::Value& value) { return codec::to_json(value); };
    EXPECT_EQ(text(at(job, {"step_together"})), text(at(job, {"step_alone"}))) << jobs[i];
    EXPECT_EQ(text(at(job, {"step_alone"})), text(at(plan, {"pace", "step"}))) << jobs[i];
    EXPECT_NE(text(at(job, {"step_alone"})), "null") << jobs[i];
    EXPECT_EQ(text(at(job, {"alone", "ram_peak"})), text(at(plan, {"ram", "peak"}))) << jobs[i];
    EXPECT_EQ(text(at(job, {"parts"})), "[]") << jobs[i];
  }
}

}  // namespace
}  // namespace steelyard::cli
