#include <tuple>
#include <utility>

#include "core/dispatch.hpp"
#include "ops/batch_norm2d.hpp"
#include "ops/conv2d_shape.hpp"

namespace stapes::ops {
namespace {

constexpr std::size_t kOutput = 9;  // y, in NormConvFwd

BatchNorm2dReluConv2dFwdArgs checked_fwd(const char* op, const Check& check, const Tensor& x, const NormConvFwd& block,
                                         Precision precision) {
  const auto& [gamma, beta, running_mean, running_var, w, b, training, momentum, eps, y, norm, window] = block;
  const auto& [stride, padding, dilation, groups] = window;
  check_batch_norm_fwd(check, x, gamma, beta, running_mean, running_var, training, momentum, eps);
  check_kept(check, x, norm);
  check.dtype("w", w, x.dtype);
  check.precision(x, precision);
  const Conv2dShape s = conv2d_shape(op, x.shape, w.shape, stride, padding, dilation, groups);
  if (b) check.wide("b", *b, x, {s.K});
  check.matches("y", y, x, {s.N, s.window.P, s.window.Q, s.K});
  const BatchNorm2dFwdArgs norm_args =
      kept_norm_fwd(x, gamma, beta, running_mean, running_var, training, momentum, eps, nullptr, norm);
  const Conv2dFwdArgs conv{nullptr, w.data, b ? b->data : nullptr, y.data, s, false, x.dtype, precision};
  return {norm_args, norm.data, conv};
}

// dx may be null, and dy be the y that has its shape: those between blocks are not seen outside.
BatchNorm2dReluConv2dBwdArgs checked_bwd(const char* op, const Check& check, const char* dy_name, const Tensor& dy,
                                         const Tensor& x, const NormConvBwd& block, const Tensor* dx,
                                         Precision precision) {
  const auto& [gamma, norm, w, training, dgamma, dbeta, dw, db, window] = block;
  const auto& [stride, padding, dilation, groups] = window;
  check_batch_norm_bwd(check, x, gamma, dx == nullptr ? x : *dx, dgamma, dbeta);
  check_kept(check, x, norm);
  check.dtype("w", w, x.dtype);
  check.precision(x, precision);
  const Conv2dShape s = conv2d_shape(op, x.shape, w.shape, stride, padding, dilation, groups);
  check.matches(dy_name, dy, x, {s.N, s.window.P, s.window.Q, s.K});
  check.wide("dw", dw, x, w.shape);
  if (db) check.wide("db", *db, x, {s.K});
  void* to = dx == nullptr ? nullptr : dx->data;
  const BatchNorm2dBwdArgs norm_args = kept_norm_bwd(nullptr, x, gamma, norm, training, to, dgamma, dbeta);
  const Conv2dDgradArgs conv{dy.data, w.data, nullptr, to, s, x.dtype, precision};
  return {norm_args, norm.data, conv, dw.data, db ? db->data : nullptr};
}

void add_args(std::vector<Arg>& all, const NormConvFwd& block) {
  const auto& [gamma, beta, running_mean, running_var, w, b, training, momentum, eps, y, norm, window] = block;
  const Role running = training ? Role::kOut : Role::kIn;
  all.insert(all.end(),
             {in("gamma", gamma), in("beta", beta), Arg{"running_mean", &running_mean, running},
              Arg{"running_var", &running_var, running}, in("w", w), in("b", b), out("y", y), out("norm", norm)});
}

void add_args(std::vector<Arg>& all, const NormConvBwd& block) {
  const auto& [gamma, norm, w, training, dgamma, dbeta, dw, db, window] = block;
  all.insert(all.end(), {in("gamma", gamma), in("norm", norm), in("w", w), out("dgamma", dgamma), out("dbeta", dbeta),
                         out("dw", dw), out("db", db)});
}

template <class Block>
std::vector<Arg> with_args(std::vector<Arg> maps, const Block& block) {
  add_args(maps, block);
  return maps;
}

// What is wrong with a block is told of it alone; that arrays of several overlap, of all.
std::string name_of_block(const char* op, std::size_t i) { return cat(op, ", block ", i); }

void require_blocks(const char* op, std::size_t blocks) {
  if (blocks == 0) throw std::invalid_argument(cat(op, ": there must be at least 1 block, got 0"));
}

}  // namespace

void batch_norm2d_relu_conv2d_fwd(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                                  const Tensor& running_var, const Tensor& w, const OptionalTensor& b, bool training,
                                  double momentum, double eps, const Tensor& y, const Tensor& norm, Pair stride,
                                  const Padding& padding, Pair dilation, std::int64_t groups, Precision precision) {
  const char* op = "batch_norm2d_relu_conv2d_fwd";
  const NormConvFwd block{gamma,    beta,     running_mean, running_var, w,    b,
                          training, momentum, eps,          y,           norm, {stride, padding, dilation, groups}};
  const Check check(op, with_args({in("x", x)}, block));
  run<cpu::batch_norm2d_relu_conv2d_fwd, cuda::batch_norm2d_relu_conv2d_fwd>(
      op, x, checked_fwd(op, check, x, block, precision));
}

void batch_norm2d_relu_conv2d_bwd(const Tensor& dy, const Tensor& x, const Tensor& gamma, const Tensor& norm,
                                  const Tensor& w, bool training, const Tensor& dx, const Tensor& dgamma,
                                  const Tensor& dbeta, const Tensor& dw, const OptionalTensor& db, Pair stride,
                                  const Padding& padding, Pair dilation, std::int64_t groups, Precision precision) {
  const char* op = "batch_norm2d_relu_conv2d_bwd";
  const NormConvBwd block{gamma, norm, w, training, dgamma, dbeta, dw, db, {stride, padding, dilation, groups}};
  const Check check(op, with_args({in("dy", dy), in("x", x), out("dx", dx)}, block));
  run<cpu::batch_norm2d_relu_conv2d_bwd, cuda::batch_norm2d_relu_conv2d_bwd>(
      op, x, checked_bwd(op, check, "dy", dy, x, block, &dx, precision));
}

void batch_norm2d_relu_conv2d_chain_fwd(const Tensor& x, const std::vector<NormConvFwd>& blocks, Precision precision) {
  const char* op = "batch_norm2d_relu_conv2d_chain_fwd";
  require_blocks(op, blocks.size());
  NormConvChainFwdArgs args;
  std::vector<Arg> all{in("x", x)};
  const Tensor* input = &x;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::string name = name_of_block(op, i);
    const Check check(name.c_str(), with_args({in("x", *input)}, blocks[i]));
    args.blocks.push_back(checked_fwd(name.c_str(), check, *input, blocks[i], precision));
    add_args(all, blocks[i]);
    input = &std::get<kOutput>(blocks[i]);
  }
  const Check check(op, std::move(all));
  run<cpu::batch_norm2d_relu_conv2d_chain_fwd, cuda::batch_norm2d_relu_conv2d_chain_fwd>(op, x, args);
}

