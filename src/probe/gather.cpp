#include "probe/gather.h"

#include <fmt/format.h>

#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "probe/topology.h"
#include "sense/environment.h"

namespace steelyard::probe {
namespace {

namespace fs = std::filesystem;

class Copier {
 public:
  Copier(const sense::Tree& tree, fs::path folder) : tree_(tree), folder_(std::move(folder)) {}

  // A path as the kernel has it: links on the way become links, the file itself a file, a folder
  // gets what lies in it: links, and folders without their content.
  void copy(const std::string& path) {
    const std::string real = resolved(path, 0);
    if (real.empty()) return;
    const fs::file_status status = fs::status(tree_.at(real), failed_);
    if (fs::is_directory(status)) {
      make_folder(real);
      for (const std::string& name : tree_.names(real)) {
        const std::string inner = real + "/" + name;
        if (fs::is_directory(tree_.at(inner), failed_)) make_folder(resolved(inner, 0));
      }
    } else if (const auto text = tree_.text(real)) {
      write(real, *text);
    }
  }

  void write(const std::string& path, const std::string& text) {
    const fs::path file = below(path);
    if (!written_.insert(path).second) return;
    fs::create_directories(file.parent_path(), failed_);
    std::ofstream out(file, std::ios::binary);
    out << text << "\n";
    good_ = good_ && out.good();
    ++count_.files;
    count_.bytes += Bytes(static_cast<std::int64_t>(text.size()) + 1);
  }

  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] const Gathered& count() const { return count_; }

 private:
  [[nodiscard]] fs::path below(const std::string& path) const {
    return folder_ / fs::path(path).relative_path();
  }

  void make_folder(const std::string& path) {
    if (!path.empty()) fs::create_directories(below(path), failed_);
  }

  // Follows the links in `path` one by one and makes each again; "" where it leads nowhere.
  // /proc/self is the running process: it becomes a folder.
  std::string resolved(const std::string& path, int depth) {
    constexpr int kDeepest = 40;
    if (depth > kDeepest) return "";
    fs::path done = "/";
    const fs::path all = fs::path(path).lexically_normal();
    for (auto part = all.begin(); part != all.end(); ++part) {
      if (*part == "/") continue;
      const fs::path next = done / *part;
      const fs::path target = fs::read_symlink(tree_.at(next.string()), failed_);
      if (failed_ || next == "/proc/self" || target.empty()) {
        done = next;
        continue;
      }
      make_link(next.string(), target);
      fs::path rest = target.is_absolute() ? target : done / target;
      for (auto further = std::next(part); further != all.end(); ++further) rest /= *further;
      return resolved(rest.lexically_normal().string(), depth + 1);
    }
    return done.string();
  }

  void make_link(const std::string& path, const fs::path& target) {
    if (target.is_absolute() || !written_.insert(path).second) return;
    fs::create_directories(below(path).parent_path(), failed_);
    fs::create_symlink(target, below(path), failed_);
    if (!failed_) ++count_.links;
  }

  const sense::Tree& tree_;
  fs::path folder_;
  std::set<std::string> written_;
  std::error_code failed_;
  Gathered count_;
  bool good_ = true;
};

// What hwloc's Linux part wants beside our own readings (masks instead of lists).
std::vector<std::string> for_hwloc(const sense::Tree& tree) {
  std::vector<std::string> paths = {"/sys/devices/system/cpu/possible",
                                    "/sys/devices/system/cpu/present",
                                    "/sys/devices/system/node/possible"};
  const std::string cpus = "/sys/devices/system/cpu";
  for (const std::string& name : tree.names(cpus)) {
    if (!sense::number_behind("cpu", name)) continue;
    for (const char* file : {"core_id", "die_id", "cluster_id", "core_cpus", "thread_siblings",
                             "package_cpus", "core_siblings", "die_cpus", "cluster_cpus"}) {
      paths.push_back(fmt::format("{}/{}/topology/{}", cpus, name, file));
    }
    for (const std::string& index : tree.names(fmt::format("{}/{}/cache", cpus, name))) {
      for (const char* file : {"level", "type", "size", "shared_cpu_map", "id"}) {
        paths.push_back(fmt::format("{}/{}/cache/{}/{}", cpus, name, index, file));
      }
    }
  }
  const std::string nodes = "/sys/devices/system/node";
  for (const std::string& name : tree.names(nodes)) {
    if (sense::number_behind("node", name)) paths.push_back(nodes + "/" + name + "/cpumap");
  }
  return paths;
}

Error cannot(const fs::path& folder, std::string found, std::string accepted) {
  return {.code = ErrorCode::bad_input,
          .subject = folder.string(),
          .found = std::move(found),
          .accepted = std::move(accepted)};
}

}  // namespace

Result<Gathered> gather(const sense::Tree& tree, const fs::path& folder) {
  std::error_code failed;
  if (fs::exists(folder, failed) && !fs::is_empty(folder, failed)) {
    return fail(cannot(folder, "something that is there already", "a new or an empty folder"));
  }
  fs::create_directories(folder, failed);
  if (failed) return fail(cannot(folder, failed.message(), "a folder that can be made"));
  const sense::Tree asked = tree.remembering();
  const sense::Environment environment = sense::environment_of(tree);
  (void)topology(asked, environment);
  Copier copier(tree, folder);
  for (const std::string& path : asked.asked()) copier.copy(path);
  for (const std::string& path : for_hwloc(tree)) copier.copy(path);
  std::string variables;
  for (const auto& [name, value] : environment) variables += fmt::format("{}={}\n", name, value);
  if (!variables.empty()) copier.write("/environment", variables);
  if (!copier.good()) return fail(cannot(folder, "a file that cannot be written", "room for it"));
  return copier.count();
}

}  // namespace steelyard::probe
