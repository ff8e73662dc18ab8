// What programs of several jobs have in common, made once: traces of blocks. Shared by all who plan
// side by side. Everything in it is known by all that it depends on, compared by value, so a
// program that is put together from it is the one that is made alone.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <typeindex>
#include <unordered_map>
#include <vector>

#include "model/graph.h"
#include "step/block_trace.h"
#include "step/program.h"

namespace steelyard::step {

// Which of a program's names a text is: the first of those alike, as for a tape.
class Names {
 public:
  // The name's index in `names`, to which it is added where it lacks. `id`: the workshop's own
  // number of the text, by which it is found again.
  [[nodiscard]] std::int32_t index_of(std::int32_t id, const std::string& text,
                                      std::vector<std::string>& names);

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>{}(text);
    }
  };
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> known_;
  std::vector<std::int32_t> by_id_;  // -1: not asked for yet
  std::size_t seen_ = 0;             // of the program's names; others add to them too
};

class Workshop {
 public:
  Workshop();
  ~Workshop();
  Workshop(const Workshop&) = delete;
  Workshop& operator=(const Workshop&) = delete;

  // As trace_block. Called side by side, each time with a program of its own. `times_only`: what is
  // allocated and freed between work is left out.
  [[nodiscard]] BlockTrace trace(Program& program, Names& names, const model::Graph& graph,
                                 const model::Block& block, const BlockOptions& options,
                                 SharedTensors& shared, bool first, bool last,
                                 bool times_only = false);

  // A place for what a room shares of its own, by its type; made when first asked for. It guards
  // itself.
  template <class T>
  [[nodiscard]] T& shelf() {
    return *static_cast<T*>(shelf(typeid(T), [] { return std::shared_ptr<void>(new T()); }));
  }

 private:
  using Make = std::shared_ptr<void> (*)();
  [[nodiscard]] void* shelf(std::type_index type, Make make);

  class Traces;
  class Shelves;
  std::unique_ptr<Traces> traces_;
  std::unique_ptr<Shelves> shelves_;
};

}  // namespace steelyard::step