void batch_norm2d_relu_conv2d_chain_bwd(const Tensor& dy, const std::vector<Tensor>& x,
                                        const std::vector<NormConvBwd>& blocks, const Tensor& dx, Precision precision) {
  const char* op = "batch_norm2d_relu_conv2d_chain_bwd";
  require_blocks(op, blocks.size());
  if (x.size() != blocks.size()) {
    throw std::invalid_argument(cat(op, ": there must be an x for each of ", blocks.size(), " blocks, got ", x.size()));
  }
  NormConvChainBwdArgs args;
  std::vector<Arg> all{in("dy", dy), out("dx", dx)};
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const bool last = i + 1 == blocks.size();
    const std::string name = name_of_block(op, i);
    const Check check(name.c_str(), with_args({in("x", x[i])}, blocks[i]));
    args.blocks.push_back(checked_bwd(name.c_str(), check, last ? "dy" : "y", last ? dy : x[i + 1], x[i], blocks[i],
                                      i == 0 ? &dx : nullptr, precision));
    if (!last) args.blocks.back().conv.dy = nullptr;
    all.push_back(in("x", x[i]));
    add_args(all, blocks[i]);
  }
  const Check check(op, std::move(all));
  run<cpu::batch_norm2d_relu_conv2d_chain_bwd, cuda::batch_norm2d_relu_conv2d_chain_bwd>(op, dy, args);
}

}  // namespace stapes::ops
