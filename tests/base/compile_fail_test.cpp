// What must not compile: each statement of compile_fail/*.txt is put into a function and given to
// the compiler of this build. A statement that compiles is a hole in the types; one control per
// file, marked "compiles:", shows that the statements fail for their own sake.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Statement {
  std::string text;
  bool compiles = false;
};

std::vector<Statement> statements_in(const fs::path& file) {
  constexpr std::string_view kControl = "compiles: ";
  std::vector<Statement> statements;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line.starts_with("#")) continue;
    const bool control = line.starts_with(kControl);
    statements.push_back({control ? line.substr(kControl.size()) : line, control});
  }
  return statements;
}

class Scratch {
 public:
  Scratch() {
    std::string name = fs::temp_directory_path() / "steelyard_compile_fail_XXXXXX";
    if (mkdtemp(name.data()) != nullptr) folder_ = name;
  }
  ~Scratch() { fs::remove_all(folder_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  [[nodiscard]] bool compiles(const std::string& statement) const {
    const fs::path source = folder_ / "statement.cpp";
    std::ofstream(source)
        << "#include \"base/quantity.h\"\n"
           "using namespace steelyard;\n"
           "using namespace steelyard::literals;\n"
           "void take(Bytes);\n"
           "void statement() { [[maybe_unused]] Bytes b; [[maybe_unused]] Seconds s; "
        << statement << " }\n";
    const std::string command = std::string(STEELYARD_COMPILER) + " -std=c++23 -fsyntax-only -I '" +
                                STEELYARD_SOURCE_DIR + "/src' '" + source.string() +
                                "' >/dev/null 2>&1";
    const int status = std::system(command.c_str());
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

 private:
  fs::path folder_;
};

TEST(CompileFail, UnitsDoNotMix) {
  const Scratch scratch;
  const fs::path folder = fs::path(STEELYARD_TESTS_DIR) / "base/compile_fail";
  std::size_t controls = 0;
  for (const Statement& statement : statements_in(folder / "quantity.txt")) {
    EXPECT_EQ(scratch.compiles(statement.text), statement.compiles) << statement.text;
    controls += statement.compiles ? 1 : 0;
  }
  EXPECT_GE(controls, 1U);
}

}  // namespace
