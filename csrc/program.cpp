#include "program.hpp"

#include <memory>

namespace py = pybind11;

namespace stapes {
namespace {

thread_local Program* being_made = nullptr;

// Also where the function throws.
class Making {
 public:
  explicit Making(Program* program) : outer_(being_made) { being_made = program; }
  Making(const Making&) = delete;
  Making& operator=(const Making&) = delete;
  ~Making() { being_made = outer_; }

 private:
  Program* outer_;
};

constexpr const char* kCapsule = "stapes.Program";

}  // namespace

Program::Program(const Function& function) {
  const Making making(this);
  function();
}

Program* Program::recording() { return being_made; }

void Program::run() const {
  for (const auto& call : calls_) call();
}

void Program::keep(py::handle array) { arrays_.push_back(py::reinterpret_borrow<py::object>(array)); }

void Program::add(const AnyFunction& function, const Arguments& args, const NamedArguments& kwargs) {
  calls_.emplace_back([=] {
    const py::gil_scoped_acquire gil;
    function(*args, **kwargs);
  });
}

py::capsule record(const Function& function) {
  auto program = std::make_unique<Program>(function);
  py::capsule capsule(program.get(), kCapsule, [](void* p) { delete static_cast<Program*>(p); });
  static_cast<void>(program.release());  // the capsule's now
  return capsule;
}

void note(const AnyFunction& function, const Arguments& args, const NamedArguments& kwargs) {
  if (Program* program = Program::recording()) program->add(function, args, kwargs);
}

void replay(const py::capsule& program) {
  if (program.name() == nullptr || std::string_view(program.name()) != kCapsule) {
    throw py::type_error("replay: program must come from record");
  }
  const Program* made = program.get_pointer<Program>();
  const py::gil_scoped_release no_gil;
  made->run();
}

}  // namespace stapes
