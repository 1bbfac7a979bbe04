// Programs: operators that were called once, with the same arrays and numbers again and again, without Python between
// them. What a CUDA graph is to a GPU.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <functional>
#include <tuple>
#include <vector>

namespace stapes {

// As stubs name them.
using Function = pybind11::typing::Callable<void()>;
using AnyFunction = pybind11::typing::Callable<pybind11::object(pybind11::ellipsis)>;
using Arguments = pybind11::typing::Tuple<pybind11::object, pybind11::ellipsis>;
using NamedArguments = pybind11::typing::Dict<pybind11::str, pybind11::object>;

class Program {
 public:
  // Notes what operators this thread calls while `function` runs; they do their work as ever.
  explicit Program(const Function& function);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() = default;

  // The one that is being made by this thread, or null.
  static Program* recording();

  // Does all calls again, in order, up to one that throws.
  void run() const;

  // Arguments are kept as values, and so as addresses of arrays; `keep` the arrays as well.
  template <class... Args>
  void add(void (*op)(Args...), const std::decay_t<Args>&... args) {
    calls_.push_back([op, kept = std::tuple<std::decay_t<Args>...>(args...)] { std::apply(op, kept); });
  }
  void keep(pybind11::handle array);

  // A function of Python's.
  void add(const AnyFunction& function, const Arguments& args, const NamedArguments& kwargs);

 private:
  std::vector<std::function<void()>> calls_;
  std::vector<pybind11::object> arrays_;
};

// Binds an operator: its arguments are viewed with the GIL held, its work is done without it, and noted if a program is
// being made.
template <class... Args, class... Extra>
void def_operator(pybind11::module_& m, const char* name, void (*op)(Args...), const Extra&... extra) {
  m.def(
      name,
      [op](Args... args) {
        op(args...);
        if (Program* program = Program::recording()) program->add(op, args...);
      },
      extra..., pybind11::call_guard<pybind11::gil_scoped_release>());
}

// _core.record(function), _core.replay(program), and _core.note(function, args, kwargs): a call that this thread has
// just done, for a program that is being made, if any.
pybind11::capsule record(const Function& function);
void note(const AnyFunction& function, const Arguments& args, const NamedArguments& kwargs);
void replay(const pybind11::capsule& program);

}  // namespace stapes
