// A library that may be there or not, opened while the program runs: nothing of a vendor's is
// needed to build.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace steelyard::sense {

class SharedLibrary {
 public:
  // Nothing where no such library can be loaded.
  [[nodiscard]] static std::optional<SharedLibrary> open(const std::string& name);
  ~SharedLibrary();
  SharedLibrary(SharedLibrary&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  SharedLibrary& operator=(SharedLibrary&&) = delete;
  SharedLibrary(const SharedLibrary&) = delete;
  SharedLibrary& operator=(const SharedLibrary&) = delete;

  // Sets `function` to the symbol of that name, or to null where the library has none.
  template <class Function>
  void find(const char* name, Function*& function) const {
    function = reinterpret_cast<Function*>(address(name));
  }

 private:
  explicit SharedLibrary(void* handle) : handle_(handle) {}
  [[nodiscard]] void* address(const char* name) const;
  void* handle_;
};

// The value of an environment variable, else `otherwise`: where a vendor's library lies.
[[nodiscard]] std::string library_name(const char* variable, const char* otherwise);

}  // namespace steelyard::sense
