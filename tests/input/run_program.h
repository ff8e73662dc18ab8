// Runs the steelyard program as a person would: arguments in, status, output and messages out.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "codec/temporary_folder.h"

namespace steelyard::testing {

struct Ran {
  int status = -1;  // 128 + signal when a signal ended it
  std::string output;
  std::string messages;
};

inline std::string shell_quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

inline std::string whole_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

inline Ran run_steelyard(const std::vector<std::string>& arguments) {
  const TemporaryFolder folder;
  std::string command = shell_quoted(STEELYARD_PROGRAM);
  for (const auto& argument : arguments) command += " " + shell_quoted(argument);
  command += " >" + shell_quoted((folder.path() / "out").string()) + " 2>" +
             shell_quoted((folder.path() / "err").string()) + " </dev/null";
  const int status = std::system(command.c_str());
  Ran ran;
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  ran.output = whole_file(folder.path() / "out");
  ran.messages = whole_file(folder.path() / "err");
  return ran;
}

}  // namespace steelyard::testing
