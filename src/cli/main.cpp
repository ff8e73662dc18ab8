#include "cli/cli.h"

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  return static_cast<int>(steelyard::cli::run(arguments, steelyard::cli::standard_terminal()));
}
