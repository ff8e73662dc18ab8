// What `explain` prints is itself a job file that says the same.
#include <gtest/gtest.h>

#include <random>

#include "codec/codec.h"
#include "codec/document.h"
#include "codec/job_fields.h"
#include "codec/leaf.h"

namespace steelyard::codec {
namespace {

using facts::Value;

// The values of to_value(job) without their origins.
Value plain(const Value& value) {
  const auto* members = value.as_object();
  if (members == nullptr) return value;
  if (value.find("value") != nullptr && value.find("origin") != nullptr)
    return *value.find("value");
  facts::Object out;
  for (const auto& [key, member] : *members) out.emplace_back(key, plain(member));
  return out;
}

// A visitor that gives every key a random value that its rule accepts.
class Randomizer {
 public:
  explicit Randomizer(std::mt19937& random) : random_(random) {}

  template <class T>
  void key(std::string_view, T& field, const Rule& rule) {
    choose(field, rule);
  }
  template <class T, class Fields>
  void table(std::string_view, T& sub, Fields fields, const Rule&, const char* = nullptr) {
    fields(*this, sub);
  }
  template <class T, class Fields>
  void optional_table(std::string_view, std::optional<T>& sub, Fields fields, const Rule&) {
    if (coin()) return;
    sub.emplace();
    fields(*this, *sub);
  }
  template <class T, class Fields>
  void list(std::string_view, std::vector<T>& items, Fields fields, const Rule&) {
    for (auto n = random_() % 3; n > 0; --n) fields(*this, items.emplace_back());
  }

 private:
  bool coin() { return random_() % 2 == 0; }

  void choose(bool& b, const Rule&) { b = coin(); }
  void choose(std::string& text, const Rule&) {
    const char* const texts[] = {"x", "a \"b\" \\ 'c'", "é\n\t#", "1f1b", "true", " = [", "./a/b"};
    text = texts[random_() % std::size(texts)];
  }
  void choose(double& x, const Rule& rule) {
    x = std::uniform_real_distribution<double>(rule.low, rule.high)(random_);
  }
  void choose(std::int64_t& n, const Rule& rule) {
    n = std::uniform_int_distribution<std::int64_t>(static_cast<std::int64_t>(rule.low),
                                                    static_cast<std::int64_t>(rule.high))(random_);
  }
  template <class Enum>
  requires std::is_enum_v<Enum>
  void choose(Enum& e, const Rule& rule) {
    e = static_cast<Enum>(random_() % names_of<Enum>(rule).size());
  }
  template <class T>
  void choose(std::optional<T>& t, const Rule& rule) {
    if (coin()) choose(t.emplace(), rule);
  }
  template <class T>
  void choose(std::vector<T>& list, const Rule& rule) {
    if (rule.least_items > 0 && coin()) return;
    const auto count = rule.least_items > 0 ? rule.least_items : random_() % 4;
    for (std::size_t i = 0; i < count; ++i) choose(list.emplace_back(), rule);
  }
  void choose(Value& value, const Rule& rule) {
    if (rule.text_allowed && coin()) {
      value = "path/to/file.yaml";
    } else {
      value = facts::Object{{"a key", 1}, {"b", facts::Array{1.5, "x"}}, {"c", facts::Object{}}};
    }
  }
  void choose(ModelConfig& config, const Rule& rule) {
    if (coin()) {
      config.emplace<std::string>("llama-3.1-8b");
    } else {
      Value object;
      choose(object, rule);
      config = object.as_object() != nullptr ? object : Value(facts::Object{{"a", 1}});
    }
  }
  void choose(facts::AllocatorConf& conf, const Rule&) {
    conf.expandable_segments = coin();
    conf.text = conf.expandable_segments ? "expandable_segments:True" : "max_split_size_mb:128";
    if (!conf.expandable_segments) conf.max_split_size = Bytes(std::int64_t{128} << 20);
  }
  void choose(facts::RecomputeKeys& recompute, const Rule&) {
    if (coin()) {
      recompute.mode = static_cast<facts::RecomputeMode>(random_() % 4);
      return;
    }
    recompute.mode = facts::RecomputeMode::full;
    if (coin()) {
      recompute.every = 1 + static_cast<std::int64_t>(random_() % 9);
    } else {
      recompute.layers = 1 + static_cast<std::int64_t>(random_() % 9);
      if (coin()) recompute.method = facts::RecomputeMethod::block;
    }
  }

