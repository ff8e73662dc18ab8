// Output checked against a file that a person has read: tests/<room>/golden/<name>.txt.
//
// STEELYARD_WRITE_GOLDEN=1 writes the files anew; read the difference before committing it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace steelyard::testing {

inline std::string file_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void expect_golden(const std::string& text, const std::string& name) {
  const std::string path = std::string(STEELYARD_TESTS_DIR) + "/" + name + ".txt";
  if (std::getenv("STEELYARD_WRITE_GOLDEN") != nullptr) {
    std::ofstream(path, std::ios::binary) << text;
  }
  const std::string expected = file_text(path);
  ASSERT_FALSE(expected.empty()) << "missing or empty: " << name << ".txt";
  EXPECT_EQ(text, expected) << "differs from tests/" << name << ".txt";
}

}  // namespace steelyard::testing
