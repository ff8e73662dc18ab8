#include "probe/image_rates.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/format.h"
#include "probe/crew.h"
#include "probe/decode_model.h"
#include "probe/image_set.h"
#include "probe/interruption.h"
#include "probe/repeat.h"
#include "probe/sample_parts.h"
#include "rehearse/image/sample_maker.h"

namespace steelyard::probe {

namespace {

using facts::ImageRate;
using facts::ImageWork;

constexpr int kResized = 224;
constexpr rehearse::SampleShape kSample{.side = kResized};
// Runs of one figure. All figures are taken in turn, and then again: what disturbs the machine for
// some seconds spoils a run of many, not all runs of one.
constexpr std::size_t kRounds = 5;
constexpr std::size_t kLeastRounds = 3;
constexpr std::size_t kColdBytes = std::size_t{8} << 20;  // more than a core's own caches
constexpr std::size_t kPlaces = 32;                       // of a batch
constexpr std::size_t kLeastSamples = 8;  // of a run: random parts that stand for all

int parts_of(ImageWork work) {
  switch (work) {
    case ImageWork::jpeg_half: return 2;
    case ImageWork::jpeg_quarter: return 4;
    case ImageWork::jpeg_eighth: return 8;
    default: return 1;
  }
}

// Random parts of a picture, so unlike that a figure needs many of them.
bool is_sample(ImageWork work) {
  return work == ImageWork::jpeg_sample || work == ImageWork::png_sample;
}

double part_of(ImageWork work) {
  return is_sample(work) ? 3.0 : 1.0;
}

// What is measured: a group of files, what is done with them, by how many threads.
struct Task {
  const ImageGroup* group;
  ImageWork work;
  std::vector<int> threads;
  std::vector<std::uint64_t> seeds{};  // of random parts
  std::vector<double> rates{};         // images per second, run after run
  bool broken = false;
};

// One thread's work on one image after the other.
class Worker {
 public:
  Worker(const Task& task, std::size_t first) : task_(task), next_(first) {
    if (is_sample(task.work)) lay_out_records();
    if (task.work != ImageWork::resize) return;
    // What is resized is decoded before the clock runs.
    failed_ = !decoder_.decode(task.group->files[next_ % task.group->files.size()], 1, source_);
  }

  // False where the image is broken.
  bool one() {
    if (failed_) return false;
    if (task_.work == ImageWork::resize) {
      resizer_.resize(source_, result_);
      return true;
    }
    const std::size_t count = task_.group->files.size();
    const std::size_t turn = next_++;
    // No file meets the same parts in all of its turns.
    const Encoded& file = task_.group->files[(turn + turn / count) % count];
    if (task_.work == ImageWork::png) return decode_png(file, result_).has_value();
    if (is_sample(task_.work)) {
      const std::size_t round = turn / count % (records_.size() / count);
      const Encoded& record = records_[round * count + (turn + turn / count) % count];
      std::uint8_t* const sample = batch_.data() + turn % kPlaces * kSample.bytes();
      const std::uint64_t seed = task_.seeds[turn % task_.seeds.size()];
      return maker_.make(record, seed, sample).has_value();
    }
    return decoder_.decode(file, parts_of(task_.work), result_).has_value();
  }

 private:
  // A record comes from elsewhere, and its sample goes where its batch lies: neither is in the
  // nearest caches, as a few files and one sample would be.
  void lay_out_records() {
    std::size_t bytes = 0;
    while (bytes < kColdBytes) {
      for (const Encoded& file : task_.group->files) {
        records_.push_back(file);
        bytes += file.size();
      }
    }
    batch_.resize(kPlaces * kSample.bytes());
  }

