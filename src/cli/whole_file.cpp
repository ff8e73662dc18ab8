#include "cli/whole_file.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/text.h"

namespace steelyard::cli {

Result<void> write_whole_file(const std::string& file, const std::string& text,
                              const std::string& option) {
  const std::string fresh = file + "." + std::to_string(::getpid()) + ".part";
  std::error_code failed;
  bool written = false;
  {
    std::ofstream out(fresh, std::ios::binary);
    out << text;
    out.flush();
    written = out.good();
  }
  if (written) std::filesystem::rename(fresh, file, failed);
  if (written && !failed) return {};
  std::error_code ignored;
  std::filesystem::remove(fresh, ignored);
  return fail({.code = ErrorCode::unreadable,
               .subject = option,
               .found = "\"" + printable(file) + "\", which cannot be written",
               .accepted = "a file in a folder that exists and may be written to"});
}

}  // namespace steelyard::cli
