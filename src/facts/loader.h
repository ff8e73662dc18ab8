// A data loader that a job names by data.loader, other than the one of its framework: one process
// whose threads read ahead, decode and write samples where their batches lie.
// catalog/loaders/*.toml; docs/model/data-path.md, "Loaders of another kind".
#pragma once

#include <string>

#include "base/quantity.h"

namespace steelyard::facts {

struct LoaderProfile {
  std::string name;
  // Nothing runs beside it: no framework, no model. Else it belongs to the rank's process.
  bool alone = false;
  // Work of a machine file's picture rates that is one sample: "jpeg sample", "png sample".
  std::string jpeg_work, png_work;
  // Of decoding a whole picture and resizing it, what one sample takes where that is not known.
  Ratio jpeg_part_decoded{1.0}, png_part_decoded{1.0};
  double bytes_per_value = 1.0;  // of a picture's pixels in its batch
  // Host memory: the program, one decoding thread, any other thread; what batches and buffers are
  // rounded up to; read requests under way at once; a buffer is as large as the mean of the records
  // and so many standard deviations.
  Bytes process, per_worker, per_thread, page;
  Bytes index_per_sample;
  std::int64_t other_threads = 0, depth = 1;
  double slot_deviations = 0.0;
  // Processor time of a record in the reading thread and in the decoding one, beyond its bytes.
  Seconds read_record, read_file, make_record;
  std::string source;
};

}  // namespace steelyard::facts
