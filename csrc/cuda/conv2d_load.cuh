// Brings an operand's tile (conv2d_tile.cuh) from its source (conv2d_sources.cuh) to shared memory, stage by stage:
// fetch() starts a stage, store() ends it for sources that go through registers (called after the arithmetic that
// hides the loads' latency). A thread brings one piece of every kRowsAtOnce-th row.
#pragma once

#include "cuda/conv2d_sources.cuh"

namespace stapes::cuda {

template <class Op, int kThreads>
struct LoaderShape {
  static constexpr int kRowsAtOnce = kThreads / Op::kPieces, kCount = Op::kRows / kRowsAtOnce;
  static_assert(kThreads % Op::kPieces == 0 && Op::kRows % kRowsAtOnce == 0 && kCount >= 1);

  __device__ __forceinline__ static int row() { return thread_id() / Op::kPieces; }
  __device__ __forceinline__ static int piece() { return thread_id() % Op::kPieces; }
  __device__ __forceinline__ static int offset(int i) { return Op::offset(row() + i * kRowsAtOnce, piece()); }
};

// Registers between fetch() and store().
template <class Source, int kCount>
struct Held {
  typename Source::Raw v[kCount];
};
template <class Source, int kCount>
  requires Source::kAsync
struct Held<Source, kCount> {};

template <class Source, class Op, int kThreads>
class LoaderBase {
 protected:
  using T = typename Source::Element;
  using Shape = LoaderShape<Op, kThreads>;

  __device__ __forceinline__ void fetch_piece(const Source& source, T* tile, int i, const typename Source::Line& line,
                                              const typename Source::Depth& depth) {
    if constexpr (Source::kAsync) {
      source.copy(tile + Shape::offset(i), line, depth);
    } else {
      held_.v[i] = source.load(line, depth);
    }
  }

 public:
  __device__ __forceinline__ void store(T* tile) {
    if constexpr (!Source::kAsync) {
#pragma unroll
      for (int i = 0; i < Shape::kCount; ++i) store_vec(tile + Shape::offset(i), Source::whole(held_.v[i]));
    }
  }

 private:
  [[no_unique_address]] Held<Source, Shape::kCount> held_;
};

// Along depth: a thread's lines stay, its depth advances by a stage.
// Along lines: its line stays, its depth advances from row to row.
template <class Source, class Op, int kThreads, Along = Source::kAlong>
class Loader : public LoaderBase<Source, Op, kThreads> {
  using Shape = LoaderShape<Op, kThreads>;

 public:
  __device__ __forceinline__ Loader(const Source& source, int line, int depth)
      : source_(source),
        depth_(source.depth(depth + Shape::piece() * kVec<typename Source::Element>)),
        step_(source.step(Op::kDepth)) {
#pragma unroll
    for (int i = 0; i < Shape::kCount; ++i) lines_[i] = source.line(line + Shape::row() + i * Shape::kRowsAtOnce);
  }
  __device__ __forceinline__ void fetch(typename Source::Element* tile) {
#pragma unroll
    for (int i = 0; i < Shape::kCount; ++i) this->fetch_piece(source_, tile, i, lines_[i], depth_);
    source_.advance(depth_, step_);
  }

 private:
  const Source& source_;
  typename Source::Line lines_[Shape::kCount];
  typename Source::Depth depth_;
  typename Source::Step step_;
};

template <class Source, class Op, int kThreads>
class Loader<Source, Op, kThreads, Along::kLines> : public LoaderBase<Source, Op, kThreads> {
  using Shape = LoaderShape<Op, kThreads>;

 public:
  __device__ __forceinline__ Loader(const Source& source, int line, int depth)
      : source_(source),
        line_(source.line(line + Shape::piece() * kVec<typename Source::Element>)),
        depth_(source.depth(depth + Shape::row())),
        step_(source.step(Shape::kRowsAtOnce)) {}
  __device__ __forceinline__ void fetch(typename Source::Element* tile) {
#pragma unroll
    for (int i = 0; i < Shape::kCount; ++i) {
      this->fetch_piece(source_, tile, i, line_, depth_);
      source_.advance(depth_, step_);
    }
  }

 private:
  const Source& source_;
  typename Source::Line line_;
  typename Source::Depth depth_;
  typename Source::Step step_;
};

}  // namespace stapes::cuda
