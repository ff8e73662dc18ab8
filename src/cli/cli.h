// The first header of the room, the command line: arguments in, text and an exit status out.
//
// A command that fails prints nothing on `out` and one message on `err`.
#pragma once

#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

namespace steelyard::cli {

enum class ExitStatus : int {
  success = 0,         // for `plan`: the job fits
  internal_error = 1,  // our bug
  bad_input = 2,       // the message on `err` says what and where
  does_not_fit = 3,    // `plan` and `search`; what was planned is printed
  interrupted = 130,   // `search`: Ctrl-C before anything was found
};

// What the commands print to, and what they may assume of it.
struct Terminal {
  std::ostream& out;
  std::ostream& err;
  bool colour = false;  // a terminal that shows colours, and NO_COLOR is not set
  int columns = 100;
  std::filesystem::path program;  // the running executable; the catalogue is looked for beside it
};

// The process's own standard streams.
[[nodiscard]] Terminal standard_terminal();

// `arguments` without the program's name. Never throws.
[[nodiscard]] ExitStatus run(const std::vector<std::string>& arguments, const Terminal& terminal);

}  // namespace steelyard::cli
