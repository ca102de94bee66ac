// Integer crops: copies of byte ranges with zero padding, for every element type, in both layouts.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "cpu/encompass_windows.h"
#include "cpu/pages.h"
#include "cpu/streaming.h"

namespace segroi {
namespace {

constexpr int64_t kSliceBytes = 64 << 10;  // output of one task, about
constexpr int64_t kNarrowRow = 512;        // bytes; narrower rows are assembled in a buffer
constexpr int64_t kBufferBytes = 16 << 10;

// Part of one crop, in bytes. NCHW: `planes` channels of `rows` pixel rows. NHWC: one plane, whose
// pixels are C elements wide.
struct Slice {
  const char* src;
  char* dst;
  int64_t src_plane, src_row, dst_plane;
  int64_t planes, rows, row_bytes;  // to copy
  int64_t out_rows, out_row_bytes;  // to write; the rest is zero
};

// As memcpy for bytes >= N, without the call.
template <int N>
inline void copy_short(char* dst, const char* src, int64_t bytes) {
  int64_t i = 0;
  for (; i + N <= bytes; i += N) std::memcpy(dst + i, src + i, N);
  if (i < bytes) std::memcpy(dst + bytes - N, src + bytes - N, N);
}

template <int N>
void copy_rows(const Slice& s, int64_t plane, char* buffer) {
  const char* src = s.src + plane * s.src_plane;
  for (int64_t y = 0; y < s.rows; ++y) {
    copy_short<N>(buffer + y * s.out_row_bytes, src + y * s.src_row, s.row_bytes);
  }
}

using CopyRows = void (*)(const Slice&, int64_t, char*);
CopyRows narrow_copy(int64_t row_bytes) {
  if (row_bytes >= 16) return copy_rows<16>;
  if (row_bytes >= 8) return copy_rows<8>;
  if (row_bytes >= 4) return copy_rows<4>;
  return row_bytes >= 2 ? copy_rows<2> : copy_rows<1>;
}

template <bool kStream>
void write_wide(const Slice& s) {
  for (int64_t p = 0; p < s.planes; ++p) {
    const char* src = s.src + p * s.src_plane;
    char* dst = s.dst + p * s.dst_plane;
    for (int64_t y = 0; y < s.rows; ++y, dst += s.out_row_bytes) {
      copy_bytes<kStream>(dst, src + y * s.src_row, s.row_bytes);
      zero_bytes<kStream>(dst + s.row_bytes, s.out_row_bytes - s.row_bytes);
    }
    zero_bytes<kStream>(dst, (s.out_rows - s.rows) * s.out_row_bytes);
  }
}

// Planes are put together in a buffer that stays in L1, whose padding is zeroed only once.
template <bool kStream>
void write_narrow(const Slice& s) {
  const int64_t plane_bytes = s.out_rows * s.out_row_bytes;
  if (plane_bytes > kBufferBytes) return write_wide<kStream>(s);
  const int64_t dense = s.dst_plane == plane_bytes ? kBufferBytes / plane_bytes : 1;
  const int64_t group = std::min(dense, s.planes);
  alignas(64) char buffer[kBufferBytes];
  std::memset(buffer, 0, group * plane_bytes);
  const CopyRows copy = narrow_copy(s.row_bytes);
  for (int64_t p = 0; p < s.planes; p += group) {
    const int64_t n = std::min(group, s.planes - p);
    for (int64_t i = 0; i < n; ++i) copy(s, p + i, buffer + i * plane_bytes);
    copy_bytes<kStream>(s.dst + p * s.dst_plane, buffer, n * plane_bytes);
  }
}

template <bool kStream>
void write_slice(const Slice& s) {
  if (s.rows == 0) {
    for (int64_t p = 0; p < s.planes; ++p) {
      zero_bytes<kStream>(s.dst + p * s.dst_plane, s.out_rows * s.out_row_bytes);
    }
  } else if (s.row_bytes < kNarrowRow) {
    write_narrow<kStream>(s);
  } else {
    write_wide<kStream>(s);
  }
}

// Cuts a crop into tasks: by channels (NCHW) or by rows (NHWC).
void add_slices(const Slice& crop, std::vector<Slice>* slices) {
  const bool by_plane = crop.planes > 1;
  const int64_t units = by_plane ? crop.planes : crop.out_rows;
  const int64_t unit_bytes =
      std::max<int64_t>(1, crop.out_row_bytes * (by_plane ? crop.out_rows : 1));
  const int64_t step = std::max<int64_t>(1, kSliceBytes / unit_bytes);
  for (int64_t u = 0; u < units; u += step) {
    Slice s = crop;
    const int64_t n = std::min(step, units - u);
    if (by_plane) {
      s.src += u * crop.src_plane;
      s.dst += u * crop.dst_plane;
      s.planes = n;
    } else {
      s.src += u * crop.src_row;
      s.dst += u * crop.out_row_bytes;
      s.rows = std::clamp<int64_t>(crop.rows - u, 0, n);
      s.out_rows = n;
    }
    slices->push_back(s);
  }
}

// The crop of `map` in window w, written to dst as out_h x out_w px; planes lie dst_plane px apart.
Slice crop_of(const at::Tensor& map, const CropPlan& plan, int64_t factor, const CropWindow& w,
              char* dst, int64_t out_h, int64_t out_w, int64_t dst_plane) {
  const int64_t element = map.element_size();
  const int64_t pixel = plan.channels_last ? map.size(1) * element : element;
  const int64_t offset =
      w.image * map.stride(0) + w.y * factor * map.stride(2) + w.x * factor * map.stride(3);
  const char* base = static_cast<const char*>(map.const_data_ptr());
  return {w.h > 0 ? base + offset * element : base,
          dst,
          map.stride(1) * element,
          map.stride(2) * element,
          dst_plane * element,
          plan.channels_last ? 1 : map.size(1),
          w.h * factor,
          w.w * factor * pixel,
          out_h,
          out_w * pixel};
}

void write_slices(const std::vector<Slice>& slices, int64_t bytes) {
  const bool stream = bytes >= kStreamBytes;
  at::parallel_for(0, slices.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      stream ? write_slice<true>(slices[i]) : write_slice<false>(slices[i]);
    }
    if (stream) stream_fence();
  });
}

