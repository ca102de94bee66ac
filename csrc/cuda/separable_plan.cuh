// What comes before the gather of the gradient (separable_backward.cuh): the RoIs of every (image,
// level), and the crops in an order that the gather reads well. Torch-free.
#pragma once

#include "cuda/separable_tables.cuh"

namespace segroi::cuda {

// Rows or columns [first, last] that an axis may read; positions are linear in the bins.
template <typename T>
__device__ void window_of(const AxisSampler<T>& axis, int* first, int* last) {
  const T a = axis.position(0, 0), b = axis.position(axis.bins - 1, axis.samples - 1);
  const T low = a < b ? a : b, high = a < b ? b : a, end = static_cast<T>(axis.length - 1);
  *first = low > 0 ? (low < end ? static_cast<int>(low) : axis.length - 1) : 0;
  *last = high < end ? (high > 0 ? static_cast<int>(high) + 1 : 0) : axis.length - 1;
}

// One block for each list (image, level). A thread takes a strip of RoIs, so the list keeps their
// order.
template <typename T>
__device__ void list_windows(const SeparableArgs& args, const WindowLists& lists) {
  __shared__ int partial[kWarp];
  const int level = static_cast<int>(blockIdx.x % args.levels);
  const int64_t image = blockIdx.x / args.levels;
  const int64_t strip = (args.rois + kPlanThreads - 1) / kPlanThreads, first = threadIdx.x * strip;
  const int64_t last = first + strip < args.rois ? first + strip : args.rois;
  const auto reads = [&](const Roi<T>& roi) {
    return roi.valid && roi.image == image && (args.all_levels || roi.level == level);
  };
  int mine = 0, earlier = 0, total, total_earlier;  // earlier: entries of the lists before this one
  for (int64_t k = first; k < last; ++k) {
    const Roi<T> roi = load_roi<T>(args, k);
    mine += reads(roi);
    if (!roi.valid && blockIdx.x == 0) report(args, k);
    if (roi.valid && args.all_levels) {
      earlier += roi.image < image ? args.levels : roi.image == image ? level : 0;
    } else if (roi.valid) {
      earlier += roi.image < image || (roi.image == image && roi.level < level);
    }
  }
  block_exclusive_scan(earlier, partial, &total_earlier);
  int64_t at = total_earlier + block_exclusive_scan(mine, partial, &total);
  if (threadIdx.x == 0) {
    lists.begin[2 * blockIdx.x] = total_earlier;
    lists.begin[2 * blockIdx.x + 1] = total_earlier + total;
  }
  for (int64_t k = first; k < last; ++k) {
    const Roi<T> roi = load_roi<T>(args, k);
    if (!reads(roi)) continue;
    Window window;
#pragma unroll
    for (int a = 0; a < 2; ++a) {
      window_of(make_axis(args, roi, level, a), &window.first[a], &window.last[a]);
    }
    lists.windows[at] = window;
    lists.rois[at++] = static_cast<int>(k);
  }
}

// A block's share of the crops as [k][slot][bin][channel], filled up with zeros to a whole number
// of vectors: kCopyBins bins of some channels, turned round in shared memory.
template <typename word_t>
__device__ void copy_crops(const SeparableArgs& args, const CropCopy& copy) {
  unsigned rest = blockIdx.x - static_cast<unsigned>(args.images) * args.levels;
  const int bins = args.bins[0] * args.bins[1];
  const int bin = static_cast<int>(rest % copy.bin_blocks) * kCopyBins;
  rest /= copy.bin_blocks;
  const int64_t channel = int64_t{rest % copy.channel_blocks} * copy.channels;
  rest /= copy.channel_blocks;  // crop k, slot s: k * slots + s
  const int64_t left = copy.pitch - channel;
  const int channels = static_cast<int>(left < copy.channels ? left : copy.channels);
  const int count = clamp_int(bins - bin, 1, kCopyBins), row = kCopyBins + 1;
  word_t* shared = reinterpret_cast<word_t*>(dynamic_shared());
  const word_t* from = static_cast<const word_t*>(args.crops) +
                       rest / args.slots * args.crop_stride_k +
                       rest % args.slots * args.crop_stride_slot + channel * args.crop_stride.c;
  const int step_c = static_cast<int>(args.crop_stride.c);
  const int step_y = static_cast<int>(args.crop_stride.y);
  const int step_x = static_cast<int>(args.crop_stride.x);
  const int there = static_cast<int>(args.channels - channel);
  const bool lines = step_y == args.bins[1] * step_x;  // no need to know row and column
  const Divider by_bin(count), by_row(args.bins[1]);
  const bool dense = lines && step_x == 1 && step_c == count && there >= channels;
#pragma unroll 4
  for (int i = threadIdx.x; i < channels * count; i += kPlanThreads) {
    int b = i;
    const int c = by_bin.split(&b);
    word_t value = 0;
    if (dense) {
      value = from[i];
    } else if (c < there) {
      int x = bin + b;
      const int y = lines ? 0 : by_row.split(&x);
      value = from[int64_t{c} * step_c + int64_t{y} * step_y + int64_t{x} * step_x];
    }
    shared[c * row + b] = value;
  }
  __syncthreads();
  word_t* to =
      static_cast<word_t*>(copy.data) + (int64_t{rest} * bins + bin) * copy.pitch + channel;
  const Divider by_channel(channels);
  const int pitch = static_cast<int>(copy.pitch);
#pragma unroll 4
  for (int i = threadIdx.x; i < channels * count; i += kPlanThreads) {
    int c = i;
    const int b = by_channel.split(&c);
    to[b * pitch + c] = shared[c * row + b];
  }
}

// T: of the boxes; word_t: as wide as an element of the crops.
template <typename T, typename word_t>
__global__ void __launch_bounds__(kPlanThreads)
    separable_plan(const __grid_constant__ SeparableArgs args, const WindowLists lists,
                   const CropCopy copy) {
  if (blockIdx.x < args.images * args.levels) return list_windows<T>(args, lists);
  copy_crops<word_t>(args, copy);
}

}  // namespace segroi::cuda
