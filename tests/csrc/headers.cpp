// C entry points to the torch-free arithmetic, for test_headers.py.
#include <algorithm>

#include "common/level_map.h"
#include "cpu/axis_table.h"

using namespace segroi;

namespace {

// The table as a dense matrix [bins, length], once from its taps and once from its lanes.
void write_dense(const AxisSampler<double>& axis, int transposed, int width, double* taps,
                 double* lanes) {
  cpu::Arena arena;
  const cpu::TableForm form{cpu::Weights::value, transposed != 0, width % 2 == 0, width};
  const cpu::AxisTable<double> table = cpu::TableBuilder<double>().build(axis, form, arena);
  const auto add = [&](double* to, int output, int input, double weight) {
    const int bin = transposed ? input : output, pixel = transposed ? output : input;
    to[bin * axis.length + table.pixel[pixel]] += weight;
  };
  for (int o = 0; o < table.taps.outputs; ++o) {
    for (int t = table.taps.begin[o]; t < table.taps.begin[o + 1]; ++t) {
      add(taps, o, table.taps.input[t], table.taps.weight[t]);
    }
  }
  int at = 0;
  for (int s = 0; s < table.lanes.count; ++s) {
    const cpu::LaneSegment& segment = table.lanes.segments[s];
    for (int i = 0; i < segment.steps * width; ++i, ++at) {
      if (table.lanes.weight[at] == 0) continue;
      add(lanes, segment.block * width + i % width, segment.base + table.lanes.index[at],
          table.lanes.weight[at]);
    }
  }
}

}  // namespace

extern "C" {

int level_of(int finest, int levels, double canonical_size, int canonical_level, const float* box) {
  const LevelMap map = make_level_map(finest, levels, canonical_size, canonical_level);
  return box_level(map, box[0], box[1], box[2], box[3]);
}

void roi_align_matrix(double start, double end, double scale, int bins, int ratio, int aligned,
                      int length, int transposed, int width, double* taps, double* lanes) {
  write_dense(roi_align_axis(start, end, scale, bins, ratio, aligned != 0, length), transposed,
              width, taps, lanes);
}

int64_t samples_looked_at(double start, double end, int bins, int length) {
  int64_t count = 0;
  const auto axis = roi_align_axis(start, end, 1.0, bins, 0, true, length);
  for (int bin = 0; bin < bins; ++bin) {
    axis.for_each_tap(bin, [&](const AxisTap<double>&) { ++count; });
  }
  return count;
}
}
