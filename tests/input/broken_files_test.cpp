// Broken input of every kind is refused with a message that names what is wrong; nothing crashes
// (this test also runs under the sanitizers).
#include "input/broken_files.h"

#include <gtest/gtest.h>

#include "catalog/catalog.h"
#include "codec/codec.h"
#include "codec/temporary_folder.h"
#include "input/run_program.h"
#include "model/model.h"

namespace steelyard {
namespace {

using facts::Object;
using facts::Value;

Result<void> read_a_job(const std::filesystem::path& file) {
  STEELYARD_CHECK(codec::read_job(file));
  return {};
}

Result<void> read_a_machine(const std::filesystem::path& file) {
  STEELYARD_TRY(value, codec::read_value(file));
  STEELYARD_CHECK(codec::machine_from(value, file.string()));
  return {};
}

Result<void> read_some_cases(const std::filesystem::path& file) {
  STEELYARD_CHECK(codec::read_cases(file));
  return {};
}

// A model's own configuration is read by the catalogue and understood by the model room.
Result<void> read_a_model(const std::filesystem::path& file) {
  const Value job(Object{{"model", Object{{"config", file.string()}}}});
  STEELYARD_TRY(read, codec::job_from(job, "job"));
  STEELYARD_TRY(catalog, catalog::Catalog::open());
  STEELYARD_TRY(source, catalog.model_of(read, file.parent_path()));
  STEELYARD_CHECK(model::build(source, {}));
  return {};
}

using Read = Result<void> (*)(const std::filesystem::path&);
struct Kind {
  const char* folder;
  Read read;
  const char* extension;
};
constexpr Kind kKinds[] = {{"job_toml", read_a_job, ".toml"},
                           {"job_json", read_a_job, ".json"},
                           {"model_config", read_a_model, ".json"},
                           {"machine_file", read_a_machine, ".json"},
                           {"cases_file", read_some_cases, ".json"}};

class BrokenFiles : public ::testing::TestWithParam<Kind> {};

TEST_P(BrokenFiles, AreRefusedWithTheExpectedMessage) {
  const auto files = testing::broken_files(GetParam().folder);
  EXPECT_GE(files.size(), 10U) << "the folder is not where this test looks";
  for (const auto& file : files) {
    EXPECT_FALSE(file.expected.empty()) << file.path << " has no .expect beside it";
    const auto read = GetParam().read(file.path);
    if (read) {
      ADD_FAILURE() << file.path << " was accepted";
      continue;
    }
    EXPECT_NE(to_text(read.error()).find(file.expected), std::string::npos)
        << file.path << "\nsays:     " << to_text(read.error()) << "\nexpected: " << file.expected;
    EXPECT_NE(read.error().code, ErrorCode::internal) << to_text(read.error());
    EXPECT_NE(read.error().code, ErrorCode::not_supported) << to_text(read.error());
    EXPECT_FALSE(read.error().subject.empty());
  }
}

// What no file in the repository can be: made here.
TEST_P(BrokenFiles, DirectoriesHugeAndEmptyFilesAreRefused) {
  const TemporaryFolder folder;
  const auto named = [&](const char* stem) {
    return folder.path() / (std::string(stem) + GetParam().extension);
  };
  const auto refused = [&](const std::filesystem::path& file) {
    const auto read = GetParam().read(file);
    EXPECT_FALSE(read) << file;
    return read ? std::string() : to_text(read.error());
  };
  const auto says = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  folder.write("empty" + std::string(GetParam().extension), "");
  says(refused(named("empty")), "an empty file");

  folder.write("huge" + std::string(GetParam().extension), "x");
  std::filesystem::resize_file(named("huge"), std::uintmax_t{1} << 30);
  says(refused(named("huge")), "found 1073741824 bytes; accepted: at most 67108864 bytes");

  std::filesystem::create_directory(named("directory"));
  says(refused(named("directory")), "directory");

  says(refused(named("missing")), "missing");
}

// Cut anywhere, a good file is read or refused, never a crash. A cut TOML file may well be whole.
TEST_P(BrokenFiles, CutAnywhereNothingCrashes) {
  const TemporaryFolder folder;
  const auto file = folder.path() / (std::string("cut") + GetParam().extension);
  for (const auto& broken : testing::broken_files(GetParam().folder)) {
    const std::string text = testing::whole_file(broken.path);
    for (std::size_t length = 1; length < text.size(); length += 1 + text.size() / 16) {
      std::ofstream(file, std::ios::binary | std::ios::trunc) << text.substr(0, length);
      const auto read = GetParam().read(file);
      if (!read) {
        EXPECT_NE(read.error().code, ErrorCode::internal) << to_text(read.error());
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, BrokenFiles, ::testing::ValuesIn(kKinds),
                         [](const auto& kind) { return std::string(kind.param.folder); });

}  // namespace
}  // namespace steelyard
