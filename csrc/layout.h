// The memory layout of a map, and of what is made from it.
#pragma once

#include <ATen/core/Tensor.h>

namespace segroi {

// Whether channels lie side by side, be they only some of a wider map's. Results and gradients then
// are channels_last, else contiguous.
inline bool is_channels_last(const at::Tensor& map) {
  return map.size(1) > 1 && map.stride(1) == 1 && !map.is_contiguous();
}

inline at::MemoryFormat layout_of(const at::Tensor& map) {
  return is_channels_last(map) ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

}  // namespace segroi