// Maps whose pixels are adjacent in memory, as the layout wants; other strides are read as they
// are.
std::vector<at::Tensor> readable(at::TensorList maps, bool channels_last) {
  std::vector<at::Tensor> out;
  for (const at::Tensor& m : maps) {
    out.push_back(channels_last || m.stride(3) == 1 ? m : m.contiguous());
  }
  return out;
}

void write_crops(at::TensorList features, const CropPlan& plan, const Boxes& boxes,
                 const at::Tensor& source, at::TensorList out) {
  const std::vector<at::Tensor> maps = readable(features, plan.channels_last);
  const std::vector<CropWindow> windows = row_windows(plan, boxes, source);
  std::vector<Slice> slices;
  int64_t bytes = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const CropStack& stack = plan.stacks[i / maps.size()];
    const at::Tensor &map = maps[i % maps.size()], &crops = out[i];
    char* dst = static_cast<char*>(crops.mutable_data_ptr());
    const int64_t h = crops.size(2), w = crops.size(3),
                  row_bytes = map.size(1) * h * w * map.element_size();
    for (int64_t r = 0; r < stack.rows; ++r) {
      add_slices(crop_of(map, plan, plan.factors[i % maps.size()], windows[stack.first + r],
                         dst + r * row_bytes, h, w, h * w),
                 &slices);
    }
    bytes += crops.nbytes();
  }
  write_slices(slices, bytes);
}

CropPlan plan_crops(at::TensorList features, const Boxes& boxes, const at::Tensor& source,
                    at::IntArrayRef shapes, at::IntArrayRef rows, at::IntArrayRef grid) {
  const char* op = "encompass_crop";
  CropPlan plan = plan_grid(op, map_sizes(op, features), grid);
  plan_stacks(op, &plan, shapes, rows);
  check_boxes(op, boxes.cells, boxes.image, features[0].device());
  check_rows(op, source, plan, features[0].device());
  plan.channels_last = all_channels_last(features);
  return plan;
}

at::Tensor fresh(at::IntArrayRef size, const CropPlan& plan, const at::Tensor& like) {
  return empty_large(size, plan.format(), like.options());
}

std::vector<at::Tensor> encompass_crop(at::TensorList features, const at::Tensor& cells,
                                       const at::Tensor& batch_index, const at::Tensor& source,
                                       at::IntArrayRef shapes, at::IntArrayRef rows,
                                       at::IntArrayRef grid, bool zero_invalid) {
  const Boxes boxes{cells.contiguous(), batch_index.contiguous(), zero_invalid};
  const CropPlan plan = plan_crops(features, boxes, source, shapes, rows, grid);
  std::vector<at::Tensor> out;
  for (const CropStack& stack : plan.stacks) {
    for (size_t m = 0; m < features.size(); ++m) {
      out.push_back(fresh(plan.size(stack, m, features[m].size(1)), plan, features[m]));
    }
  }
  write_crops(features, plan, boxes, source.contiguous(), out);
  return out;
}

