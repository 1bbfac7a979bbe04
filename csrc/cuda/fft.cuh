// Fourier transforms in double of several frames by a block, in shared memory: Stockham's passes, of any factors.
// Source: N. Govindaraju, B. Lloyd, Y. Dotsenko, B. Smith, J. Manferdelli, "High Performance Discrete Fourier
// Transforms on Graphics Processors", 2008.
#pragma once

#include "cuda/primitives.cuh"

namespace stapes::cuda {

// The factor of a length to be taken next: 4 as often as possible, 2, 3, 5, then what is left.
__device__ inline int next_factor(int length) {
  if (length % 4 == 0) return 4;
  for (int f = 2; f * f <= length; f += f == 2 ? 1 : 2) {
    if (length % f == 0) return f;
  }
  return length;
}

__device__ __forceinline__ double2 operator+(double2 a, double2 b) { return make_double2(a.x + b.x, a.y + b.y); }
__device__ __forceinline__ double2 operator-(double2 a, double2 b) { return make_double2(a.x - b.x, a.y - b.y); }
__device__ __forceinline__ double2 operator*(double2 a, double2 b) {
  return make_double2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

// A length's roots of unity, exp(-2 pi i k / length), out of a table of those of `stride` times the length.
struct Roots {
  const double* table;  // real and imaginary parts; perhaps not aligned to both
  int length, stride;
  __device__ double2 operator[](int k) const { return make_double2(table[2 * k * stride], table[2 * k * stride + 1]); }
};

// v becomes its transform; third roots and so on are looked up.
template <int R>
__device__ __forceinline__ void transform(double2 (&v)[R], const Roots& roots) {
  if constexpr (R == 2) {
    const double2 a = v[0];
    v[0] = a + v[1];
    v[1] = a - v[1];
  } else if constexpr (R == 4) {
    const double2 a = v[0] + v[2], b = v[0] - v[2], c = v[1] + v[3], d = v[1] - v[3];
    v[0] = a + c;
    v[1] = make_double2(b.x + d.y, b.y - d.x);
    v[2] = a - c;
    v[3] = make_double2(b.x - d.y, b.y + d.x);
  } else {
    double2 in[R];
#pragma unroll
    for (int q = 0; q < R; ++q) in[q] = v[q];
#pragma unroll
    for (int r = 0; r < R; ++r) {
      v[r] = in[0];
#pragma unroll
      for (int q = 1; q < R; ++q) v[r] = v[r] + in[q] * roots[q * r % R * (roots.length / R)];
    }
  }
}

// One pass of factor R over a frame by `lanes` threads, of which this is number `lane`; `done` is the product of the
// factors before.
template <int R>
__device__ __forceinline__ void pass(const double2* in, double2* out, int done, const Roots& roots, int lane,
                                     int lanes) {
  const int length = roots.length, parts = length / R, step = parts / done;
  for (int j = lane; j < parts; j += lanes) {
    const int k = (done & (done - 1)) == 0 ? j & (done - 1) : j % done;
    double2 v[R];
    v[0] = in[j];
#pragma unroll
    for (int q = 1; q < R; ++q) v[q] = in[j + q * parts] * roots[q * k * step];
    transform(v, roots);
#pragma unroll
    for (int r = 0; r < R; ++r) out[(j - k) * R + k + r * done] = v[r];
  }
}

// The same for any factor: an output at a time, by its definition.
__device__ __forceinline__ void pass(int R, const double2* in, double2* out, int done, const Roots& roots, int lane,
                                     int lanes) {
  const int length = roots.length, parts = length / R, step = parts / done;
  for (int i = lane; i < length; i += lanes) {
    const int j = i / R, r = i % R, k = j % done, turn = k + r * done;
    double2 sum = in[j];
    for (int q = 1, angle = 0; q < R; ++q) {
      angle += turn;
      if (angle >= done * R) angle -= done * R;
      sum = sum + in[j + q * parts] * roots[angle * step];
    }
    out[(j - k) * R + k + r * done] = sum;
  }
}

// Transforms a frame in place of `a`, with `b` as scratch; returns the one of them that holds the result. Ends with a
// barrier. Every thread of the block must come.
__device__ __forceinline__ double2* fft(double2* a, double2* b, const Roots& roots, int lane, int lanes) {
  for (int done = 1; done < roots.length;) {
    const int R = next_factor(roots.length / done);
    switch (R) {
      case 2: pass<2>(a, b, done, roots, lane, lanes); break;
      case 3: pass<3>(a, b, done, roots, lane, lanes); break;
      case 4: pass<4>(a, b, done, roots, lane, lanes); break;
      case 5: pass<5>(a, b, done, roots, lane, lanes); break;
      default: pass(R, a, b, done, roots, lane, lanes);
    }
    __syncthreads();
    done *= R;
    double2* const result = b;
    b = a;
    a = result;
  }
  return a;
}

}  // namespace stapes::cuda
