// Files for measuring a disk that leave nothing behind, and how large they may be.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/quantity.h"

namespace steelyard::probe {

struct FileSystemSpace {
  Bytes total{};
  Bytes free{};  // that this user may fill
};

inline constexpr Bytes kSmallestTestFile{std::int64_t{16} << 20};

// The test file's size on a file system with that much free: at most what was asked for and a tenth
// of the free space (and so never more than half). Fails where that is below kSmallestTestFile.
[[nodiscard]] Result<Bytes> permitted_test_file(Bytes asked, const FileSystemSpace& space);

// Of the file system that holds the folder.
[[nodiscard]] Result<FileSystemSpace> space_of(const std::filesystem::path& folder);

struct FileSystemKind {
  std::string name;        // "ext4", "tmpfs"; its number in hexadecimal where it is not known here
  bool in_memory = false;  // tmpfs, ramfs
  bool remote = false;     // a server, with a cache of its own, answers
};
[[nodiscard]] FileSystemKind kind_of(const std::filesystem::path& folder);

// A file without a name, so that nothing remains however the process ends.
class TestFile {
 public:
  // O_DIRECT where the file system takes it (and is no memory). Fails where the folder is none or
  // not writable.
  [[nodiscard]] static Result<TestFile> create(const std::filesystem::path& folder);
  TestFile(TestFile&& other) noexcept;
  TestFile& operator=(TestFile&& other) noexcept;
  TestFile(const TestFile&) = delete;
  TestFile& operator=(const TestFile&) = delete;
  ~TestFile();

  [[nodiscard]] int descriptor() const { return file_; }
  [[nodiscard]] bool direct() const { return direct_; }
  // Reserves the space. Fails when the disk is full; a file system that cannot reserve is no error.
  [[nodiscard]] Result<void> reserve(Bytes size) const;
  // Everything written is on the disk. Fails with what the disk said.
  [[nodiscard]] Result<void> sync() const;
  // Its pages leave the page cache, where they are clean.
  void forget_pages() const;
  // The same file through the page cache; -1 where that cannot be had. The caller closes it.
  [[nodiscard]] int open_buffered() const;

 private:
  TestFile(int file, bool direct) : file_(file), direct_(direct) {}
  int file_ = -1;
  bool direct_ = false;
};

// A folder of files of one size, which goes away with its owner: after a signal too, by way of
// Interruption; only SIGKILL leaves it.
class SmallFiles {
 public:
  [[nodiscard]] static Result<SmallFiles> create(const std::filesystem::path& folder,
                                                 std::size_t count, Bytes size);
  SmallFiles(SmallFiles&& other) noexcept;
  SmallFiles& operator=(SmallFiles&& other) noexcept;
  SmallFiles(const SmallFiles&) = delete;
  SmallFiles& operator=(const SmallFiles&) = delete;
  ~SmallFiles();

  [[nodiscard]] std::size_t count() const { return names_.size(); }
  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
  // Opens, reads and closes one file. False where less came than was written.
  [[nodiscard]] bool read(std::size_t index, std::vector<char>& into) const;
  // Their pages leave the page cache; names and attributes stay known to the kernel.
  void forget_pages() const;

 private:
  SmallFiles() = default;
  std::filesystem::path folder_;
  std::vector<std::string> names_;
  Bytes size_{};
};

}  // namespace steelyard::probe
