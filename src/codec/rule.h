// What a field accepts and what it means: one rule stands beside each key in the tables of fields
// (job_fields.h, machine_fields.h, ...) and serves the reader, its messages and the JSON Schemas.
#pragma once

#include <cstddef>
#include <limits>

namespace steelyard::codec {

struct Rule {
  const char* about = "";                                 // one phrase, with the unit
  double low = -std::numeric_limits<double>::infinity();  // of numbers, inclusive
  double high = std::numeric_limits<double>::infinity();
  std::size_t least_items = 0;  // of lists
  std::size_t most_items = 0;   // 0: kMostItems
  std::size_t first_names = 0;  // of an enumeration: only its first so many names; 0: all
  bool required = false;
  bool null_allowed = false;  // null means not given; elsewhere it is refused
  bool text_allowed = false;  // free tables: a path or name instead of the table
};

constexpr Rule about(const char* text) {
  return {.about = text};
}

constexpr Rule between(double low, double high, const char* text) {
  return {.about = text, .low = low, .high = high};
}

constexpr Rule required(Rule rule) {
  rule.required = true;
  return rule;
}

constexpr Rule items(std::size_t least, std::size_t most, Rule rule) {
  rule.least_items = least;
  rule.most_items = most;
  return rule;
}

// The limits of what a job, machine or case may say: generous, but finite, so that an absurd number
// is refused where it enters instead of overflowing somewhere behind.
constexpr double kMostItems = 100'000;           // entries of any list
constexpr double kMostSamplesPerStep = 1e9;      // a global batch
constexpr double kMostMicroBatch = 1e6;          // samples per replica and pass
constexpr double kMostSequence = 1e8;            // tokens
constexpr double kMostTokensPerBatch = 1e10;     // tokens
constexpr double kMostPixels = 1e5;              // one side of an image
constexpr double kMostFrames = 1e6;              // frames of one video
constexpr double kLeastAudioSeconds = 0.1;       // one sound
constexpr double kMostAudioSeconds = 36'000;     // ten hours
constexpr double kMostLayers = 1e5;              // layers of a model
constexpr double kMostLoraRank = 65'536;         // beyond any hidden size
constexpr double kMostImbalance = 1e4;           // of tokens among experts
constexpr double kMostRanks = 1e7;               // any degree of parallelism
constexpr double kMostBucketElements = 1e12;     // elements of a communication bucket
constexpr double kMostDatasetSamples = 1e15;     // samples
constexpr double kMostSampleBytes = 1e15;        // bytes of one sample
constexpr double kMostWorkers = 4096;            // loader processes per GPU
constexpr double kMostPrefetch = 1e5;            // batches ahead
constexpr double kMostDecodeSeconds = 1e6;       // CPU seconds of one sample
constexpr double kMostSteps = 1e12;              // steps between checkpoints
constexpr double kMostNodes = 1e6;               // nodes
constexpr double kMostGpusPerNode = 1024;        // GPUs of one node
constexpr double kMostFabricGpus = 65536;        // GPUs joined by direct links, across nodes
constexpr double kLeastGib = 0.001;              // memory that is there at all
constexpr double kLeastRate = 1e-6;              // a rate that one can divide by
constexpr double kMostMemoryGib = 1e9;           // an exbibyte
constexpr double kMostCores = 1e6;               // cores of one node
constexpr double kMostStorageGbPerSecond = 1e6;  // 10^9 bytes per second of one node
constexpr double kMostHostTflops = 1e6;          // 10^12 per second, of a node
constexpr double kMostNetworkGbps = 1e6;         // 10^9 bits per second
constexpr double kMostBytes = 1e18;              // any number of bytes
constexpr double kMostBytesPerSecond = 1e18;     // any transfer rate
constexpr double kMostFlopsPerSecond = 1e21;     // any arithmetic rate of one processor
constexpr double kMostWatts = 1e6;               // one processor
constexpr double kMostPricePerHour = 1e9;        // in any currency
constexpr double kMostSeconds = 1e9;             // any duration: 30 years
constexpr double kMostRate = 1e15;               // samples, tokens or operations per second

}  // namespace steelyard::codec
