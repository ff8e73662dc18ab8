// catalog/confidence/measured.tsv belongs to the cases of validation/cases.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <set>
#include <string>

#include "catalog/catalog.h"
#include "codec/codec.h"
#include "codec/evidence.h"

namespace steelyard::catalog {
namespace {

const std::filesystem::path kRoot = STEELYARD_SOURCE_DIR;

std::set<std::string> measured_cases() {
  std::set<std::string> ids;
  for (const auto& entry : std::filesystem::directory_iterator(kRoot / "validation" / "cases")) {
    const auto file = codec::read_cases(entry.path());
    EXPECT_TRUE(file.has_value()) << entry.path();
    if (!file) continue;
    for (const facts::Case& one : file->cases) {
      const facts::Measured& m = one.measured;
      const bool memory = m.vram_peak_allocated || m.vram_peak_reserved ||
                          m.vram_peak_device_used || m.vram_steady_allocated || m.ram_peak;
      const bool pace = m.step_seconds || m.tokens_per_second_per_gpu || m.samples_per_second;
      if (memory || pace) ids.insert(one.id);
    }
  }
  return ids;
}

// Rows of cases that no longer exist, or many cases without a row: the file is stale. Write it anew
// with `steelyard validate validation/cases --evidence catalog/confidence/measured.tsv`.
TEST(Evidence, IsOfTheCasesThatThereAre) {
  const auto evidence = Catalog::at(kRoot / "catalog").evidence();
  ASSERT_TRUE(evidence.has_value()) << to_text(evidence.error());
  ASSERT_FALSE((*evidence)->empty());
  std::set<std::string> all, known;
  for (const auto& entry : std::filesystem::directory_iterator(kRoot / "validation" / "cases")) {
    const auto file = codec::read_cases(entry.path());
    ASSERT_TRUE(file.has_value());
    for (const facts::Case& one : file->cases) all.insert(one.id);
  }
  for (const facts::Evidence& row : **evidence) {
    EXPECT_TRUE(all.contains(row.id)) << row.id;
    EXPECT_FALSE(row.of.family.empty()) << row.id;
    EXPECT_FALSE(row.of.framework.empty()) << row.id;
    EXPECT_TRUE(std::isfinite(row.error.value())) << row.id;
    known.insert(row.id);
  }
  const std::set<std::string> measured = measured_cases();
  std::size_t missing = 0;
  for (const std::string& id : measured) missing += known.contains(id) ? 0 : 1;
  EXPECT_LE(missing * 20, measured.size()) << missing << " of " << measured.size();
}

TEST(Evidence, IsReadAsItIsWritten) {
  facts::Evidence row;
  row.id = "a case";
  row.group = facts::QuantityGroup::ram;
  row.of = {"llama", "hopper", "megatron", "full", "bf16", "zero1", "none", 8, 4, 1, 2, 64, 7e9};
  row.error = Ratio(-0.12345);
  const std::string text = codec::evidence_text(std::vector{row, row}, "a \"command\"");
  const auto rows = codec::evidence_from(text, "text");
  ASSERT_TRUE(rows.has_value()) << to_text(rows.error());
  ASSERT_EQ(rows->size(), 2U);
  const facts::Evidence& read = rows->front();
  EXPECT_EQ(read.id, row.id);
  EXPECT_EQ(read.group, row.group);
  EXPECT_EQ(read.of.sharding, "zero1");
  EXPECT_EQ(read.of.tensor, 8);
  EXPECT_EQ(read.of.gpus, 64);
  EXPECT_EQ(read.of.parameters, 7e9);
  EXPECT_NEAR(read.error.value(), -0.1235, 1e-9);
}

TEST(Evidence, RowsThatAreNoneAreRefused) {
  const std::string head = "# steelyard.evidence/1 made by hand\ncase\tgroup\n";
  EXPECT_TRUE(codec::evidence_from(head, "text").has_value());
  for (const std::string& text :
       {std::string(), std::string("# another/1\n"), head + "a\tpace\n", head + "\n",
        head + "a\tpace\tllama\thopper\tx\tfull\tbf16\tnone\tnone\t1\t1\t1\t1\t8\t7e9\tnan\n",
        head + "a\tpace\tllama\thopper\tx\tfull\tbf16\tnone\tnone\t0\t1\t1\t1\t8\t7e9\t0.1\n",
        head + "a\tspeed\tllama\thopper\tx\tfull\tbf16\tnone\tnone\t1\t1\t1\t1\t8\t7e9\t0.1\n"}) {
    EXPECT_FALSE(codec::evidence_from(text, "text").has_value()) << text;
  }
}

}  // namespace
}  // namespace steelyard::catalog
