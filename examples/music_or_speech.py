"""Music or speech: a dense network 64-32-2 on features of the waveform.

    python examples/music_or_speech.py [FOLDER]

FOLDER holds music/ and speech/ with sound files, of which every fourth is kept for testing. Without
it two kinds of sound are made here: chords that hold, and noise in syllables. That shows the steps,
not what the network can do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from stapes import audio, nn
from stapes.train import EarlyStopping

RATE, SECONDS = 16000, 4
CLASSES = ("music", "speech")


def waveform_features(samples: np.ndarray) -> np.ndarray:
    """Return 9 numbers: mean, spread and change over frames of three measures of a frame.

    The measures, over frames of 25 ms: loudness (dB), zero crossings (a sample), and how much the
    waveform moves beside how large it is.
    """
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160]
    energy = np.square(frames).mean(axis=1) + 1e-10
    crossings = (np.diff(np.signbit(frames), axis=1) != 0).mean(axis=1)
    movement = np.square(np.diff(frames, axis=1)).mean(axis=1) / energy
    measures = np.stack([10 * np.log10(energy), crossings, np.sqrt(movement)], axis=1)
    change = np.abs(np.diff(measures, axis=0)).mean(axis=0)
    return np.concatenate([measures.mean(axis=0), measures.std(axis=0), change])


def from_folder(root: Path) -> tuple[list[np.ndarray], list[int]]:
    """Return the first seconds of every sound file below music/ and speech/, and the classes."""
    sounds, classes = [], []
    for label, name in enumerate(CLASSES):
        for path in sorted(p for p in (root / name).iterdir() if p.is_file()):
            try:
                samples, _ = audio.load(path, sample_rate=RATE)
            except audio.AudioError as e:
                print(f"left out: {e}")
                continue
            wanted = RATE * SECONDS
            sounds.append(np.pad(samples[:wanted], (0, max(0, wanted - len(samples)))))
            classes.append(label)
    return sounds, classes


def synthesised(count: int, rng: np.random.Generator) -> tuple[list[np.ndarray], list[int]]:
    """Return chords that hold (class 0) and noise in syllables (class 1), in turn."""
    t = np.arange(RATE * SECONDS) / RATE
    sounds, classes = [], []
    for i in range(count):
        if i % 2 == 0:
            root = rng.uniform(110, 440)
            sound = sum(np.sin(2 * np.pi * root * r * t) for r in (1, 5 / 4, 3 / 2)) / 3
        else:
            syllables = np.sin(2 * np.pi * rng.uniform(2, 5) * t) > rng.uniform(-0.3, 0.5)
            sound = rng.normal(size=t.size) * syllables / 3
        noise = rng.normal(scale=rng.uniform(0.001, 0.05), size=t.size)
        sounds.append((sound + noise).astype(np.float32))
        classes.append(i % 2)
    return sounds, classes


def main() -> None:
    """Train, and print the accuracy on sounds that were kept apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="holds music/ and speech/")
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()

    if args.folder:
        sounds, classes = from_folder(args.folder)
    else:
        print("No folder given: the two kinds of sound are synthetic.")
        sounds, classes = synthesised(160, np.random.default_rng(0))

    x = np.stack([waveform_features(sound) for sound in sounds]).astype(np.float32)
    y = np.array(classes)
    test = np.arange(len(x)) // 2 % 4 == 3  # pairs, since the synthetic classes come in turn
    mean, std = x[~test].mean(axis=0), x[~test].std(axis=0) + 1e-6
    x = (x - mean) / std  # normalised by the training sounds alone

    model = nn.Sequential(
        nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        x[~test], y[~test], epochs=args.epochs, validation_data=(x[test], y[test]), progress=False,
        callbacks=[EarlyStopping(monitor="loss", patience=10)],
    )  # fmt: skip

    predicted = model.predict(x[test]).argmax(axis=1)
    for label, name in enumerate(CLASSES):
        of_class = y[test] == label
        right = np.count_nonzero(predicted[of_class] == label)
        print(f"{name:7} {right} of {np.count_nonzero(of_class)} right")
    print(f"accuracy {np.mean(predicted == y[test]):.3f}")


if __name__ == "__main__":
    main()