  std::mt19937& random_;
};

facts::Job random_job(std::mt19937& random) {
  facts::Job job;
  Randomizer randomizer(random);
  job_fields(randomizer, job);
  return job;
}

TEST(Explained, ReadsBackAsTheSameJob) {
  std::mt19937 random(11);
  for (int i = 0; i < 300; ++i) {
    const facts::Job job = random_job(random);
    const std::string text = explained(job);
    const auto value = parse(text, Format::toml, "explained");
    ASSERT_TRUE(value) << to_text(value.error()) << "\n" << text;
    const auto again = job_from(*value, "explained");
    ASSERT_TRUE(again) << to_text(again.error()) << "\n" << text;
    ASSERT_EQ(plain(to_value(*again)), plain(to_value(job))) << text;
  }
}

TEST(Explained, SaysWhereEachValueCameFrom) {
  const auto document = parse_document("[model]\nconfig = 'gpt2'\n", Format::toml, "x");
  facts::Job job = *job_from(document->value, "x");
  job.train.micro_batch = 4;
  job.origins["train.micro_batch"] = {facts::Origin::import, {}};
  job.origins["train.optimizer.fused"] = {facts::Origin::fallback, {}};
  job.train.optimizer.fused = false;
  job.machine.gpus = 8;
  job.origins["machine.gpus"] = {facts::Origin::machine, {}};
  job.train.sequence_length = 1024;
  job.origins["train.sequence_length"] = {facts::Origin::model, {}};
  job.origins["model.config"] = {facts::Origin::job, 2};
  const std::string text = explained(job);
  const auto has_line = [&](const std::string& key, const std::string& comment) {
    const std::size_t at = text.find("\n" + key + " ");
    if (at == std::string::npos) return false;
    const std::string line = text.substr(at + 1, text.find('\n', at + 1) - at - 1);
    return line.ends_with("# " + comment);
  };
  EXPECT_TRUE(has_line("config = \"gpt2\"", "job, line 2")) << text;
  EXPECT_TRUE(has_line("micro_batch = 4", "import")) << text;
  EXPECT_TRUE(has_line("sequence_length = 1024", "model")) << text;
  EXPECT_TRUE(has_line("gpus = 8", "machine")) << text;
  EXPECT_TRUE(has_line("optimizer.fused = false", "default")) << text;
  EXPECT_TRUE(has_line("# frames: not set", "frames per video")) << text;
}

TEST(Explained, LeavesOutWhatTomlCannotSay) {
  facts::Job job;
  job.model.config = Value(facts::Object{{"model_type", "gpt2"}, {"rope_scaling", Value()}});
  job.model.set = facts::Object{{"a", facts::Array{Value()}}};
  const std::string text = explained(job);
  EXPECT_NE(text.find("config = { model_type = \"gpt2\" }"), std::string::npos) << text;
  EXPECT_NE(text.find("# set: a list that holds null"), std::string::npos) << text;
}

TEST(ToValueOfAJob, GivesEveryKeyItsOrigin) {
  const auto source = parse("[model]\nconfig = 'gpt2'\n", Format::toml, "x");
  const Value value = to_value(*job_from(*source, "x"));
  const Value& config = *value.find("model")->find("config");
  EXPECT_EQ(config, Value(facts::Object{{"value", "gpt2"}, {"origin", "job"}}));
  const Value& frames = *value.find("train")->find("frames");
  EXPECT_EQ(frames, Value(facts::Object{{"value", Value()}, {"origin", "default"}}));
  const Value& fp8 = *value.find("train")->find("fp8");
  EXPECT_EQ(fp8, Value(facts::Object{{"value", Value()}, {"origin", "default"}}));
  const Value& size = *value.find("train")->find("image_size");
  EXPECT_TRUE(size.find("value")->is_null());
  EXPECT_NE(value.find("train")->find("optimizer")->find("name"), nullptr);
}

}  // namespace
}  // namespace steelyard::codec
