#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <string_view>

#include "cli/cli.h"

namespace steelyard::cli {
namespace {

constexpr int kNarrowest = 72;  // the report's lines do not get narrower
constexpr int kWidest = 100;    // nor wider: the eye loses the line

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

int columns_of_terminal() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kWidest;
  return std::clamp(static_cast<int>(size.ws_col), kNarrowest, kWidest);
}

}  // namespace

Terminal standard_terminal() {
  const bool interactive = isatty(STDOUT_FILENO) == 1;
  std::error_code ignored;  // without /proc the catalogue is found by the other ways
  return {
      .out = std::cout,
      .err = std::cerr,
      // https://no-color.org: set and not empty, whatever the value.
      .colour = interactive && environment("NO_COLOR").empty() && environment("TERM") != "dumb",
      .columns = interactive ? columns_of_terminal() : kWidest,
      .program = std::filesystem::read_symlink("/proc/self/exe", ignored),
  };
}

}  // namespace steelyard::cli
