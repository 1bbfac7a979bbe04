// Every function of stapes._core; operators by def_operator (program.hpp).
#include "array_view.hpp"
#include "cpu/isa.hpp"
#include "cpu/threads.hpp"
#include "cupy_memory.hpp"
#include "ops/ops.hpp"
#include "program.hpp"

namespace py = pybind11;
using py::arg;

namespace {

using NoGil = py::call_guard<py::gil_scoped_release>;

void translate(std::exception_ptr p) {  // NOLINT(performance-unnecessary-value-param): pybind11 asks for it
  try {
    if (p) std::rethrow_exception(p);
  } catch (const stapes::TypeError& e) {
    PyErr_SetString(PyExc_TypeError, e.what());
  }
}

}  // namespace

PYBIND11_MODULE(STAPES_MODULE, m) {
  using namespace stapes;
  m.doc() = "The operators of stapes, in C++. Use stapes.ops, which allocates outputs.";
  py::register_exception_translator(translate);

  m.attr("__version__") = STAPES_VERSION;
  m.def("isa", [] { return cpu::name_of(cpu::active_isa()); });
  m.def("cuda_reason", [] {
    if constexpr (cuda::kBuiltIn) {
      return cuda::unavailable_reason();
    } else {
      return std::string(cuda::kNotBuiltIn);
    }
  });
  m.def("num_threads", &cpu::num_threads);
  m.def("set_num_threads", &cpu::set_num_threads, arg("n"));

  m.def("record", &record, arg("function"));
  m.def("note", &note, arg("function"), arg("args"), arg("kwargs"));
  m.def("replay", &replay, arg("program"));

  m.def("fma_peak", &ops::fma_peak, arg("steps"), arg("float64"), NoGil());

  m.def("conv2d_fwd_shape", &ops::conv2d_fwd_shape, arg("op"), arg("x_shape"), arg("w_shape"), arg("stride"),
        arg("padding").none(true), arg("dilation"), arg("groups"));
  def_operator(m, "conv2d_fwd", &ops::conv2d_fwd, arg("x"), arg("w"), arg("b").none(true), arg("y"), arg("stride"),
               arg("padding").none(true), arg("dilation"), arg("groups"), arg("relu"), arg("precision"));
  def_operator(m, "conv2d_dgrad", &ops::conv2d_dgrad, arg("dy"), arg("w"), arg("dx"), arg("stride"),
               arg("padding").none(true), arg("dilation"), arg("groups"), arg("precision"));
  def_operator(m, "conv2d_wgrad", &ops::conv2d_wgrad, arg("dy"), arg("x"), arg("dw"), arg("stride"),
               arg("padding").none(true), arg("dilation"), arg("groups"), arg("precision"));
  def_operator(m, "conv2d_bgrad", &ops::conv2d_bgrad, arg("dy"), arg("db"));

  m.def("conv2d_relu_max_pool2d_shape", &ops::conv2d_relu_max_pool2d_shape, arg("x_shape"), arg("w_shape"), arg("pool"),
        arg("stride"), arg("padding").none(true));
  def_operator(m, "conv2d_relu_max_pool2d_fwd", &ops::conv2d_relu_max_pool2d_fwd, arg("x"), arg("w"),
               arg("b").none(true), arg("y"), arg("argmax"), arg("pool"), arg("stride"), arg("padding").none(true),
               arg("precision"));
  def_operator(m, "conv2d_relu_max_pool2d_bwd", &ops::conv2d_relu_max_pool2d_bwd, arg("dy"), arg("argmax"), arg("x"),
               arg("w"), arg("dx").none(true), arg("dw"), arg("db"), arg("pool"), arg("stride"),
               arg("padding").none(true), arg("precision"));

  m.def("conv_transpose2d_fwd_shape", &ops::conv_transpose2d_fwd_shape, arg("x_shape"), arg("w_shape"), arg("stride"),
        arg("padding").none(true), arg("output_padding"));
  def_operator(m, "conv_transpose2d_fwd", &ops::conv_transpose2d_fwd, arg("x"), arg("w"), arg("b").none(true), arg("y"),
               arg("stride"), arg("padding").none(true), arg("output_padding"), arg("precision"));
  def_operator(m, "conv_transpose2d_dgrad", &ops::conv_transpose2d_dgrad, arg("dy"), arg("w"), arg("dx"), arg("stride"),
               arg("padding").none(true), arg("output_padding"), arg("precision"));
  def_operator(m, "conv_transpose2d_wgrad", &ops::conv_transpose2d_wgrad, arg("dy"), arg("x"), arg("dw"), arg("stride"),
               arg("padding").none(true), arg("output_padding"), arg("precision"));

  def_operator(m, "linear_fwd", &ops::linear_fwd, arg("x"), arg("w"), arg("b").none(true), arg("y"), arg("relu"),
               arg("precision"));
  def_operator(m, "linear_dgrad", &ops::linear_dgrad, arg("dy"), arg("w"), arg("dx"), arg("precision"));
  def_operator(m, "linear_wgrad", &ops::linear_wgrad, arg("dy"), arg("x"), arg("dw"), arg("precision"));
  def_operator(m, "linear_bgrad", &ops::linear_bgrad, arg("dy"), arg("db"));

  def_operator(m, "relu_fwd", &ops::relu_fwd, arg("x"), arg("y"));
  def_operator(m, "relu_bwd", &ops::relu_bwd, arg("dy"), arg("y"), arg("dx"));

  def_operator(m, "batch_norm2d_fwd", &ops::batch_norm2d_fwd, arg("x"), arg("gamma"), arg("beta"), arg("running_mean"),
               arg("running_var"), arg("training"), arg("momentum"), arg("eps"), arg("y"), arg("mean"), arg("rstd"));
  def_operator(m, "batch_norm2d_bwd", &ops::batch_norm2d_bwd, arg("dy"), arg("x"), arg("gamma"), arg("mean"),
               arg("rstd"), arg("training"), arg("dx"), arg("dgamma"), arg("dbeta"));
  m.def("batch_norm2d_relu_max_pool2d_shape", &ops::batch_norm2d_relu_max_pool2d_shape, arg("x_shape"), arg("pool"));
  def_operator(m, "batch_norm2d_relu_max_pool2d_fwd", &ops::batch_norm2d_relu_max_pool2d_fwd, arg("x"), arg("gamma"),
               arg("beta"), arg("running_mean"), arg("running_var"), arg("pool"), arg("training"), arg("momentum"),
               arg("eps"), arg("y"), arg("argmax"), arg("mean"), arg("rstd"));
  def_operator(m, "batch_norm2d_relu_max_pool2d_bwd", &ops::batch_norm2d_relu_max_pool2d_bwd, arg("dy"), arg("argmax"),
               arg("x"), arg("gamma"), arg("mean"), arg("rstd"), arg("pool"), arg("training"), arg("dx"), arg("dgamma"),
               arg("dbeta"));
  def_operator(m, "batch_norm2d_relu_global_avg_pool2d_fwd", &ops::batch_norm2d_relu_global_avg_pool2d_fwd, arg("x"),
               arg("gamma"), arg("beta"), arg("running_mean"), arg("running_var"), arg("training"), arg("momentum"),
               arg("eps"), arg("y"), arg("norm"), arg("alive"));
  def_operator(m, "batch_norm2d_relu_global_avg_pool2d_bwd", &ops::batch_norm2d_relu_global_avg_pool2d_bwd, arg("dy"),
               arg("x"), arg("gamma"), arg("norm"), arg("alive"), arg("training"), arg("dx"), arg("dgamma"),
               arg("dbeta"));
  def_operator(m, "batch_norm2d_relu_conv2d_fwd", &ops::batch_norm2d_relu_conv2d_fwd, arg("x"), arg("gamma"),
               arg("beta"), arg("running_mean"), arg("running_var"), arg("w"), arg("b").none(true), arg("training"),
               arg("momentum"), arg("eps"), arg("y"), arg("norm"), arg("stride"), arg("padding").none(true),
               arg("dilation"), arg("groups"), arg("precision"));
  def_operator(m, "batch_norm2d_relu_conv2d_bwd", &ops::batch_norm2d_relu_conv2d_bwd, arg("dy"), arg("x"), arg("gamma"),
               arg("norm"), arg("w"), arg("training"), arg("dx"), arg("dgamma"), arg("dbeta"), arg("dw"),
               arg("db").none(true), arg("stride"), arg("padding").none(true), arg("dilation"), arg("groups"),
               arg("precision"));
  def_operator(m, "batch_norm2d_relu_conv2d_chain_fwd", &ops::batch_norm2d_relu_conv2d_chain_fwd, arg("x"),
               arg("blocks"), arg("precision"));
  def_operator(m, "batch_norm2d_relu_conv2d_chain_bwd", &ops::batch_norm2d_relu_conv2d_chain_bwd, arg("dy"), arg("x"),
               arg("blocks"), arg("dx"), arg("precision"));
  m.def("conv2d_batch_norm2d_relu_max_pool2d_shape", &ops::conv2d_batch_norm2d_relu_max_pool2d_shape, arg("x_shape"),
        arg("w_shape"), arg("pool"), arg("stride"), arg("padding").none(true));
  def_operator(m, "conv2d_batch_norm2d_relu_max_pool2d_fwd", &ops::conv2d_batch_norm2d_relu_max_pool2d_fwd, arg("x"),
               arg("w"), arg("b").none(true), arg("gamma"), arg("beta"), arg("running_mean"), arg("running_var"),
               arg("training"), arg("momentum"), arg("eps"), arg("y"), arg("argmax"), arg("mean"), arg("rstd"),
               arg("pool"), arg("stride"), arg("padding").none(true), arg("precision"));
  def_operator(m, "conv2d_batch_norm2d_relu_max_pool2d_bwd", &ops::conv2d_batch_norm2d_relu_max_pool2d_bwd, arg("dy"),
               arg("argmax"), arg("x"), arg("w"), arg("b").none(true), arg("gamma"), arg("mean"), arg("rstd"),
               arg("training"), arg("dw"), arg("dgamma"), arg("dbeta"), arg("db").none(true), arg("pool"),
               arg("stride"), arg("padding").none(true), arg("precision"));

  def_operator(m, "cross_entropy_fwd", &ops::cross_entropy_fwd, arg("logits"), arg("target"), arg("weight").none(true),
               arg("label_smoothing"), arg("ignore_index"), arg("grad_scale"), arg("loss"), arg("dlogits"));
  def_operator(m, "cross_entropy_bwd", &ops::cross_entropy_bwd, arg("saved"), arg("scale"), arg("dlogits"));
  def_operator(m, "mse_fwd", &ops::mse_fwd, arg("y"), arg("target"), arg("loss"));
  def_operator(m, "mse_bwd", &ops::mse_bwd, arg("y"), arg("target"), arg("scale"), arg("dy"));

  def_operator(m, "sgd_step", &ops::sgd_step, arg("params"), arg("grads"), arg("velocity"), arg("copies"), arg("lr"),
               arg("momentum"), arg("nesterov"), arg("weight_decay"), arg("grad_scale"), arg("found_inf").none(true));
  def_operator(m, "adam_step", &ops::adam_step, arg("params"), arg("grads"), arg("m"), arg("v"), arg("copies"),
               arg("step"), arg("lr"), arg("beta1"), arg("beta2"), arg("eps"), arg("weight_decay"), arg("decoupled"),
               arg("grad_scale"), arg("found_inf").none(true));
  def_operator(m, "find_inf", &ops::find_inf, arg("grads"), arg("found_inf"));
  def_operator(m, "update_scale", &ops::update_scale, arg("scale"), arg("good_steps"), arg("found_inf"),
               arg("step").none(true), arg("growth_factor"), arg("backoff_factor"), arg("growth_interval"));

  def_operator(m, "cast", &ops::cast, arg("x"), arg("y"));

  m.def("argmax_dtype", [](Pair kernel) { return name_of(argmax_dtype(kernel)); }, arg("kernel"));
  m.def("pool2d_shape", &pool2d_shape, arg("op"), arg("x"), arg("kernel"), arg("stride"), arg("padding"));
  def_operator(m, "max_pool2d_fwd", &ops::max_pool2d_fwd, arg("x"), arg("y"), arg("argmax"), arg("kernel"),
               arg("stride"), arg("padding"));
  def_operator(m, "max_pool2d_bwd", &ops::max_pool2d_bwd, arg("dy"), arg("argmax"), arg("dx"), arg("x_shape"),
               arg("kernel"), arg("stride"), arg("padding"));
  def_operator(m, "avg_pool2d_fwd", &ops::avg_pool2d_fwd, arg("x"), arg("y"), arg("kernel"), arg("stride"),
               arg("padding"), arg("count_include_pad"));
  def_operator(m, "avg_pool2d_bwd", &ops::avg_pool2d_bwd, arg("dy"), arg("dx"), arg("x_shape"), arg("kernel"),
               arg("stride"), arg("padding"), arg("count_include_pad"));
  m.def("global_pool2d_shape", &global_pool2d_shape, arg("op"), arg("x"));
  def_operator(m, "global_avg_pool2d_fwd", &ops::global_avg_pool2d_fwd, arg("x"), arg("y"));
  def_operator(m, "global_avg_pool2d_bwd", &ops::global_avg_pool2d_bwd, arg("dy"), arg("dx"), arg("x_shape"));

  m.def("upsample2d_shape", &upsample2d_shape, arg("op"), arg("x"), arg("scale"));
  m.def("downsample2d_shape", &downsample2d_shape, arg("op"), arg("dy"), arg("scale"));
  def_operator(m, "upsample2d_fwd", &ops::upsample2d_fwd, arg("x"), arg("y"), arg("scale"));
  def_operator(m, "upsample2d_bwd", &ops::upsample2d_bwd, arg("dy"), arg("dx"), arg("scale"));

  def_operator(m, "softmax_fwd", &ops::softmax_fwd, arg("x"), arg("y"));
  def_operator(m, "softmax_bwd", &ops::softmax_bwd, arg("dy"), arg("y"), arg("dx"));

  def_operator(m, "dropout_fwd", &ops::dropout_fwd, arg("x"), arg("y"), arg("p"), arg("seed"), arg("offset"));
  def_operator(m, "dropout_bwd", &ops::dropout_bwd, arg("dy"), arg("dx"), arg("p"), arg("seed"), arg("offset"));

  def_operator(m, "log_mel", &ops::log_mel, arg("x"), arg("window"), arg("roots"), arg("bins"), arg("weights"),
               arg("y"), arg("hop_length"), arg("offset"), arg("padding"), arg("remove_mean"), arg("preemphasis"),
               arg("floor"), arg("decibels"));

  use_cupy_memory();
  cpu::active_isa();  // a wrong STAPES_ISA fails the import, not the first operator
}
