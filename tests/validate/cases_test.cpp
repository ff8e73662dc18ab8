// The cases that the project carries are readable, each with its source, and without their sources'
// sentences.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <vector>

#include "codec/codec.h"

namespace steelyard {
namespace {

std::vector<std::filesystem::path> case_files() {
  std::vector<std::filesystem::path> files;
  const auto folder = std::filesystem::path(STEELYARD_SOURCE_DIR) / "validation" / "cases";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

TEST(Cases, EveryFileIsReadWithEveryCaseAndUniqueIds) {
  const auto files = case_files();
  ASSERT_FALSE(files.empty());
  for (const auto& file : files) {
    SCOPED_TRACE(file.filename().string());
    const auto read = codec::read_cases(file);
    ASSERT_TRUE(read) << to_text(read.error());
    EXPECT_EQ(read->source, file.stem().string());
    EXPECT_FALSE(read->title.empty());
    EXPECT_FALSE(read->cases.empty());
    std::set<std::string> ids;
    for (const facts::Case& one : read->cases) {
      EXPECT_TRUE(ids.insert(one.id).second) << one.id;
      EXPECT_EQ(one.source, read->source) << one.id;
      EXPECT_TRUE(one.confidence == "high" || one.confidence == "medium" || one.confidence == "low")
          << one.id;
    }
  }
}

TEST(Cases, EveryJobIsUnderstood) {
  for (const auto& file : case_files()) {
    const auto read = codec::read_cases(file);
    ASSERT_TRUE(read) << to_text(read.error());
    for (const facts::Case& one : read->cases) {
      const auto job = codec::job_from(one.job, one.id);
      EXPECT_TRUE(job) << to_text(job.error());
    }
  }
}

TEST(Cases, EachNamesItsSourceAndQuotesNothing) {
  for (const auto& file : case_files()) {
    const auto value = codec::read_value(file);
    ASSERT_TRUE(value) << to_text(value.error());
    const facts::Value* cases = value->find("cases");
    ASSERT_TRUE(cases != nullptr && cases->as_array() != nullptr) << file;
    for (const facts::Value& one : *cases->as_array()) {
      const facts::Value* id = one.find("id");
      ASSERT_TRUE(id != nullptr && id->as_text() != nullptr) << file;
      // Recorded cases have one source for all: a script and the machine it ran on.
      const facts::Value* source = one.find("source");
      if (source == nullptr) {
        ASSERT_TRUE(id->as_text()->starts_with("recorded-")) << *id->as_text();
        EXPECT_TRUE(value->find("source")->find("title") != nullptr) << file;
        continue;
      }
      const facts::Value* url = source->find("url");
      EXPECT_TRUE(url != nullptr && url->as_text()->starts_with("https://")) << *id->as_text();
      EXPECT_TRUE(one.find("quote") == nullptr) << *id->as_text();
    }
  }
}

}  // namespace
}  // namespace steelyard
