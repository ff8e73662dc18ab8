#include "sense/shared_library.h"

#include <dlfcn.h>

#include <cstdlib>

namespace steelyard::sense {

std::optional<SharedLibrary> SharedLibrary::open(const std::string& name) {
  // A driver that has started threads does not survive being unloaded: it stays.
  void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) return std::nullopt;
  return SharedLibrary(handle);
}

SharedLibrary::~SharedLibrary() {
  if (handle_ != nullptr) dlclose(handle_);
}

void* SharedLibrary::address(const char* name) const {
  return dlsym(handle_, name);
}

std::string library_name(const char* variable, const char* otherwise) {
  const char* set = std::getenv(variable);
  return set == nullptr || *set == '\0' ? otherwise : set;
}

}  // namespace steelyard::sense
