// Division of separable sampling into tasks.
//
// Forward, threads take disjoint crops. Backward, they take disjoint tiles of the maps' gradients,
// and each adds its RoIs in one fixed order.
#include "cpu/separable.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "cpu/pages.h"
#include "cpu/read_ahead.h"
#include "cpu/separable_tables.h"
#include "cpu/streaming.h"
#include "layout.h"

namespace segroi {
namespace {

using namespace cpu;

constexpr int64_t kPlaneBlock = 8;          // channels of a planar task
constexpr int64_t kTogether = 128;          // wide crops of a task
constexpr int64_t kTileChannels = 64;       // of an interleaved tile, or a multiple
constexpr int64_t kTilesOfThread = 8;       // at least, where maps have as many rows
constexpr int64_t kTileValues = 160 << 10;  // a tile fits the second-level cache

// Whether crop k of the wave has a window that is larger than a cache.
template <typename T>
bool has_wide_window(const Problem<T>& problem, const Wave<T>& wave, int64_t k) {
  if (problem.planar) return false;
  const Pooled<T>* tables = wave.tables.data() + k * problem.per;
  return std::any_of(tables, tables + problem.reads(wave.crops[k]),
                     [&](const Pooled<T>& source) { return is_wide(source, problem.channels); });
}

// Crops of a task. The results do not depend on it.
template <typename T>
int64_t crops_of_task(const Problem<T>& problem, const Wave<T>& wave, int64_t blocks) {
  const int64_t crops = wave.crops.size(), threads = at::get_num_threads();
  int64_t parts = problem.planar ? 4 * threads / blocks : crops / 8;
  for (int64_t k = 0; k < crops; ++k) {
    if (!has_wide_window(problem, wave, k)) continue;
    // wide ones share what they read: the more are together, the better
    parts = std::min(parts, std::max(4 * threads, crops / kTogether));
    break;
  }
  return (crops + parts) / (parts + 1);
}

template <typename T>
void write_crops(const Problem<T>& problem) {
  const Kernels<T> kernels = choose_kernels<T>(problem.element);
  const auto run = problem.planar ? kernels.crop_planar : kernels.crop_interleaved;
  const int64_t block = problem.planar ? kPlaneBlock : problem.channels;
  const int64_t blocks = (problem.channels + block - 1) / block;
  const int64_t values = problem.count * problem.channels * problem.bins_h * problem.bins_w;
  const bool stream = values * problem.element_bytes >= kStreamBytes;
  for_each_wave<T>(problem, false, kernels.width, [&](const Wave<T>& wave) {
    const int64_t crops = wave.crops.size(), group = crops_of_task(problem, wave, blocks);
    const int64_t groups = (crops + group - 1) / group;
    const ReadAhead<T> ahead(problem, wave);
    for_each_task(blocks * groups, [&](int64_t task, Scratch& scratch) {
      const int64_t channel = task / groups * block, first = task % groups * group;
      const int64_t channels = std::min(block, problem.channels - channel);
      auto progress = ahead.start();
      std::vector<CropTask<T>> wide;
      for (int64_t k = first; k < std::min(crops, first + group); ++k) {
        const int64_t crop = wave.crops[k];
        const CropTask<T> one{wave.tables.data() + k * problem.per,
                              problem.reads(crop),
                              problem.crop(crop),
                              problem.stride,
                              problem.bins_h,
                              problem.bins_w,
                              channel,
                              channels,
                              problem.fill,
                              stream};
        if (has_wide_window(problem, wave, k)) {
          wide.push_back(one);
          continue;
        }
        ahead.read(k, wave, channel, channels, progress);
        run(one, scratch);
      }
      kernels.crop_tiles(wide.data(), wide.size(), scratch);
      if (stream) stream_fence();
    });
  });
}

// The sources that read one image of one map, in reading order.
template <typename T>
struct Readers {
  std::vector<const Pooled<T>*> tables;
  std::vector<const void*> crops;
};

template <typename T>
std::vector<Readers<T>> readers_of(const Problem<T>& problem, const Wave<T>& wave) {
  const int64_t images = problem.maps[0].images;
  std::vector<Readers<T>> readers(problem.maps.size() * images);
  for (size_t k = 0; k < wave.crops.size(); ++k) {
    const int64_t crop = wave.crops[k];
    for (int i = 0; i < problem.reads(crop); ++i) {
      const Source<T>& source = problem.sources[crop * problem.per + i];
      Readers<T>& to = readers[source.level * images + source.image];
      to.tables.push_back(&wave.tables[k * problem.per + i]);
      to.crops.push_back(problem.crop(crop));
    }
  }
  return readers;
}

struct TilePlace {
  int64_t map, image, channel, channels;
  int row, rows;
};

// The results do not depend on it. Channels that lie side by side stay together where a row of them
// fits: the same few of every pixel would fall into few sets of the cache.
template <typename T>
std::vector<TilePlace> divide_maps(const Problem<T>& problem) {
  int64_t all = 0;
  for (const Map& map : problem.maps) all += map.images * map.height * map.width;
  const int64_t share = all * problem.channels / (kTilesOfThread * at::get_num_threads());
  std::vector<TilePlace> places;
  for (size_t m = 0; m < problem.maps.size(); ++m) {
    const Map& map = problem.maps[m];
    const int64_t fitting = kTileValues / map.width / kTileChannels * kTileChannels;
    const int64_t block =
        std::min(problem.channels, problem.planar ? kPlaneBlock : std::max(kTileChannels, fitting));
    const int64_t most = std::min(kTileValues, share) / (block * map.width) + 1;
    const int rows = static_cast<int>(std::min<int64_t>(most, map.height));
    for (int64_t n = 0; n < map.images; ++n) {
      for (int64_t c = 0; c < problem.channels; c += block) {
        for (int y = 0; y < map.height; y += rows) {
          places.push_back({static_cast<int64_t>(m), n, c, std::min(block, problem.channels - c), y,
                            std::min(rows, map.height - y)});
        }
      }
    }
  }
  return places;
}

// `zero` tells of each map whether it holds zeros already; what the others hold is overwritten.
template <typename T>
void add_crops(const Problem<T>& problem, const std::vector<bool>& zero) {
  const Kernels<T> kernels = choose_kernels<T>(problem.element);
  const auto run = problem.planar ? kernels.tile_planar : kernels.tile_interleaved;
  const std::vector<TilePlace> places = divide_maps(problem);
  bool accumulate = false;
  const auto add = [&](const Wave<T>& wave) {
    const auto readers = readers_of(problem, wave);
    for_each_task(places.size(), [&](int64_t i, Scratch& scratch) {
      const TilePlace& place = places[i];
      const Map& map = problem.maps[place.map];
      const Readers<T>& from = readers[place.map * map.images + place.image];
      run({map.data + place.image * map.stride.n * problem.element_bytes, map.stride, map.width,
           place.row, place.rows, place.channel, place.channels, from.tables.data(),
           from.crops.data(), static_cast<int64_t>(from.tables.size()), problem.stride,
           accumulate || zero[place.map]},
          scratch);
    });
    accumulate = true;
  };
  for_each_wave<T>(problem, true, kernels.width, add);
  if (!accumulate) add(Wave<T>{});
}

// sum of gradient * values over one crop, in double.
template <typename T>
double dot(const at::Tensor& gradient, const at::Tensor& values) {
  double sum = 0;
  const auto g = gradient.accessor<T, 3>(), v = values.accessor<T, 3>();
  for (int64_t c = 0; c < g.size(0); ++c) {
    for (int64_t p = 0; p < g.size(1); ++p) {
      for (int64_t q = 0; q < g.size(2); ++q) sum += double(g[c][p][q]) * double(v[c][p][q]);
    }
  }
  return sum;
}

}  // namespace

at::Tensor empty_output(const at::Tensor& like, int64_t rois, int64_t slots, int64_t h, int64_t w,
                        bool stack) {
  const int64_t c = like.size(1);
  if (!stack) return empty_large({rois, slots * c, h, w}, layout_of(like), like.options());
  // not permuted, which would be a view, and autograd lets nobody write into a view in place
  return is_channels_last(like)
             ? empty_large({rois, slots, c, h, w}, {slots * h * w * c, h * w * c, 1, w * c, c},
                           like.options())
             : empty_large({rois, slots, c, h, w}, {slots * c * h * w, c * h * w, h * w, w, 1},
                           like.options());
}

template <typename A>
void separable_forward(const Separable<A>& problem, const at::Tensor& out) {
  if (out.numel() > 0) write_crops(Problem<A>(problem, problem.maps, out));
}

template <typename A>
std::vector<at::Tensor> separable_backward_maps(const Separable<A>& p, const at::Tensor& grad) {
  std::vector<at::Tensor> grads;
  std::vector<bool> zero;
  for (const at::Tensor& map : p.maps) {
    bool clear = false;
    grads.push_back(empty_large(map.sizes(), layout_of(map), map.options(), &clear));
    zero.push_back(clear);
  }
  if (grads[0].size(0) > 0 && grads[0].size(1) > 0) add_crops(Problem<A>(p, grads, grad), zero);
  return grads;
}

template <typename A>
at::Tensor separable_backward_boxes(const Separable<A>& p, const at::Tensor& grad) {
  const auto type = std::is_same_v<A, double> ? at::kDouble : at::kFloat;
  const at::Tensor wide = grad.to(type), ends = at::zeros({p.rois, 4}, wide.options());
  if (wide.numel() == 0) return ends;
  std::vector<at::Tensor> maps;
  for (const at::Tensor& map : p.maps) maps.push_back(map.to(type));
  const at::Tensor values = at::empty(wide.sizes(), wide.options());
  Problem<A> problem(p, maps, values);
  problem.fill = 0;
  for (int end = 0; end < 4; ++end) {  // y start, y end, x start, x end
    const Weights weights = end % 2 == 0 ? Weights::d_start : Weights::d_end;
    problem.weights_y = end < 2 ? weights : Weights::value;
    problem.weights_x = end < 2 ? Weights::value : weights;
    write_crops(problem);
    for_each_task(p.rois, [&](int64_t k, Scratch&) {
      double sum = 0;
      for (int64_t slot = 0; slot < p.slots; ++slot) {
        sum += dot<A>(wide[k][slot], values[k][slot]);
      }
      ends.mutable_data_ptr<A>()[k * 4 + end] = static_cast<A>(sum);
    });
  }
  return ends;
}

#define SEGROI_INSTANTIATE(A)                                                      \
  template void separable_forward<A>(const Separable<A>&, const at::Tensor&);      \
  template std::vector<at::Tensor> separable_backward_maps<A>(const Separable<A>&, \
                                                              const at::Tensor&);  \
  template at::Tensor separable_backward_boxes<A>(const Separable<A>&, const at::Tensor&);

SEGROI_INSTANTIATE(float)
SEGROI_INSTANTIATE(double)

}  // namespace segroi
