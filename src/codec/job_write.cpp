// A job as a tree of values with origins, as TOML with comments, and the list of its keys.
#include <fmt/format.h>

#include "codec/codec.h"
#include "codec/job_fields.h"
#include "codec/writer.h"

namespace steelyard::codec {
namespace {

// Collects the dotted path of every key, tables of [train] and so on included.
class KeyCollector {
 public:
  KeyCollector(std::vector<std::string>& keys, std::string path)
      : keys_(keys), path_(std::move(path)) {}

  template <class T>
  void key(std::string_view name, T&, const Rule&) {
    keys_.push_back(joined(path_, name));
  }
  template <class T, class Fields>
  void table(std::string_view name, T& sub, Fields fields, const Rule&, const char* = nullptr) {
    if (!path_.empty()) keys_.push_back(joined(path_, name));
    KeyCollector inner(keys_, joined(path_, name));
    fields(inner, sub);
  }
  template <class T, class Fields>
  void optional_table(std::string_view name, std::optional<T>&, Fields fields, const Rule& rule) {
    T sub;
    table(name, sub, fields, rule);
  }
  template <class T, class Fields>
  void list(std::string_view name, std::vector<T>&, Fields, const Rule&) {
    keys_.push_back(joined(path_, name));
  }

 private:
  std::vector<std::string>& keys_;
  std::string path_;
};

// Lines "key = value  # origin". Tables of the first level are sections, deeper ones dotted keys.
class Explainer {
 public:
  Explainer(const facts::Job& job, std::string section, std::string prefix, std::string& out)
      : job_(job), section_(std::move(section)), prefix_(std::move(prefix)), out_(out) {}

  template <class T>
  void key(std::string_view name, const T& field, const Rule& rule) {
    line(name, unless_absent(Leaf<T>::write(field), rule), rule);
  }
  template <class T, class Fields>
  void table(std::string_view name, T& sub, Fields fields, const Rule&, const char* = nullptr) {
    if (section_.empty()) {
      out_ += fmt::format("\n[{}]\n", name);
      Explainer inner(job_, std::string(name), "", out_);
      fields(inner, sub);
    } else {
      Explainer inner(job_, section_, joined(prefix_, name), out_);
      fields(inner, sub);
    }
  }
  template <class T, class Fields>
  void optional_table(std::string_view name, std::optional<T>& sub, Fields fields,
                      const Rule& rule) {
    if (sub) {
      table(name, *sub, fields, rule);
    } else {
      line(name, {}, rule);
    }
  }
  template <class T, class Fields>
  void list(std::string_view name, std::vector<T>& items, Fields fields, const Rule& rule) {
    Writer plain;
    plain.list(name, items, fields, rule);
    line(name, *plain.take().find(name), rule);
  }

 private:
  // Comments of one section stand below each other up to this column.
  static constexpr int kCommentColumn = 38;

  void line(std::string_view name, const facts::Value& value, const Rule& rule) {
    const std::string key = joined(prefix_, name);
    if (value.is_null()) {
      out_ += fmt::format("{:<{}}  # {}\n", fmt::format("# {}: not set", key), kCommentColumn,
                          rule.about);
      return;
    }
    const auto text = to_toml(value);
    if (!text) {
      out_ += fmt::format("# {}: a list that holds null, which TOML cannot say\n", key);
      return;
    }
    const facts::KeyOrigin origin = origin_of(job_, joined(section_, key));
    out_ += fmt::format("{:<{}}  # {}", fmt::format("{} = {}", key, *text), kCommentColumn,
                        name_of(origin.origin));
    if (origin.line) out_ += fmt::format(", line {}", *origin.line);
    out_ += '\n';
  }

  const facts::Job& job_;
  std::string section_;
  std::string prefix_;
  std::string& out_;
};

}  // namespace

facts::KeyOrigin origin_of(const facts::Job& job, std::string_view path) {
  const auto found = job.origins.find(path);
  return found == job.origins.end() ? facts::KeyOrigin{} : found->second;
}

facts::Value unless_absent(facts::Value value, const Rule& rule) {
  const auto* list = value.as_array();
  return list != nullptr && list->size() < rule.least_items ? facts::Value() : value;
}

facts::Value OriginWriter::with_origin(std::string_view name, facts::Value value) const {
  const char* origin = name_of(origin_of(job_, joined(path_, name)).origin);
  return facts::Object{{"value", std::move(value)}, {"origin", origin}};
}

facts::Value to_value(const facts::Job& job) {
  facts::Job copy = job;  // the table of fields takes members that could be written to
  OriginWriter writer(job, "");
  job_fields(writer, copy);
  return writer.take();
}

std::string explained(const facts::Job& job) {
  facts::Job copy = job;
  std::string out;
  Explainer explainer(job, "", "", out);
  job_fields(explainer, copy);
  return out;
}

std::vector<std::string> job_keys() {
  std::vector<std::string> keys;
  facts::Job job;
  KeyCollector collector(keys, "");
  job_fields(collector, job);
  return keys;
}

}  // namespace steelyard::codec
