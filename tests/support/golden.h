// Output checked against a file that a person has read: tests/<room>/golden/<name>.txt.
//
// STEELYARD_WRITE_GOLDEN=1 writes the files anew; read the difference before committing it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "support/files.h"

namespace steelyard::testing {

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
