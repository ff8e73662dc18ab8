// Where the catalogue is found, and what a damaged one says.
#include "catalog/catalog.h"

#include <cstdlib>
#include <string>

#include "catalog_fixture.h"

namespace steelyard::catalog {
namespace {

// Sets STEELYARD_CATALOG and restores it.
class Variable {
 public:
  explicit Variable(const char* value) {
    if (const char* before = std::getenv("STEELYARD_CATALOG")) before_ = before;
    if (value == nullptr) {
      unsetenv("STEELYARD_CATALOG");
    } else {
      setenv("STEELYARD_CATALOG", value, 1);
    }
  }
  ~Variable() {
    if (before_.empty()) {
      unsetenv("STEELYARD_CATALOG");
    } else {
      setenv("STEELYARD_CATALOG", before_.c_str(), 1);
    }
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  std::string before_;
};

TEST(Catalog, TheVariableComesFirst) {
  const TemporaryFolder folder;
  folder.write("gpus.json", R"({"gpus": []})");
  const Variable variable(folder.path().c_str());
  const auto opened = Catalog::open();
  ASSERT_TRUE(opened.has_value());
  EXPECT_EQ(opened->folder(), folder.path());
}

TEST(Catalog, AVariableThatLeadsNowhereIsAnError) {
  const Variable variable("/nowhere/at/all");
  const Error error = error_of(Catalog::open());
  EXPECT_EQ(error.code, ErrorCode::unreadable);
  EXPECT_EQ(error.subject, "STEELYARD_CATALOG");
  EXPECT_NE(error.found.find("/nowhere/at/all"), std::string::npos);
}

TEST(Catalog, AnInstalledProgramFindsItsShare) {
  const Variable variable(nullptr);
  const TemporaryFolder folder;
  folder.write("bin/steelyard", "");
  folder.write("share/steelyard/catalog/gpus.json", R"({"gpus": []})");
  const auto opened = Catalog::open(folder.path() / "bin" / "steelyard");
  ASSERT_TRUE(opened.has_value());
  EXPECT_TRUE(std::filesystem::equivalent(opened->folder(),
                                          folder.path() / "share" / "steelyard" / "catalog"));
}

TEST(Catalog, AProgramThatIsNotInstalledUsesTheBuildsCatalogue) {
  const Variable variable(nullptr);
  const auto opened = Catalog::open("steelyard");
  ASSERT_TRUE(opened.has_value());
  EXPECT_EQ(opened->folder(), own_folder());
}

// What looking up the T4 in such a gpus.json says.
std::string complaint_about(const std::string& gpus) {
  const TemporaryFolder folder;
  folder.write("gpus.json", gpus);
  return to_text(error_of(Catalog::at(folder.path()).gpu("t4")));
}

TEST(Catalog, ABrokenFileIsNamed) {
  for (const char* content : {"", "{", "[]", R"({"gpus": 7})", R"({"machines": []})", "\xff\xfe"}) {
    EXPECT_NE(complaint_about(content).find("gpus.json"), std::string::npos) << content;
  }
}

TEST(Catalog, ABrokenEntryIsNamedWithItsKey) {
  const std::string missing = complaint_about(R"({"gpus": [{"id": "t4"}]})");
  EXPECT_NE(missing.find("t4: name"), std::string::npos) << missing;
  EXPECT_NE(missing.find("gpus.json"), std::string::npos) << missing;
  const std::string wrong = complaint_about(R"({"gpus": [{"id": "t4", "name": 5}]})");
  EXPECT_NE(wrong.find("t4: name"), std::string::npos) << wrong;
}

TEST(Catalog, EntriesThatAreNoObjectsDoNotCrash) {
  EXPECT_NE(complaint_about(R"({"gpus": [1, null, "x", [], {"id": 3}]})").find("t4"),
            std::string::npos);
}

TEST(Catalog, AMachineWhoseGpuIsNotListedIsDamaged) {
  const TemporaryFolder folder;
  folder.write("gpus.json", R"({"gpus": []})");
  folder.write("machines.json", R"({"machines": [{"id": "m", "gpu": {"id": "gone"}}]})");
  const Error error = error_of(Catalog::at(folder.path()).machine("m"));
  EXPECT_EQ(error.subject, "m: gpu.id");
  EXPECT_EQ(error.found, "gone");
  EXPECT_NE(error.file.find("machines.json"), std::string::npos);
}

TEST(Catalog, NegativeAndHugeFiguresAreRefused) {
  const TemporaryFolder folder;
  folder.copy_own_catalog();
  std::string entry = R"({"gpus": [{"id": "t4", "name": "T4", "vendor": "nvidia",
    "architecture": "turing", "compute_capability": 7.5, "cuda_visible_mib": null,
    "memory_mib_reported": MEMORY, "memory_usable_gib": null, "memory_gb": 16}]})";
  for (const char* memory : {"-5", "1e300", "\"16 GB\""}) {
    std::string content = entry;
    content.replace(content.find("MEMORY"), 6, memory);
    folder.write("gpus.json", content);
    const Error error = error_of(Catalog::at(folder.path()).gpu("t4"));
    EXPECT_EQ(error.subject, "t4: memory_mib_reported") << memory;
  }
}

}  // namespace
}  // namespace steelyard::catalog