void encompass_crop_out(at::TensorList features, const at::Tensor& cells,
                        const at::Tensor& batch_index, const at::Tensor& source,
                        at::IntArrayRef shapes, at::IntArrayRef rows, at::IntArrayRef grid,
                        bool zero_invalid, at::TensorList out) {
  const Boxes boxes{cells.contiguous(), batch_index.contiguous(), zero_invalid};
  const CropPlan plan = plan_crops(features, boxes, source, shapes, rows, grid);
  check_out(features, plan, out);
  write_crops(features, plan, boxes, source.contiguous(), out);
}

std::vector<at::Tensor> encompass_crop_packed(at::TensorList features, const at::Tensor& cells,
                                              const at::Tensor& batch_index,
                                              const at::Tensor& offsets, int64_t total,
                                              at::IntArrayRef grid, bool zero_invalid) {
  const char* op = "encompass_crop_packed";
  CropPlan plan = plan_packed(op, features, cells, batch_index, offsets, total, grid);
  const Boxes boxes{cells.contiguous(), batch_index.contiguous(), zero_invalid};
  const std::vector<at::Tensor> maps = readable(features, plan.channels_last);
  const at::Tensor at = offsets.contiguous();
  const std::vector<CropWindow> windows = packed_windows(plan, boxes, at, total);
  std::vector<at::Tensor> out;
  std::vector<Slice> slices;
  int64_t bytes = 0;
  for (size_t m = 0; m < maps.size(); ++m) {
    const int64_t f = plan.factors[m], pixels = total * f * f, channels = maps[m].size(1);
    out.push_back(packed_values(plan, pixels, maps[m]));
    hint_huge_pages(out[m]);
    bytes += out[m].nbytes();
    const int64_t pixel = maps[m].element_size() * (plan.channels_last ? channels : 1);
    char* dst = static_cast<char*>(out[m].mutable_data_ptr());
    for (size_t k = 0; k < windows.size(); ++k) {
      const CropWindow& w = windows[k];
      add_slices(crop_of(maps[m], plan, f, w, dst + at.const_data_ptr<int64_t>()[k] * f * f * pixel,
                         w.h * f, w.w * f, pixels),
                 &slices);
    }
  }
  write_slices(slices, bytes);
  return out;
}

at::Tensor encompassing_boxes(const at::Tensor& boxes, at::IntArrayRef image_size,
                              at::IntArrayRef grid_size, bool zero_invalid) {
  check_encompassing(boxes, image_size, grid_size);
  const at::Tensor corners = boxes.to(at::kDouble).contiguous();
  at::Tensor cells = at::zeros({boxes.size(0), 4}, boxes.options().dtype(at::kLong));
  const double* b = corners.const_data_ptr<double>();
  int64_t* c = cells.mutable_data_ptr<int64_t>();
  for (int64_t k = 0; k < boxes.size(0); ++k, b += 4, c += 4) {
    const bool finite = std::all_of(b, b + 4, [](double v) { return std::isfinite(v); });
    TORCH_CHECK_VALUE(finite || zero_invalid, "encompassing_boxes: boxes must be finite, got box ",
                      k, " = ", boxes[k]);
    if (!finite) continue;
    const CellSpan x = encompass_span(b[0], b[2], image_size[1], grid_size[1]);
    const CellSpan y = encompass_span(b[1], b[3], image_size[0], grid_size[0]);
    c[0] = x.begin, c[1] = y.begin, c[2] = x.end, c[3] = y.end;
  }
  return cells;
}

at::Tensor stack_rows(const at::Tensor& branch, at::IntArrayRef rows, bool zero_invalid) {
  const std::vector<int64_t> first = first_rows(branch, rows);
  at::Tensor source = at::full({first.back()}, -1, branch.options());
  const at::Tensor branches = branch.contiguous();
  std::vector<int64_t> next(first.begin(), first.end() - 1);
  for (int64_t k = 0; k < branch.size(0); ++k) {
    const int64_t s = branches.const_data_ptr<int64_t>()[k];
    if (s == -1) continue;
    const bool fits = s >= 0 && s < static_cast<int64_t>(rows.size()) && next[s] < first[s + 1];
    TORCH_CHECK_VALUE(fits || zero_invalid,
                      "stack_rows: branch must name a stack with a free row, ", "got branch ", s,
                      " of box ", k, " for stacks of ", rows, " rows");
    if (fits) source.mutable_data_ptr<int64_t>()[next[s]++] = k;
  }
  return source;
}

}  // namespace

TORCH_LIBRARY_IMPL(segroi, CPU, m) {
  m.impl("encompassing_boxes", &encompassing_boxes);
  m.impl("stack_rows", &stack_rows);
  m.impl("encompass_crop", &encompass_crop);
  m.impl("encompass_crop.out", &encompass_crop_out);
  m.impl("encompass_crop_packed", &encompass_crop_packed);
}

}  // namespace segroi
