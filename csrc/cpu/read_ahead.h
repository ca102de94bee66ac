// Reading planar maps ahead, row by row.
//
// A RoI reads short pieces of many rows of many planes, which no hardware prefetcher foresees: a
// core then waits for memory most of the time. Where RoIs cover a good part of a map, it is twice
// as fast (AMD EPYC) to stream whole rows through the cache just before the first RoI needs them.
// Intel's prefetchers follow the rows by themselves, and reading ahead costs a fifth to a third of
// the time there (Xeon, Sapphire Rapids).
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/separable_tables.h"

namespace segroi::cpu {

inline bool prefetchers_follow_rows() {
#ifdef __x86_64__
  return __builtin_cpu_is("intel");
#else
  return false;
#endif
}

template <typename T>
class ReadAhead {
 public:
  ReadAhead(const Problem<T>& problem, const Wave<T>& wave)
      : problem_(problem), worth_(problem.maps.size() * problem.maps[0].images) {
    if (!problem.planar || prefetchers_follow_rows()) return;
    std::vector<double> pixels(worth_.size());
    for (size_t k = 0; k < wave.crops.size(); ++k) {
      for (int i = 0; i < problem.reads(wave.crops[k]); ++i) {
        const Pooled<T>& tables = wave.tables[k * problem.per + i];
        pixels[place(k, i, wave)] += double(tables.y.pixels) * tables.x.pixels;
      }
    }
    for (size_t p = 0; p < worth_.size(); ++p) {
      const Map& map = problem.maps[p / problem.maps[0].images];
      worth_[p] = map.stride.x == 1 && pixels[p] > kCoverage * map.height * map.width;
    }
  }

  // Rows already read, for one range of channels; to be kept between calls.
  using Progress = std::vector<int>;
  Progress start() const { return Progress(worth_.size(), 0); }

  // Reads what the k-th crop of the wave needs. Crops come in rising order of rows.
  void read(int64_t k, const Wave<T>& wave, int64_t channel, int64_t channels,
            Progress& progress) const {
    for (int i = 0; i < problem_.reads(wave.crops[k]); ++i) {
      const Pooled<T>& tables = wave.tables[k * problem_.per + i];
      const int64_t p = place(k, i, wave);
      if (!worth_[p] || tables.y.pixels == 0) continue;
      const int from = std::max(progress[p], tables.y.pixel[0]);
      int to = tables.y.pixel[tables.y.pixels - 1] + 1;
      if (from >= to) continue;
      const Map& map = problem_.maps[p / problem_.maps[0].images];
      progress[p] = to = std::min(std::max(to, from + kRows), map.height);
      for (int64_t c = channel; c < channel + channels; ++c) stream(tables, map, c, from, to);
    }
  }

 private:
  static constexpr int kRows = 32;           // to read at least
  static constexpr double kCoverage = 0.25;  // of a map's pixels, counted once per RoI

  int64_t place(int64_t k, int i, const Wave<T>& wave) const {
    const Source<T>& source = problem_.sources[wave.crops[k] * problem_.per + i];
    return source.level * problem_.maps[0].images + source.image;
  }

  void stream(const Pooled<T>& tables, const Map& map, int64_t c, int from, int to) const {
    const char* plane =
        static_cast<const char*>(tables.data) + c * map.stride.c * problem_.element_bytes;
    const int64_t row = map.stride.y * problem_.element_bytes;
    const int64_t length = int64_t{map.width} * problem_.element_bytes;
    for (int y = from; y < to; ++y) {
      for (int64_t at = 0; at < length; at += 64) {
        (void)*static_cast<const volatile char*>(plane + y * row + at);
      }
    }
  }

  const Problem<T>& problem_;
  std::vector<char> worth_;  // [maps][images]
};

}  // namespace segroi::cpu
