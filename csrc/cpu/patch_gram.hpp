// The Gram matrix of what the outputs of a convolution read: the sums over all of them of the products of two numbers
// of the patch, and of each alone. From it follow the mean and the variance of every output channel, and the weight
// gradient of a gradient that depends on the outputs alone, without a look at the outputs.
// gram (L + 1, L + 1), L = R*S*C numbers in the order of w, then 1; any stride and padding, few L.
// Work: an image at a time is put in double, a row for each of its rows, channels, and remainders of the stride, so
// that what neighbouring outputs read through one tap lies side by side. Sums of vectors over the image.
// Threads: chunks of images, a number fixed by the shape, each with sums of its own; one image is one thread's.
// Numerics: products of float32 are exact in double; sums in double, over a chunk's images, then over chunks in order.
#pragma once

#include "cpu/conv2d.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

template <class T>
class PatchGram {
 public:
  static bool can(const Conv2dShape& s) {
    return sizeof(T) < sizeof(double) && s.groups == 1 && s.N > 0 &&
           s.window.kernel_h * s.window.kernel_w * s.C <= kMostNumbers;
  }

  PatchGram(const T* x, const Conv2dShape& s)
      : x_(x),
        g_(forward_grid(s)),
        numbers_(g_.rows.count * g_.cols.count * g_.C),
        width_(round_up(g_.Q + (g_.cols.count - 1) * g_.cols.step / g_.stride_w, kDoubles) + kDoubles) {}

  Index size() const { return (numbers_ + 1) * (numbers_ + 1); }

  void operator()(double* gram) const {
    const int threads = num_threads();
    const Index rows = (g_.H * g_.C * g_.stride_w + 2) * width_, sums = size() * kDoubles;
    const Index chunks = least(g_.N, kMostChunks);
    const Workspace scratch = workspace_of<double>(threads * rows), own = workspace_of<double>(chunks * sums);
    parallel_for(chunks, threads, [&](Index chunk, int thread) {
      double *image = scratch.as<double>() + thread * rows, *to = own.as<double>() + chunk * sums;
      for (Index i = 0; i < sums; ++i) to[i] = 0;
      const Range images = part(g_.N, chunks, chunk);
      for (Index n = images.begin; n < images.end; ++n) {
        spread(x_ + n * g_.H * g_.W * g_.C, image);
        for (Index p = 0; p < g_.P; ++p) add_row(p, image, to);
      }
    });
    for (Index i = 0; i <= numbers_; ++i)
      for (Index j = i; j <= numbers_; ++j) {
        const double* lanes = own.as<double>() + (i * (numbers_ + 1) + j) * kDoubles;
        double sum = 0;
        for (Index chunk = 0; chunk < chunks; ++chunk, lanes += sums)
          for (int lane = 0; lane < kDoubles; ++lane) sum += lanes[lane];
        gram[i * (numbers_ + 1) + j] = gram[j * (numbers_ + 1) + i] = sum;
      }
  }

 private:
  static constexpr int kDoubles = kLanes<double>, kTogether = 8;  // sums in registers
  static constexpr Index kMostNumbers = 32, kMostChunks = 16;

  // Rows of zeros and of ones lie behind those of the image.
  Index zeros() const { return g_.H * g_.C * g_.stride_w * width_; }

  // Row (h, c, remainder) holds the pixels w = i * stride_w + remainder + cols.first of channel c, zeros beside the
  // image.
  void spread(const T* x, double* image) const {
    for (Index h = 0; h < g_.H; ++h)
      for (Index c = 0; c < g_.C; ++c)
        for (Index remainder = 0; remainder < g_.stride_w; ++remainder, image += width_) {
          const T* row = x + h * g_.W * g_.C + c;
          const Index first = remainder + g_.cols.first, step = g_.stride_w;
          const Index begin = clamp(ceil_div(-first, step), 0, width_);
          const Index end = clamp(ceil_div(g_.W - first, step), begin, width_);
          for (Index i = 0; i < begin; ++i) image[i] = 0;
          for (Index i = begin; i < end; ++i) image[i] = static_cast<double>(row[(i * step + first) * g_.C]);
          for (Index i = end; i < width_; ++i) image[i] = 0;
        }
    for (Index i = 0; i < width_; ++i) {
      image[i] = 0;
      image[width_ + i] = i < g_.Q ? 1 : 0;
    }
  }

  // What the outputs of row p read: a run of memory for each number, then the ones.
  void find_runs(Index p, const double* image, const double** runs) const {
    for (Index r = 0; r < g_.rows.count; ++r) {
      const Index h = p * g_.stride_h + g_.rows.first + r * g_.rows.step;
      for (Index s = 0; s < g_.cols.count; ++s)
        for (Index c = 0; c < g_.C; ++c) {
          const Index shift = s * g_.cols.step, row = (h * g_.C + c) * g_.stride_w + shift % g_.stride_w;
          *runs++ = h < 0 || h >= g_.H ? image + zeros() : image + row * width_ + shift / g_.stride_w;
        }
    }
    *runs = image + zeros() + width_;
  }

  void add_row(Index p, const double* image, double* sums) const {
    const double* runs[kMostNumbers + 1];
    find_runs(p, image, runs);
    for (Index i = 0; i <= numbers_; ++i)
      for (Index j = i; j <= numbers_; j += kTogether) {
        double* to = sums + (i * (numbers_ + 1) + j) * kDoubles;
        with_count(least(numbers_ + 1 - j, kTogether), [&]<int kCount>() { add<kCount>(runs[i], runs + j, to); });
      }
  }

  // sums of run * others[k] over the outputs of the row.
  template <int kCount>
  [[gnu::noinline]] void add(const double* run, const double* const* others, double* sums) const {
    Vec<double> acc[kCount];
    for (int k = 0; k < kCount; ++k) acc[k] = load(sums + k * kDoubles);
    Index q = 0;
    for (; q + kDoubles <= g_.Q; q += kDoubles) {
      const Vec<double> x = load(run + q);
#pragma GCC unroll 8
      for (int k = 0; k < kCount; ++k) acc[k] += x * load(others[k] + q);
    }
    if (q < g_.Q) {
      const int left = static_cast<int>(g_.Q - q);
      const Vec<double> x = load_part(run + q, left);
      for (int k = 0; k < kCount; ++k) acc[k] += x * load_part(others[k] + q, left);
    }
    for (int k = 0; k < kCount; ++k) store(sums + k * kDoubles, acc[k]);
  }

  template <class F>
  static void with_count(Index count, const F& f) {
    switch (count) {
      case 1: return f.template operator()<1>();
      case 2: return f.template operator()<2>();
      case 3: return f.template operator()<3>();
      case 4: return f.template operator()<4>();
      case 5: return f.template operator()<5>();
      case 6: return f.template operator()<6>();
      case 7: return f.template operator()<7>();
      default: return f.template operator()<8>();
    }
  }

  const T* x_;
  Grid g_;
  Index numbers_, width_;
};

}  // namespace stapes::cpu::STAPES_ISA_NAME