  const Task& task_;
  std::size_t next_;
  bool failed_ = false;
  JpegDecoder decoder_;
  Resizer resizer_{kResized, kResized};
  Raster source_;
  Raster result_;
  rehearse::SampleMaker maker_{kSample};
  std::vector<Encoded> records_{};
  std::vector<std::uint8_t> batch_{};
};

// Of the calling thread, in seconds. Work that never waits takes as much of it as of any clock on a
// machine that does nothing else; what other programs take in between does not count.
double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Images per second (of processor time) of all threads together: each works until `length` is over
// and ends with a whole image.
std::optional<double> rate_of(const Task& task, Seconds length) {
  std::vector<double> rates(task.threads.size());
  std::atomic<bool> failed = false;
  (void)run_together(task.threads, [&](std::size_t thread) {
    Worker worker(task, thread * kLeastSamples);
    const std::size_t least = is_sample(task.work) ? kLeastSamples : 1;
    const double end = monotonic_seconds() + length.value();
    const double begin = processor_seconds();
    std::size_t images = 0;
    while (monotonic_seconds() < end || images < least) {
      if (!worker.one()) {
        failed = true;
        return;
      }
      ++images;
    }
    rates[thread] = static_cast<double>(images) / (processor_seconds() - begin);
  });
  if (failed) return std::nullopt;
  double sum = 0;
  for (const double rate : rates) sum += rate;
  return sum;
}

// All of them `kRounds` times, each time as long as its share of the time says; fewer times where
// that would take longer than `budget`.
void run_in_turn(std::vector<Task>& tasks, Seconds budget) {
  double parts = 0;
  for (const Task& task : tasks) parts += part_of(task.work);
  const double begin = monotonic_seconds();
  double longest = 0;
  for (std::size_t round = 0; round < kRounds; ++round) {
    const double round_begin = monotonic_seconds();
    const double end = begin + budget.value();
    if (round >= kLeastRounds && round_begin + longest > end) return;
    // So busy that the least takes more than twice its time.
    if (round > 0 && round_begin > end + budget.value()) return;
    for (Task& task : tasks) {
      if (interrupted()) return;
      if (task.broken) continue;
      const double share = part_of(task.work) / parts / static_cast<double>(kRounds);
      const auto rate = rate_of(task, std::max(budget * share, Seconds(0.005)));
      task.broken = !rate;
      if (rate) task.rates.push_back(*rate);
    }
    longest = std::max(longest, monotonic_seconds() - round_begin);
  }
}

ImageRate figure_of(const Task& task) {
  const std::vector<double>& rates = task.rates;
  const bool takes_bytes = task.work != ImageWork::resize;
  const ImageGroup& group = *task.group;
  ImageRate rate{.work = task.work,
                 .width = std::lround(group.width),
                 .height = std::lround(group.height),
                 .compressed = Bytes(takes_bytes ? std::llround(group.bytes) : 0),
                 .threads = static_cast<std::int64_t>(task.threads.size())};
  rate.images = measured<SamplesPerSecond>(
      rates, fmt::format("{} of {} images of about {} x {}{}, {} thread{}, already in memory",
                         name_of(task.work), group.files.size(), rate.width, rate.height,
                         takes_bytes ? " and " + to_text(rate.compressed) : "", rate.threads,
                         rate.threads == 1 ? "" : "s"));
  if (task.broken) rate.images.warning = "an image could not be decoded";
  const double median = rate.images.median.value();
  rate.compressed_rate = BytesPerSecond(takes_bytes ? median * group.bytes : 0);
  rate.pixel_rate = facts::PixelsPerSecond(median * group.width * group.height);
  return rate;
}

Result<std::vector<ImageGroup>> synthetic_groups(const ImageOptions& options) {
  std::vector<ImageGroup> groups;
  // Several sorts of each size tell the cost of a pixel from that of a compressed byte.
  for (const auto& [width, height] : options.sizes) {
    for (const Detail detail : {Detail::rich, Detail::usual, Detail::soft}) {
      STEELYARD_TRY(group, synthetic_jpegs(width, height, detail));
      groups.push_back(std::move(group));
    }
  }
  for (std::size_t i = 0; i < options.sizes.size() && i < 3; ++i) {
    for (const Detail detail : {Detail::rich, Detail::soft}) {
      STEELYARD_TRY(group, synthetic_pngs(options.sizes[i].first, options.sizes[i].second, detail));
      groups.push_back(std::move(group));
    }
  }
  return groups;
}

std::vector<Task> tasks_of(const std::vector<ImageGroup>& groups, const std::vector<int>& threads) {
  const std::vector<int> one = {threads.front()};
  std::vector<std::vector<int>> crews = {one};
  if (threads.size() > 1) crews.push_back(threads);
  std::vector<Task> tasks;
  const ImageGroup* before = nullptr;
  for (const ImageGroup& group : groups) {
    // Pixels cost the same in all groups of one size.
    const bool new_size =
        before == nullptr || before->width != group.width || before->height != group.height;
    before = &group;
    const auto seeds = representative_seeds(static_cast<int>(std::lround(group.width)),
                                            static_cast<int>(std::lround(group.height)));
    for (const std::vector<int>& crew : crews) {
      tasks.push_back({&group, group.png ? ImageWork::png : ImageWork::jpeg, crew});
      tasks.push_back(
          {&group, group.png ? ImageWork::png_sample : ImageWork::jpeg_sample, crew, seeds});
      if (!group.png && new_size) tasks.push_back({&group, ImageWork::resize, crew});
    }
    if (group.png || !new_size) continue;
    for (const ImageWork work :
         {ImageWork::jpeg_half, ImageWork::jpeg_quarter, ImageWork::jpeg_eighth})
      tasks.push_back({&group, work, one});
  }
  return tasks;
}

// For each codec, from what one core did.
std::vector<facts::DecodeModel> models_of(const std::vector<ImageRate>& rates) {
  std::vector<facts::DecodeModel> models;
  for (const ImageWork work : {ImageWork::jpeg, ImageWork::jpeg_half, ImageWork::jpeg_quarter,
                               ImageWork::jpeg_eighth, ImageWork::png}) {
    std::vector<DecodePoint> points;
    for (const ImageRate& rate : rates) {
      if (rate.work != work || rate.threads != 1 || rate.images.runs == 0) continue;
      points.push_back({.pixels = static_cast<double>(rate.width * rate.height),
                        .bytes = rate.compressed.real(),
                        // The best run: what disturbs makes it slower, never faster.
                        .time = Seconds(1 / rate.images.high.value())});
    }
    if (auto model = fit_decode_model(points)) {
      model->work = work;
      models.push_back(*model);
    }
  }
  return models;
}

}  // namespace

Result<facts::ImageMeasurements> measure_images(const ImageOptions& options) {
  const Interruption interruption;
  facts::ImageMeasurements seen{.source = "synthetic",
                                .decoder = JpegDecoder::name() + ", " + png_decoder_name()};
  std::vector<ImageGroup> groups;
  if (options.path.empty()) {
    STEELYARD_TRY(made, synthetic_groups(options));
    groups = std::move(made);
  } else {
    STEELYARD_TRY(found, images_of(options.path));
    groups = std::move(found.groups);
    seen.source = options.path.string();
    if (found.broken > 0) seen.source += fmt::format(" ({} files left out)", found.broken);
  }
  std::vector<Task> tasks = tasks_of(groups, options.threads);
  run_in_turn(tasks, options.budget);
  if (interrupted()) return fail(interruption_error());
  for (const Task& task : tasks) seen.rates.push_back(figure_of(task));
  seen.models = models_of(seen.rates);
  return seen;
}

}  // namespace steelyard::probe
