#include "probe/test_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/format.h"
#include "probe/pages.h"

namespace steelyard::probe {

namespace {

// A test may take a tenth of what is free: others write to the same disk meanwhile.
constexpr std::int64_t kPartOfFree = 10;

constexpr unsigned kWaitForPages =
    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;

struct KnownKind {
  std::uint64_t magic;
  const char* name;
  bool in_memory;
  bool remote;
};

// statfs(2) and the kernel's include/uapi/linux/magic.h; those of Lustre, GPFS, BeeGFS, WekaFS and
// ZFS from their own sources, as coreutils' stat lists them.
constexpr std::array kKinds = {
    KnownKind{EXT4_SUPER_MAGIC, "ext4", false, false},
    KnownKind{0x58465342, "xfs", false, false},
    KnownKind{BTRFS_SUPER_MAGIC, "btrfs", false, false},
    KnownKind{0xf2f52010, "f2fs", false, false},
    KnownKind{0x2fc12fc1, "zfs", false, false},
    KnownKind{OVERLAYFS_SUPER_MAGIC, "overlay", false, false},
    KnownKind{TMPFS_MAGIC, "tmpfs", true, false},
    KnownKind{RAMFS_MAGIC, "ramfs", true, false},
    KnownKind{NFS_SUPER_MAGIC, "nfs", false, true},
    KnownKind{0x65735546, "fuse", false, true},
    KnownKind{0x00c36400, "ceph", false, true},
    KnownKind{0x0bd00bd0, "lustre", false, true},
    KnownKind{0x47504653, "gpfs", false, true},
    KnownKind{0x19830326, "beegfs", false, true},
    KnownKind{0xff534d42, "cifs", false, true},
    KnownKind{0xfe534d42, "smb2", false, true},
    KnownKind{V9FS_MAGIC, "9p", false, true},
};

Error cannot(const std::string& what, const std::filesystem::path& where, int error) {
  return {.code = ErrorCode::unreadable,
          .subject = where.string(),
          .found = fmt::format("{}: {}", what, std::strerror(error)),
          .accepted = "a folder in which this user may write"};
}

// A name that is gone again before anything is written.
int create_unlinked(const std::filesystem::path& folder, int flags) {
  std::string name = (folder / fmt::format(".steelyard-probe-{}", getpid())).string();
  const int file = open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | flags, 0600);
  if (file >= 0) unlink(name.c_str());
  return file;
}

int create_nameless(const std::filesystem::path& folder, int flags) {
  const int file = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
  return file >= 0 ? file : create_unlinked(folder, flags);
}

// Some file systems take the flag and refuse the requests.
bool takes_direct_requests(int file) {
  const auto page = Pages::map(Bytes(1), PageSize::small);
  constexpr std::size_t kTrial = 4096;
  return page && pwrite(file, page->data(), kTrial, 0) == static_cast<ssize_t>(kTrial);
}

}  // namespace

Result<Bytes> permitted_test_file(Bytes asked, const FileSystemSpace& space) {
  const Bytes most(space.free.value() / kPartOfFree);
  const Bytes size = std::min(asked, most);
  if (size < kSmallestTestFile) {
    return fail({.code = ErrorCode::too_large,
                 .subject = "the test file",
                 .found = fmt::format("{} free on the disk", to_text(space.free)),
                 .accepted = fmt::format("at least {}: the test takes no more than a tenth",
                                         to_text(kSmallestTestFile * kPartOfFree)),
                 .hint = "Free some space, or name another folder."});
  }
  // Whole requests of every size that is measured.
  return Bytes(size.value() / kSmallestTestFile.value() * kSmallestTestFile.value());
}

Result<FileSystemSpace> space_of(const std::filesystem::path& folder) {
  struct statvfs space {};
  if (statvfs(folder.c_str(), &space) != 0)
    return fail(cannot("no free space told", folder, errno));
  const auto unit = static_cast<std::int64_t>(space.f_frsize);
  return FileSystemSpace{.total = Bytes(unit) * static_cast<std::int64_t>(space.f_blocks),
                         .free = Bytes(unit) * static_cast<std::int64_t>(space.f_bavail)};
}

