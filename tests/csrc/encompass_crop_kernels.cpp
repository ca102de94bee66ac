// Runs the CUDA kernels of encompass_crop on the CPU for test_encompass_crop_kernels.py.
#include "cuda_emulation.h"

#include "cuda/encompass_crop.cuh"

using namespace segroi;

namespace {

struct Problem {
  const int64_t *cells, *image, *source, *offsets;
  int64_t boxes, images, grid_h, grid_w, factor, channels, channels_last;
  int64_t stacks;
  const int64_t* shapes;  // h, w, rows of each stack
  int64_t packed_total;
};

CropBoxes boxes_of(const Problem& p, int64_t* error) {
  return {p.cells, p.image,         p.source, p.offsets, p.boxes, {p.images, p.grid_h, p.grid_w},
          error,   int64_t{3} << 48};
}

// `per` elements make a unit.
CropGroups groups_of(const Problem& p, const void* map, void* const* crops, int64_t per) {
  CropGroups groups = {};
  const int64_t h = p.grid_h * p.factor, w = p.grid_w * p.factor, c = p.channels / per;
  int64_t rows = 0;
  for (int64_t s = 0; s < p.stacks; ++s) {
    CropGroup g = {};
    g.map = map;
    g.out = crops[s];
    g.image_stride = h * w * c;
    g.plane_stride = p.channels_last ? 0 : h * w;
    g.line_stride = p.channels_last ? w * c : w;
    g.planes = p.channels_last ? 1 : c;
    g.pixel = p.channels_last ? c : 1;
    g.factor = p.factor;
    g.h = p.shapes[3 * s], g.w = p.shapes[3 * s + 1], g.rows = p.shapes[3 * s + 2];
    g.first_row = g.first_job = rows;
    g.packed_plane = p.packed_total * p.factor * p.factor;
    rows += g.rows;
    groups.group[groups.count++] = g;
  }
  return groups;
}

template <typename Unit, int kPack>
void crop(const Problem& p, const CropGroups& groups, int order, int64_t* error) {
  const CropGroup& last = groups.group[groups.count - 1];
  const unsigned jobs = last.first_job + last.rows;
  const CropBoxes boxes = boxes_of(p, error);
  emulation::launch(dim3(jobs, 3), dim3(kCropThreads), 0, order,
                    [&] { encompass_crop_kernel<Unit, kPack>(groups, boxes); });
}

}  // namespace

extern "C" {

void crop_floats(const Problem* p, const float* map, void* const* crops, int wide, int order,
                 int64_t* error) {
  struct alignas(8) Two {
    float v[2];
  };
  if (!wide) return crop<float, 1>(*p, groups_of(*p, map, crops, 1), order, error);
  if (p->channels_last) return crop<Two, 1>(*p, groups_of(*p, map, crops, 2), order, error);
  crop<float, 4>(*p, groups_of(*p, map, crops, 1), order, error);
}

void grad_floats(const Problem* p, float* map, void* const* crops, int order) {
  const CropGroups groups = groups_of(*p, map, crops, 1);
  const CropBoxes boxes = boxes_of(*p, nullptr);
  const int64_t band = p->channels * p->factor * p->factor * p->grid_w;
  const dim3 grid(p->images * p->grid_h, (band + 1023) / 1024, 1);
  emulation::launch(grid, dim3(kCropThreads), 0, order,
                    [&] { encompass_crop_grad_kernel<float, float>(groups, boxes); });
}

void cells_of_floats(const float* boxes, int64_t count, double h, double w, int64_t gh, int64_t gw,
                     int64_t* cells, int64_t* error) {
  emulation::launch(dim3((count + 255) / 256), dim3(256), 0, 0, [&] {
    encompassing_boxes_kernel<float>(boxes, count, h, w, gh, gw, cells, error, int64_t{3} << 48);
  });
}

void rows_of_boxes(const int64_t* branch, int64_t count, const int64_t* first, int stacks,
                   int64_t* source, int64_t* error) {
  StackRows rows = {};
  rows.count = stacks;
  for (int s = 0; s <= stacks; ++s) rows.first[s] = first[s];
  emulation::launch(dim3((count + 255) / 256), dim3(256), 0, 2, [&] {
    stack_rows_kernel(branch, count, rows, source, error, int64_t{3} << 48);
  });
}
}
