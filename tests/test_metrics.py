import numpy as np
import pytest

from stapes.train import metrics

OUTPUT = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4], [0.8, 0.1, 0.1]])
IDS = np.array([0, 1, 1, 0])


def value(metric, *batches):
    for output, target in batches:
        metric.update(output, target)
    return metric.result()


def named(name):
    (metric,) = metrics.create([name])
    return metric


@pytest.mark.parametrize("target", [IDS, np.eye(3)[IDS], IDS.astype(np.int32)])
def test_accuracy(target):
    assert value(named("accuracy"), (OUTPUT, target)) == 0.75


def test_ties_go_to_the_first_class():
    assert value(named("accuracy"), (np.zeros((2, 3)), np.array([0, 1]))) == 0.5


def test_balanced_accuracy_is_the_mean_recall_of_classes_present():
    batches = [(OUTPUT[:3], IDS[:3]), (OUTPUT[3:], IDS[3:])]
    assert value(named("balanced_accuracy"), *batches) == (1 + 0.5) / 2
    assert value(named("accuracy"), *batches) == 0.75


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy"])
def test_ignored_samples_do_not_count(name):
    target = np.array([0, 1, -100, -100])
    assert value(named(name), (OUTPUT, target)) == 1
    assert np.isnan(value(named(name), (OUTPUT, np.full(4, -100))))


def test_errors_are_weighted_by_samples():
    rng = np.random.default_rng(0)
    y, t = rng.normal(size=(2, 5, 3))
    batches = [(y[:4], t[:4]), (y[4:], t[4:]), (y[:0], t[:0])]
    assert value(named("mse"), *batches) == pytest.approx(np.mean((y - t) ** 2))
    assert value(named("mae"), *batches) == pytest.approx(np.mean(np.abs(y - t)))
    assert value(named("mse"), (OUTPUT, IDS)) == np.mean((OUTPUT - np.eye(3)[IDS]) ** 2)


def test_callables_have_their_name():
    def largest(output, target):
        return output.max()

    metric = named(largest)
    assert metric.name == "largest"
    assert value(metric, (OUTPUT[:1], IDS[:1]), (OUTPUT[1:], IDS[1:])) == (0.9 + 3 * 0.8) / 4


def test_confusion():
    expected = [[2, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert metrics.confusion_matrix(OUTPUT, IDS).tolist() == expected
    assert metrics.confusion_matrix(OUTPUT[:0], IDS[:0]).tolist() == np.zeros((3, 3)).tolist()


def test_reset():
    metric = named("balanced_accuracy")
    value(metric, (OUTPUT, 1 - IDS))
    metric.reset()
    assert value(metric, (OUTPUT[:2], IDS[:2])) == 1


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (["acuracy"], ValueError, "acuracy"),
        ([3], TypeError, "3"),
        (["mse", "mse"], ValueError, "different names"),
    ],
)
def test_what_is_no_metric(given, error, text):
    with pytest.raises(error, match=text):
        metrics.create(given)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"at least 2 classes, got \(4, 1\)"):
        named("accuracy").update(OUTPUT[:, :1], IDS)
    with pytest.raises(ValueError, match="0 to 2, got 0 to 3"):
        metrics.confusion_matrix(OUTPUT, IDS * 3)
    with pytest.raises(ValueError, match="0 to 2, got -1 to 0"):
        metrics.confusion_matrix(OUTPUT, -IDS)
    with pytest.raises(ValueError, match=r"target must have shape \(4, 3\), got \(4, 2\)"):
        metrics.mse(OUTPUT, OUTPUT[:, :2])
