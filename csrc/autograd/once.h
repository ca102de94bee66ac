// Operators that can be differentiated once: what their backward operators do under autograd.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <functional>
#include <string>
#include <tuple>
#include <vector>

namespace segroi {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Calls the operator below autograd.
template <typename Signature, typename... Args>
auto call_below(const c10::TypedOperatorHandle<Signature>& op, Args&&... args) {
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(std::forward<Args>(args)...);
}

template <typename Signature>
c10::TypedOperatorHandle<Signature> find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Signature>();
}

// Options of an operator (a std::tuple) for the way from forward to backward. Lists become tuples:
// compiled autograd wants to hash what is saved.
template <typename T>
c10::IValue keep(const T& value) {
  return value;
}
template <typename T>
c10::IValue keep(const std::vector<T>& values) {
  return c10::ivalue::Tuple::create(std::vector<c10::IValue>(values.begin(), values.end()));
}
template <typename... Ts>
c10::IValue keep(const std::tuple<Ts...>& options) {
  return std::apply(
      [](const auto&... option) {
        return c10::ivalue::Tuple::create(std::vector<c10::IValue>{keep(option)...});
      },
      options);
}

template <typename T>
struct Kept {
  static T get(const c10::IValue& value) { return value.to<T>(); }
};
template <typename T>
struct Kept<std::vector<T>> {
  static std::vector<T> get(const c10::IValue& value) {
    std::vector<T> values;
    for (const c10::IValue& one : value.toTupleRef().elements()) values.push_back(one.to<T>());
    return values;
  }
};
template <typename... Ts>
struct Kept<std::tuple<Ts...>> {
  static std::tuple<Ts...> get(const c10::IValue& value) {
    const auto& elements = value.toTupleRef().elements();
    size_t i = 0;
    return {Kept<Ts>::get(elements[i++])...};
  }
};

// The results of run(), which depend on the tensors in a way that nobody can differentiate.
struct Once : torch::autograd::Function<Once> {
  static variable_list forward(AutogradContext* ctx, at::TensorList, const std::string& op,
                               const std::function<variable_list()>& run) {
    ctx->saved_data["op"] = op;
    return run();
  }
  static variable_list backward(AutogradContext* ctx, const variable_list&) {
    const std::string op = ctx->saved_data["op"].toStringRef();
    TORCH_CHECK(false, op, ": it can be differentiated once; segroi.ops.reference.", op,
                " can be twice");
  }
};

}  // namespace segroi