FileSystemKind kind_of(const std::filesystem::path& folder) {
  struct statfs seen {};
  if (statfs(folder.c_str(), &seen) != 0) return {.name = "unknown"};
  const auto magic = static_cast<std::uint64_t>(seen.f_type) & 0xffffffffU;
  const auto* known = std::find_if(kKinds.begin(), kKinds.end(),
                                   [&](const KnownKind& kind) { return kind.magic == magic; });
  if (known == kKinds.end()) return {.name = fmt::format("0x{:x}", magic)};
  return {.name = known->name, .in_memory = known->in_memory, .remote = known->remote};
}

Result<TestFile> TestFile::create(const std::filesystem::path& folder) {
  if (!kind_of(folder).in_memory) {
    const int file = create_nameless(folder, O_DIRECT);
    if (file >= 0 && takes_direct_requests(file)) return TestFile(file, true);
    if (file >= 0) close(file);
  }
  const int file = create_nameless(folder, 0);
  if (file < 0) return fail(cannot("no file can be made there", folder, errno));
  return TestFile(file, false);
}

TestFile::TestFile(TestFile&& other) noexcept
    : file_(std::exchange(other.file_, -1)), direct_(other.direct_) {}

TestFile& TestFile::operator=(TestFile&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(direct_, other.direct_);
  return *this;
}

TestFile::~TestFile() {
  if (file_ >= 0) close(file_);
}

Result<void> TestFile::reserve(Bytes size) const {
  // Not posix_fallocate: where the file system cannot reserve, that writes into every block.
  const int status = fallocate(file_, 0, 0, size.value()) == 0 ? 0 : errno;
  if (status != ENOSPC && status != EDQUOT && status != EFBIG) return {};
  return fail(cannot(fmt::format("{} cannot be reserved", to_text(size)), "the test file", status));
}

Result<void> TestFile::sync() const {
  if (fdatasync(file_) != 0) return fail(cannot("writing to the disk", "the test file", errno));
  return {};
}

void TestFile::forget_pages() const {
  (void)posix_fadvise(file_, 0, 0, POSIX_FADV_DONTNEED);
}

int TestFile::open_buffered() const {
  return open(fmt::format("/proc/self/fd/{}", file_).c_str(), O_RDONLY | O_CLOEXEC);
}

Result<SmallFiles> SmallFiles::create(const std::filesystem::path& folder, std::size_t count,
                                      Bytes size) {
  std::string name = (folder / ".steelyard-probe-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) return fail(cannot("no folder can be made", folder, errno));
  SmallFiles files;
  files.folder_ = name;
  files.size_ = size;
  const std::vector<char> content(static_cast<std::size_t>(size.value()), 'x');
  for (std::size_t i = 0; i < count; ++i) {
    files.names_.push_back(fmt::format("{}/{:06}", name, i));
    const int file = open(files.names_.back().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    const bool whole = file >= 0 && write(file, content.data(), content.size()) ==
                                        static_cast<ssize_t>(content.size());
    const int error = errno;
    if (file >= 0) close(file);
    if (!whole) return fail(cannot("small files", name, error));
  }
  // On the disk, so that their pages can be dropped: all begin to be written, then each is waited
  // for. No syncfs, which would wait for what others write.
  for (const unsigned flags : {unsigned{SYNC_FILE_RANGE_WRITE}, kWaitForPages}) {
    for (const std::string& file : files.names_) {
      const int opened = open(file.c_str(), O_WRONLY | O_CLOEXEC);
      if (opened < 0) continue;
      (void)sync_file_range(opened, 0, 0, flags);
      close(opened);
    }
  }
  return files;
}

SmallFiles::SmallFiles(SmallFiles&& other) noexcept
    : folder_(std::exchange(other.folder_, {})),
      names_(std::move(other.names_)),
      size_(other.size_) {}

SmallFiles& SmallFiles::operator=(SmallFiles&& other) noexcept {
  std::swap(folder_, other.folder_);
  std::swap(names_, other.names_);
  std::swap(size_, other.size_);
  return *this;
}

SmallFiles::~SmallFiles() {
  if (folder_.empty()) return;
  std::error_code ignored;  // nothing can be done in a destructor, and nothing more is known
  std::filesystem::remove_all(folder_, ignored);
}

bool SmallFiles::read(std::size_t index, std::vector<char>& into) const {
  const int file = open(names_[index].c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  into.resize(static_cast<std::size_t>(size_.value()));
  const ssize_t moved = ::read(file, into.data(), into.size());
  close(file);
  return moved == static_cast<ssize_t>(into.size());
}

void SmallFiles::forget_pages() const {
  for (const std::string& name : names_) {
    const int file = open(name.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    close(file);
  }
}

}  // namespace steelyard::probe
