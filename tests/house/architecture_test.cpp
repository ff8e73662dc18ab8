// Reads every #include under src/ against the include table, src/layers.txt.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "support/files.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;
using Rooms = std::map<std::string, std::set<std::string>>;

// A line is a room and the rooms it may include; "#" begins a comment.
Rooms layers_from(const std::string& text) {
  Rooms rooms;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string room;
    if (!(words >> room)) continue;
    rooms[room] = {room};
    for (std::string other; words >> other;) rooms[room].insert(other);
  }
  return rooms;
}

// The files that a source includes with quotes, as written.
std::vector<std::string> quoted_includes(const std::string& text) {
  std::vector<std::string> includes;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first, second;
    words >> first;
    if (first == "#") {
      words >> second;
      first += second;
    }
    if (!first.starts_with("#include")) continue;
    const std::size_t open = line.find('"');
    const std::size_t close = open == std::string::npos ? open : line.find('"', open + 1);
    if (close != std::string::npos) includes.push_back(line.substr(open + 1, close - open - 1));
  }
  return includes;
}

// What is wrong with an include of a file in `room`; empty when nothing is.
std::string fault_of(const Rooms& rooms, const std::string& room, const std::string& include) {
  const std::size_t slash = include.find('/');
  if (slash == std::string::npos) return "names no room: write \"room/file.h\"";
  const std::string other = include.substr(0, slash);
  if (!rooms.contains(other)) return "is of no room in src/layers.txt";
  if (!rooms.at(room).contains(other)) return room + " may not include " + other;
  return {};
}

const fs::path kSource = fs::path(STEELYARD_SOURCE_DIR) / "src";

Rooms the_layers() {
  return layers_from(testing::file_text(kSource / "layers.txt"));
}

TEST(Architecture, EveryIncludeIsAllowedAndExists) {
  const Rooms rooms = the_layers();
  std::size_t seen = 0;
  for (const fs::path& file : testing::files_under(kSource, {".h", ".cpp"})) {
    const std::string room = fs::relative(file, kSource).begin()->string();
    ASSERT_TRUE(rooms.contains(room)) << file << " stands in no room of src/layers.txt";
    for (const std::string& include : quoted_includes(testing::file_text(file))) {
      EXPECT_EQ(fault_of(rooms, room, include), "") << file << ": #include \"" << include << '"';
      EXPECT_TRUE(fs::exists(kSource / include)) << file << ": #include \"" << include << '"';
      ++seen;
    }
  }
  EXPECT_GT(seen, 100U) << "the includes were not found";
}

TEST(Architecture, TheTableHasNoCycle) {
  Rooms rooms = the_layers();
  // Take away rooms that include nothing that is left, until none is: only a cycle stays.
  bool taken = true;
  while (taken) {
    taken = false;
    for (auto it = rooms.begin(); it != rooms.end();) {
      const bool alone = std::all_of(it->second.begin(), it->second.end(), [&](const auto& other) {
        return other == it->first || !rooms.contains(other);
      });
      it = alone ? rooms.erase(it) : std::next(it);
      taken = taken || alone;
    }
  }
  EXPECT_TRUE(rooms.empty()) << "the first of them: " << rooms.begin()->first;
}

TEST(Architecture, TheTableNamesOnlyItsOwnRooms) {
  const Rooms rooms = the_layers();
  for (const auto& [room, others] : rooms) {
    for (const std::string& other : others) {
      EXPECT_TRUE(rooms.contains(other)) << room << " may include " << other << ", which is none";
    }
  }
}

// The predicting rooms are values in, values out: no files, clocks, environment or printing.
TEST(Architecture, ThePredictingRoomsArePure) {
  const std::set<std::string> forbidden = {
      "<fstream>", "<iostream>", "<filesystem>", "<cstdio>",        "<chrono>", "<ctime>",
      "<thread>",  "<unistd.h>", "<random>",     "<fmt/ostream.h>", "<print>"};
  for (const char* room :
       {"model", "step", "vram", "ram", "pace", "feed", "plan", "validate", "facts"}) {
    for (const fs::path& file : testing::files_under(kSource / room, {".h", ".cpp"})) {
      const std::string text = testing::file_text(file);
      for (const std::string& header : forbidden) {
        EXPECT_EQ(text.find("#include " + header), std::string::npos) << file << ": " << header;
      }
      EXPECT_EQ(text.find("getenv"), std::string::npos) << file;
    }
  }
}

TEST(Architecture, TheCheckSeesWhatIsForbidden) {
  const Rooms rooms = layers_from("base\nfacts base  # nouns\n");
  EXPECT_EQ(fault_of(rooms, "facts", "base/error.h"), "");
  EXPECT_EQ(fault_of(rooms, "base", "facts/job.h"), "base may not include facts");
  EXPECT_EQ(fault_of(rooms, "base", "cli/cli.h"), "is of no room in src/layers.txt");
  EXPECT_NE(fault_of(rooms, "base", "error.h"), "");
  EXPECT_EQ(quoted_includes("#include <map>\n#include \"a/b.h\"\n # include \"c/d.h\" // e\n"),
            (std::vector<std::string>{"a/b.h", "c/d.h"}));
}

}  // namespace
}  // namespace steelyard
