#include "catalog/numa_entry.h"

#include <utility>

#include "facts/numa.h"

namespace steelyard::catalog {
namespace {

using facts::HostNode;
using facts::HostNuma;
using facts::Provenance;

std::string text_of(const facts::Value& table, std::string_view key) {
  const facts::Value* value = table.find(key);
  const std::string* text = value == nullptr ? nullptr : value->as_text();
  return text == nullptr ? std::string() : *text;
}

class NumaEntry {
 public:
  NumaEntry(const facts::Value& entry, const facts::Host& host, Fields& fields)
      : entry_(entry), host_(host), fields_(fields) {}

  HostNuma read() {
    numa_.source = text_of(entry_, "source");
    if (numa_.source.empty()) fields_.complain("host.numa.source", "nothing", "where it is said");
    add_nodes();
    if (const facts::Value* gpus = entry_.find("gpus")) add_gpus(*gpus);
    add_named("nics", numa_.nics);
    add_named("drives", numa_.drives);
    return std::move(numa_);
  }

 private:
  void add_nodes() {
    const facts::Value* list = entry_.find("nodes");
    const facts::Array* nodes = list == nullptr ? nullptr : list->as_array();
    if (nodes == nullptr || nodes->empty()) {
      fields_.complain("host.numa.nodes", "no list", "a list of nodes");
      return;
    }
    const auto count = static_cast<std::int64_t>(nodes->size());
    for (const facts::Value& item : *nodes) {
      HostNode node;
      node.id = std::ssize(numa_.nodes);
      const facts::Value* socket = item.find("socket");
      if (socket == nullptr || socket->as_whole() == nullptr || *socket->as_whole() < 0) {
        fields_.complain("host.numa.nodes", "a node without socket", "its number");
        return;
      }
      node.socket = {*socket->as_whole(), Provenance::catalogue};
      node.cpus = text_of(item, "cpus");
      if (!node.cpus.empty() && !facts::threads_of_list(node.cpus)) {
        fields_.complain("host.numa.nodes", node.cpus, "a list such as 0-15,128-143");
      }
      if (host_.memory) {
        node.memory = {Bytes(host_.memory->value() / count), Provenance::derived,
                       "an equal part of the host's memory"};
      }
      if (host_.cores) {
        node.cores = {*host_.cores / count, Provenance::derived, "an equal part of the cores"};
      }
      numa_.nodes.push_back(std::move(node));
    }
  }

  void add(std::string name, const facts::Value& node, const char* key,
           std::vector<facts::NearNode>& things) {
    const std::int64_t* id = node.as_whole();
    if (id == nullptr || *id < 0 || *id >= std::ssize(numa_.nodes)) {
      fields_.complain(std::string("host.numa.") + key, "something that is no node",
                       "the number of one of host.numa.nodes");
      return;
    }
    things.push_back({std::move(name), {*id, Provenance::catalogue}});
  }

  void add_gpus(const facts::Value& list) {
    const facts::Array* gpus = list.as_array();
    if (gpus == nullptr) {
      fields_.complain("host.numa.gpus", list.kind_name(), "a list with the node of each GPU");
      return;
    }
    for (const facts::Value& node : *gpus) add("", node, "gpus", numa_.gpus);
  }

  void add_named(const char* key, std::vector<facts::NearNode>& things) {
    const facts::Value* table = entry_.find(key);
    if (table == nullptr) return;
    const facts::Object* members = table->as_object();
    if (members == nullptr) {
      fields_.complain(std::string("host.numa.") + key, table->kind_name(), "a table of nodes");
      return;
    }
    for (const auto& [name, node] : *members) add(name, node, key, things);
  }

  const facts::Value& entry_;
  const facts::Host& host_;
  Fields& fields_;
  HostNuma numa_;
};

}  // namespace

HostNuma numa_of(const facts::Value& entry, const facts::Host& host, Fields& fields) {
  return NumaEntry(entry, host, fields).read();
}

}  // namespace steelyard::catalog
