// batch_norm2d over M = N * H * W values of each channel
//   fwd: y = (x - mean) * rstd * gamma + beta, rstd = 1 / sqrt(var + eps)
//        in training var is the biased variance of the batch, and running = (1 - momentum) * running + momentum * batch
//        with the unbiased variance M / (M - 1) * var; else the running values are used
//   bwd: dbeta = sum dy, dgamma = rstd * sum dy (x - mean)
//        in training dx = gamma * rstd * (dy - dbeta / M - (x - mean) * rstd * dgamma / M), else gamma * rstd * dy
// Layout: (M, C), channels innermost.
// Work: chunks of rows (RowChunks), fixed by the shape; every chunk's result per channel, merged in their order.
// Numerics: statistics (batch_norm2d.hpp) and sums in double. Both overwrite.
// Source: S. Ioffe, C. Szegedy, "Batch Normalization", 2015.
#include "cpu/batch_norm2d.hpp"

#include "core/dispatch.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

template <class T>
void normalise(const T* __restrict x, T* __restrict y, Index rows, Index cols, const T* __restrict mean,
               const T* __restrict scale, const T* __restrict shift) {
  for (Index r = 0; r < rows; ++r, x += cols, y += cols) {
    for (Index c = 0; c < cols; ++c) y[c] = (x[c] - mean[c]) * scale[c] + shift[c];
  }
}

template <class T>
void fwd_of(const BatchNorm2dFwdArgs& a) {
  const RowChunks chunks(a.rows, a.channels);
  const Workspace coefficients = workspace_of<T>(3 * chunks.wide);
  T* center = coefficients.as<T>();
  const Normalisation<T> n{center, center + chunks.wide, center + 2 * chunks.wide};
  prepare(a, chunks, n);
  for (T* p : {n.center, n.scale, n.shift}) chunks.repeat(p);

  const T* x = static_cast<const T*>(a.x);
  T* y = static_cast<T*>(a.y);
  parallel_for(chunks.tasks(), [&](Index i) {
    chunks.run(i, [&](Index first, Index rows, Index cols) {
      normalise(x + first, y + first, rows, cols, n.center, n.scale, n.shift);
    });
  });
}

// For each column the sums of dy and of dy * (x - mean).
template <class T>
void column_sums(const T* dy, const T* x, const T* mean, Index rows, Index cols, double* sum_dy, double* sum_dyx) {
  for (Index c = 0; c < cols; ++c) sum_dy[c] = sum_dyx[c] = 0;
  for_row_tiles(rows, cols, [=](Index begin, Index end, auto block) {
    constexpr int V = decltype(block)::kVectors;
    Vec<double> center[V], s[V], sx[V];
    for (int v = 0; v < V; ++v) {
      center[v] = block.get(mean, v);
      s[v] = block.get(sum_dy, v);
      sx[v] = block.get(sum_dyx, v);
    }
    for (Index r = begin; r < end; ++r) {
      block.fetch(dy + (r + end - begin) * cols);
      block.fetch(x + (r + end - begin) * cols);
      for (int v = 0; v < V; ++v) {
        const Vec<double> g = block.get(dy + r * cols, v);
        s[v] += g;
        sx[v] += g * (block.get(x + r * cols, v) - center[v]);
      }
    }
    for (int v = 0; v < V; ++v) {
      block.put(sum_dy, v, s[v]);
      block.put(sum_dyx, v, sx[v]);
    }
  });
}

// As column_sums for the channels of all rows; scratch holds 2 * wide doubles for each task.
template <class T>
void batch_sums(const T* dy, const T* x, const T* mean, const RowChunks& chunks, double* scratch, double* sum_dy,
                double* sum_dyx) {
  const Index channels = chunks.channels, wide = chunks.wide;
  parallel_for(chunks.tasks(), [&](Index i) {
    double* task = scratch + i * 2 * wide;
    chunks.run(i, [&](Index first, Index rows, Index cols) {
      column_sums(dy + first, x + first, mean, rows, cols, task, task + wide);
      for (Index c = channels; c < cols; ++c) {
        task[c % channels] += task[c];
        task[wide + c % channels] += task[wide + c];
      }
    });
  });
  for (Index c = 0; c < channels; ++c) sum_dy[c] = sum_dyx[c] = 0;
  for (Index i = 0; i < chunks.tasks(); ++i) {
    const double* task = scratch + i * 2 * wide;
    for (Index c = 0; c < channels; ++c) {
      sum_dy[c] += task[c];
      sum_dyx[c] += task[wide + c];
    }
  }
}

template <class T>
void input_gradient(const T* __restrict dy, const T* __restrict x, T* __restrict dx, Index rows, Index cols,
                    const T* __restrict mean, const T* __restrict scale, const T* __restrict slope,
                    const T* __restrict shift) {
  for (Index r = 0; r < rows; ++r, dy += cols, x += cols, dx += cols) {
    for (Index i = 0; i < cols; ++i) dx[i] = scale[i] * dy[i] + (slope[i] * (x[i] - mean[i]) + shift[i]);
  }
}

template <class T>
void scale_columns(const T* __restrict dy, T* __restrict dx, Index rows, Index cols, const T* __restrict a) {
  for (Index r = 0; r < rows; ++r, dy += cols, dx += cols) {
    for (Index i = 0; i < cols; ++i) dx[i] = a[i] * dy[i];
  }
}

template <class T>
void bwd_of(const BatchNorm2dBwdArgs& args) {
  const Index C = args.channels;
  const RowChunks chunks(args.rows, C);
  const T *dy = static_cast<const T*>(args.dy), *x = static_cast<const T*>(args.x);
  T* dx = static_cast<T*>(args.dx);

  const Workspace coefficients = workspace_of<T>(4 * chunks.wide);
  T* mean = coefficients.as<T>();
  const InputGradient<T> g{mean, mean + chunks.wide, mean + 2 * chunks.wide, mean + 3 * chunks.wide};
  for (Index c = 0; c < C; ++c) mean[c] = static_cast<const T*>(args.mean)[c];
  chunks.repeat(mean);

  const Workspace sums = workspace_of<double>(2 * C + chunks.tasks() * 2 * chunks.wide);
  double *sum_dy = sums.as<double>(), *sum_dyx = sum_dy + C;
  batch_sums(dy, x, mean, chunks, sum_dyx + C, sum_dy, sum_dyx);
  finish(args, sum_dy, sum_dyx, g);

  for (T* p : {g.scale, g.slope, g.shift}) chunks.repeat(p);
  parallel_for(chunks.tasks(), [&](Index i) {
    chunks.run(i, [&](Index first, Index n, Index cols) {
      if (args.training) {
        input_gradient(dy + first, x + first, dx + first, n, cols, g.mean, g.scale, g.slope, g.shift);
      } else {
        scale_columns(dy + first, dx + first, n, cols, g.scale);
      }
    });
  });
}

void fwd(const BatchNorm2dFwdArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) { fwd_of<T>(a); });
}

void bwd(const BatchNorm2dBwdArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) { bwd_of<T>(a); });
}

const Register kFwd{batch_norm2d_fwd, kIsa, fwd};
const Register kBwd{batch_norm2d_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
